"""`python -m analysis.report`: the numbers of its page, for stores of every kind."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dynascope_toy
import numpy as np
import pytest
from report_page import Page, columns_of, report_of

from analysis.dln.store_figures import store_figures
from analysis.report.__main__ import main
from plugins import api
from plugins.config_files import ConfigFile, read_configs, write_config
from plugins.result import RunResult
from plugins.store import SweepWriter

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
T_2 = 4.302652729749464  # t_2(0.975): Student's table has 4.303


def write(store: Path, runs, *, plan="p", config=None, experiment="other/train", versions="{}"):
    """`runs`: (values of the varying keys, outcome); run i starts i minutes after noon, lasts i + 1
    seconds."""
    fixed = {"experiment": experiment, "width": 3, "objective": None} | (config or {})
    file = ConfigFile(fixed, tuple(runs[0][0]), 1)
    write_config(store, file)
    provenance = {"experiment": experiment, "host": "here", "job": None, "code": "abc+1"}
    with SweepWriter(store, plan, provenance | {"versions": versions}) as writer:
        for i, (values, outcome) in enumerate(runs):
            start = NOON + timedelta(minutes=i)
            end = start + timedelta(seconds=i + 1)
            name = hashlib.blake2b(f"{plan} {i}".encode(), digest_size=8).hexdigest()
            writer.append(i, name, file.config_id, values, outcome, start, end, i + 1.0)


def ended(final: float, n: int = 3, **scalars) -> RunResult:
    curves = {"step": np.arange(n), "loss": final + np.arange(n)[::-1]}
    return RunResult({"final_loss": final, "dim": 7, **scalars}, curves)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """gamma 0.75: final loss 1, 2, 3; gamma 1.5: 5, one diverged (99), one failed. Another plan has
    width 4 and one run of gamma 3."""
    store = tmp_path_factory.mktemp("several") / "store"
    diverged = ended(99.0, 2)
    diverged.status = "diverged"
    runs = [
        *(({"model.gamma": 0.75, "seed": s}, ended(1.0 + s, seconds_metric_svd=0.25 * (s + 1)))
          for s in range(3)),
        ({"model.gamma": 1.5, "seed": 0}, ended(5.0)),
        ({"model.gamma": 1.5, "seed": 1}, diverged),
        ({"model.gamma": 1.5, "seed": 2}, ValueError("<script>alert('no')</script> & <b>more</b>")),
    ]  # fmt: skip
    write(store, runs, versions='{"torch": "2.9", "numpy": "2.0"}')
    last = {"width": 4, "note": "<i>a</i>"}
    write(store, [({"model.gamma": 3.0, "seed": 0}, ended(7.0))], plan="q", config=last)
    return store


@pytest.fixture(scope="module")
def page(several, tmp_path_factory) -> Page:
    return report_of(several, tmp_path_factory.mktemp("page") / "report.html")


def test_keys_and_counts(page):
    varying, fixed = page.tables["asked"]
    assert varying[1:] == [
        ["model.gamma", "3", "0.75 (3), 1.5 (3), 3 (1)"],
        ["seed", "3", "0 (3), 1 (2), 2 (2)"],
        ["width", "2", "3 (6), 4 (1)"],
        ["note", "2", "<i>a</i> (1), null (6)"],
    ]
    assert ["experiment", "other/train"] in fixed
    assert not {"width", "model.gamma"} & {row[0] for row in fixed}
    assert page.tables["counts"][0][1:] == [["other/train", "5", "1", "1", "7"]]


def test_final_scalars_are_means_sds_and_t_intervals_of_the_runs_that_ended_well(page):
    """1, 2, 3: mean 2, sd 1, half width 4.3027 / sqrt(3) = 2.484."""
    assert f"{T_2 / 3**0.5:.4g}" == "2.484"
    table = page.tables["scalars"][0]
    columns = ("model.gamma", "width", "n", "diverged", "failed")
    columns += tuple(f"final_loss {name}" for name in ("mean", "sd", "± 95 % t"))
    assert columns_of(table, *columns) == [
        ("0.75", "3", "3", "0", "0", "2", "1", "2.484"),
        ("1.5", "3", "1", "1", "1", "5", "", ""),
        ("3", "4", "1", "0", "0", "7", "", ""),
    ]
    assert ["dim", "7"] in page.tables["scalars"][-1]


def test_errors_are_grouped_folded_and_never_markup(page):
    assert page.tags.count("script") == 1  # the page's own
    assert "b" not in page.tags
    assert "i" not in page.tags
    text = page.texts["counts"]
    assert "1 run: ValueError: <script>alert('no')</script> & <b>more</b>" in text
    assert "traceback of run" in text


def test_what_differs_between_the_configurations(page):
    differing = {row[0]: row[2] for row in page.tables["configs"][0][1:]}
    assert differing == {"width": "3 (6); 4 (1)", "note": "not there (6); <i>a</i> (1)"}


def test_cost_sums_seconds_by_group_and_metric(page):
    """Runs of 1, 2, 3; 4, 5, 6; 1 seconds: 22 in all, 90 % quantiles 2.8 and 5.8 between ranks."""
    assert "22 s of run time" in page.texts["cost"]
    groups, metrics, *_ = page.tables["cost"]
    names = ("model.gamma", "runs", "total", "median", "90 % quantile", "longest")
    assert columns_of(groups, *names) == [
        ("0.75", "3", "6 s", "2 s", "2.8 s", "3 s"),
        ("1.5", "3", "15 s", "5 s", "5.8 s", "6 s"),
        ("3", "1", "1 s", "1 s", "1 s", "1 s"),
    ]
    assert metrics[1:] == [["svd", "3", "1.5 s", "6.8 %", "500 ms"]]  # 1.5 / 22
    assert "core hours are not known" in page.texts["cost"]


def test_provenance(page, several):
    facts = dict(page.tables["provenance"][0])
    assert facts["store"] == str(several)
    assert facts["code"] == "abc+1"
    assert facts["libraries"] == "torch 2.9, numpy 2.0"
    assert facts["hosts"] == "here"
    assert facts["first start"] == "2026-01-01 12:00:00 UTC"
    assert facts["last finish"] == "2026-01-01 12:05:06 UTC"
    assert facts["superseded attempts"] == "0"
    assert "by dynascope " in facts["report"]


def test_curves_are_means_by_the_leading_keys_and_say_n(page):
    [alt] = page.images
    assert "n = 1 to 3 runs a point" in alt
    assert "95 % t interval" in alt
    assert "of each model.gamma" in alt
    assert "The family other has no figures of its own here." in page.texts["figures"]


def test_a_repeated_run_supersedes_its_failed_attempt(tmp_path):
    write(tmp_path / "s", [({"seed": 0}, ValueError("first"))])
    write(tmp_path / "s", [({"seed": 0}, ended(1.0))])
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert page.tables["counts"][0][1:] == [["other/train", "1", "0", "0", "1"]]
    assert dict(page.tables["provenance"][0])["superseded attempts"] == "1"


def raised(first: bool) -> Exception:
    """With a traceback; on two different lines."""
    try:
        if first:
            raise RuntimeError("no memory")
        raise RuntimeError("no memory")
    except RuntimeError as error:
        return error


def test_failed_runs_only(tmp_path):
    write(tmp_path / "s", [({"seed": s}, raised(s == 0)) for s in range(2)])
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert "2 runs: RuntimeError: no memory" in page.texts["counts"]
    assert page.texts["counts"].count("in raised") == 1  # one traceback of two
    assert "No run has a curve." in page.texts["curves"]
    assert page.images == []


def test_one_run(tmp_path):
    write(tmp_path / "s", [({}, ended(0.5))])
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert columns_of(page.tables["scalars"][0], "n", "final_loss mean") == [("1", "0.5")]
    assert page.images == ["One run (n = 1): loss."]


def test_runs_without_curves(tmp_path):
    runs = [({"model.gamma": g, "seed": s}, RunResult({"final": g + s})) for g in (1.0, 2.0)
            for s in (0, 2)]  # fmt: skip
    write(tmp_path / "s", runs)
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    columns = ("model.gamma", "final mean")
    assert columns_of(page.tables["scalars"][0], *columns) == [("1", "2"), ("2", "3")]
    assert "No run has a curve." in page.texts["curves"]


def test_a_curve_of_lists_is_drawn_of_one_run(tmp_path):
    spectrum = RunResult({}, {"step": [0, 1], "spectrum": [[1.0, 2.0], [3.0, 4.0]]})
    write(tmp_path / "s", [({"seed": 0}, ValueError("no")), ({"seed": 1}, spectrum)])
    [alt] = report_of(tmp_path / "s", tmp_path / "report.html").images
    assert "spectrum" in alt
    assert "(n = 1)" in alt


def test_many_groups_are_cut_and_the_page_says_so(tmp_path):
    runs = [({"model.gamma": float(i)}, RunResult({"final": float(i)})) for i in range(1100)]
    write(tmp_path / "s", runs)
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert len(page.tables["scalars"][0]) == 1 + 1000
    assert "The first 1,000 of 1,100 groups" in page.texts["scalars"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("toy") / "store"
    api.sweep("toy/trivial", ["seed=0..4", "bad_seeds=[3]", "steps=3"], output=store)
    return store


def test_plans_tell_the_command_and_what_is_missing(toy, tmp_path):
    page = report_of(toy, tmp_path / "report.html")
    assert "seed=0..4" in page.texts["asked"]
    assert "The plans ask for 4 runs; every one has a row." in page.texts["counts"]
    plan = columns_of(page.tables["counts"][1], "planned", "done", "failed", "lost")
    assert plan == [("4", "3", "1", "0")]
    api.sweep("toy/trivial", ["seed=7", "steps=3"], output=tmp_path / "s")
    for part in (tmp_path / "s" / "parts").iterdir():
        part.rename(tmp_path / part.name)
    api.sweep("toy/trivial", ["seed=8", "steps=3"], output=tmp_path / "s")
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert "The plans ask for 2 runs; 1 of them has no row." in page.texts["counts"]


def test_a_store_under_construction_says_so(tmp_path):
    api.sweep("toy/trivial", ["seed=0..2"], output=tmp_path / "s")
    for part in (tmp_path / "s" / "parts").iterdir():
        part.rename(tmp_path / part.name)
    page = report_of(tmp_path / "s", tmp_path / "report.html")
    assert "No run has ended so far." in page.texts["counts"]
    assert "2 of them have no row" in page.texts["counts"]
    assert "scalars" not in page.texts


_FIGURES = """
import matplotlib.pyplot as plt
from analysis.measured import NotMeasured, StoreFigure

