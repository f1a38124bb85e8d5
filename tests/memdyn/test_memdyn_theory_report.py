"""The report: the answer first, every section, nothing that raises."""

import re
import time

import numpy as np
import pytest
from memdyn_series import QUICK, long, run_of

from memdyn.theory import generate_summary_report
from memdyn.theory.report import SHAPES
from memdyn.theory.sections import PATTERNS

SECTIONS = ["ANSWER", "PROGRESS", "COMPRESSION IN THE MIDDLE", "ONSET", "LAYERS", "LAYER THAT"]
SECTIONS += ["PREDICTION", "WARNINGS"]


def one_line(text):
    return " ".join(text.split())


def check_form(text):
    """All sections in order, no line beyond 100 characters, no nan, no None."""
    titles = [line for line in text.splitlines() if line and line[0] != " "]
    assert len(titles) == 1 + len(SECTIONS)
    assert all(t.startswith(s) for t, s in zip(titles[1:], SECTIONS, strict=True))
    assert max(map(len, text.splitlines())) <= 100
    assert "nan" not in one_line(text).split()
    assert "None" not in text


def test_a_whole_run():
    text = generate_summary_report(run_of(n=30))
    check_form(text)
    words = one_line(text)
    assert "Memorized at epoch 20: 30 of 30 (100 %) trained passages, 0 of 30 (0 %) novel" in words
    assert f"monotone_decreasing: {SHAPES['monotone_decreasing']}" in words
    assert f"monotone_increasing: {SHAPES['monotone_increasing']}" in words
    assert "nv and nv_rel differ" in words
    assert re.search(r"Trained minus novel .* at epoch 20: -0\.\d+ \(.*\), they differ", words)
    assert "lower compression goes with earlier memorization" in words
    assert "at least 3 seeds, with the runs as units" in words
    assert "Try fewer passages" not in words


def test_the_scale_is_what_nv_gains_and_nv_rel_does_not():
    """nv - nv_rel = -ln tr Cov Y: here .1 per epoch in both groups; the middle of 4 layers is 2."""
    text = generate_summary_report(run_of(n=10, n_layers=4))
    section = text.split("COMPRESSION IN THE MIDDLE (layer 2)")[1].splitlines()[1:11]
    rows = [line.split() for line in section]
    assert rows[0] == ["epoch", "nv", "novel", "nv_rel", "novel", "scale", "novel"]
    assert [row[0] for row in rows[1:]] == [str(epoch) for epoch in QUICK]
    for epoch, row in zip(QUICK, rows[1:], strict=True):
        assert row[5:] == [f"{0.1 * epoch:.3f}"] * 2


def test_a_u_comes_with_its_p_and_its_turn():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 9, 60)) + 2 * np.square(np.linspace(-1, 1, 9))[:, None]
    text = generate_summary_report(long(values, np.zeros((9, 60))))
    check_form(text)
    answer = one_line(text.split("PROGRESS")[0])
    assert "no difference is shown" in answer  # novel passages go the same way
    assert f"u_shaped (p < .0001), turns at epoch 8: {SHAPES['u_shaped']}" in answer


def test_below_five_percent_it_says_what_to_try():
    data = run_of(n=30)
    data["accuracy"] = 0.5 * data["accuracy"]
    text = generate_summary_report(data)
    check_form(text)
    answer = one_line(text.split("PROGRESS")[0])
    for remedy in ("data.n_passages", "schedule.epochs", "twice the learning rate (lr)"):
        assert remedy in answer


NULLS = ["nv", "nv_rel", "nll", "accuracy"]


@pytest.mark.parametrize("name", NULLS)
@pytest.mark.parametrize("where", ["everywhere", "at the start", "at the end", "one layer"])
def test_nulls_do_not_stop_it(name, where, recwarn):
    data = run_of(n=12)
    gone = {
        "everywhere": data["epoch"] >= 0,
        "at the start": data["epoch"] == 0,
        "at the end": data["epoch"] == 20,
        "one layer": data["layer"] == 1,
    }[where]
    data[name] = np.where(gone, None, data[name])
    check_form(generate_summary_report(data))
    assert not recwarn.list


@pytest.mark.parametrize(
    "gone", [["nv"], ["nv_rel"], ["nv", "nv_rel"], ["nll"], ["layer"], ["group"]]
)
def test_absent_columns_do_not_stop_it(gone, recwarn):
    data = run_of(n=12, n_layers=1)
    for name in gone:
        del data[name]
    text = generate_summary_report(data)
    check_form(text)
    assert ("was not measured (neither nv_rel nor nv)" in text) == (len(gone) == 2)
    assert not recwarn.list


@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize("n_epochs", range(1, 10))
def test_it_is_written_after_every_epoch(n, n_epochs, recwarn):
    check_form(generate_summary_report(run_of(n=n, n_layers=2, epochs=QUICK[:n_epochs])))
    assert not recwarn.list


def test_schedules_that_start_late_are_reported():
    text = generate_summary_report(run_of(n=12, epochs=(1, 5, 20)))
    check_form(text)
    assert "Epoch 0 was not measured: changes are those since epoch 1." in text
    assert "too_few" in text


def test_warnings_name_what_is_suspicious():
    data = run_of(n=20)
    broken = (data["epoch"] == 8) & (data["layer"] == 2)
    data["nv"] = np.where(broken, None, data["nv"])
    data["nv_rel"] = data["nv_rel"] + 5 * (data["group"] == "trained")
    data["accuracy"] = np.where(data["passage_id"] % 4, data["accuracy"], 0.9)
    words = one_line(generate_summary_report(data).split("WARNINGS")[1])
    assert "nv: 40 of 1080 values are missing or not finite" in words
    assert "5 of 20 (25 %) novel passages pass for memorized" in words
    assert "5 trained passages were memorized before the training" in words
    assert "nv_rel of trained and novel passages differs at epoch 0 already" in words


def test_massive_activations_are_named():
    data = run_of(n_layers=3)
    shares = np.where(data["layer"] == 1, 0.01, np.nan)
    assert "massive" not in generate_summary_report(data | {"max_share": shares})
    shares[np.flatnonzero(data["layer"] == 1)[77]] = 0.48
    words = one_line(generate_summary_report(data | {"max_share": shares}))
    assert "In 1 of 3 layers (the first: 1) a single token holds up to 48 % of tr Cov Y" in words


def test_every_verdict_has_a_meaning():
    assert set(SHAPES) == {
        *("u_shaped", "inverted_u", "flat", "monotone_decreasing", "monotone_increasing"),
        *("unclear", "too_few"),
    }
    assert set(PATTERNS) == {
        *("early_first", "late_first", "simultaneous", "early_only", "late_only"),
        "no_differences",
    }


def test_a_report_takes_less_than_a_second_of_computing():
    """9 epochs, 100 + 100 passages, 3 layers; about .2 s when measured."""
    data = run_of(n=100)
    generate_summary_report(data)
    start = time.process_time()
    generate_summary_report(data)
    assert time.process_time() - start < 1


def test_more_layers_than_any_model_has():
    values = np.random.default_rng(0).normal(size=(40, 9, 8))
    check_form(generate_summary_report(long(values, np.full((9, 8), 0.5))))