def store_figures(store):
    yield StoreFigure("drawn", "A <point>.", lambda: plt.subplots()[1])
    yield StoreFigure("missing", "Nothing.", lambda: missing(store))
    yield StoreFigure("broken", "Nothing.", lambda: 1 / 0)

def missing(store):
    raise NotMeasured(f"no probe in {store.name}")
"""


def test_figures_of_a_third_party_and_why_others_are_missing(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "figures.py").write_text(_FIGURES)
    monkeypatch.setattr(dynascope_toy, "__path__", [*dynascope_toy.__path__, str(tmp_path)])
    page = report_of(toy, tmp_path / "report.html", status=1)
    del sys.modules["dynascope_toy.figures"]  # not monkeypatch's: it would put it back
    assert "A <point>." in page.images
    text = page.texts["figures"]
    assert "Not drawn: missing (no probe in store)." in text
    assert "Ended with an error: broken (ZeroDivisionError: division by zero)." in text
    assert "1 / 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def dln(tmp_path_factory) -> Path:
    """gamma 0.75 and 1.5, two orders of the batches each."""
    store = tmp_path_factory.mktemp("dln") / "store"
    small = ["model.gamma=0.75,1.5", "training.batch_seed=0,1", "training.batch_size=5"]
    api.sweep("dln/gph", [*small, "max_steps=4", "num_evaluations=2"], output=store)
    return store


def test_figures_of_dln_are_there_once(dln, tmp_path):
    page = report_of(dln, tmp_path / "report.html")
    curves, plateaus = page.images
    assert "(n = 2 runs a point; band: 95 % t interval of the mean over runs): test_loss" in curves
    assert plateaus.startswith("test_loss and the losses of the saddles")
    assert "Not drawn: theory (model.gamma = 0.75: no theory" in page.texts["figures"]


def test_figures_of_a_large_store_are_of_some_runs_and_say_so(dln, tmp_path):
    """1,200 runs of two gammas: 500 of each."""
    [file] = read_configs(dln).values()
    runs = [
        (
            {"model.gamma": gamma, "training.batch_seed": seed},
            RunResult({}, {"step": [0, 1], "test_loss": [2.0 + seed, 1.0]}),
        )
        for gamma in (0.75, 1.5)
        for seed in range(600)
    ]
    write(tmp_path / "s", runs, config=file.config, experiment="dln/train")
    figures = {figure.name: figure for figure in store_figures(tmp_path / "s")}
    sample = "of the first 500 runs of each model.gamma (of 1,200 runs in all)."
    assert figures["plateaus"].caption.endswith(sample)
    lines = figures["plateaus"].draw().get_legend().get_texts()
    assert [line.get_text() for line in lines] == ["0.75 (n = 500)", "1.5 (n = 500)"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "error: there is no store nowhere"),
        ({"-o": "no/folder/r.html"}, "error: cannot write to no/folder/r.html: no folder no/fold"),
        ({"-o": "report.pdf"}, "error: cannot write report.pdf: a report's name ends in .html"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_wrong(toy, tmp_path, changed, message, capsys):
    arguments = {"store": str(toy), "-o": str(tmp_path / "report.html")} | changed
    assert main([arguments["store"], "-o", arguments["-o"]]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_store_without_a_run_or_a_plan_is_an_error(tmp_path, capsys):
    (tmp_path / "s" / "parts").mkdir(parents=True)
    assert main([str(tmp_path / "s"), "-o", str(tmp_path / "report.html")]) == 2
    assert "holds neither a run nor a plan of one" in capsys.readouterr().err


def test_the_command_prints_the_path_and_loads_no_torch(several, tmp_path):
    code = (
        "import sys; from analysis.report.__main__ import main; "
        "status = main(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else status)"
    )
    output = tmp_path / "report.html"
    command = [sys.executable, "-c", code, several, "-o", output]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert "python -m analysis.report outputs/dln/gph_demo -o report.html" in out
