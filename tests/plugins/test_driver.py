"""Sweeps in process: rows, resuming, failures, stacks; the store is real, the family a toy."""

import json
from datetime import UTC, datetime

import polars as pl
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from plugins import api, driver
from plugins.config_files import read_configs
from plugins.experiment import CONF
from plugins.load import load_sweep, load_sweep_config
from plugins.plan_files import read_settings, read_unit
from plugins.provenance import provenance
from plugins.result import RunResult
from plugins.store import SweepWriter
from plugins.worker import run_unit


def counts(report):
    return (report.planned, report.done_before, report.ok, report.diverged, report.failed,
            report.missing)  # fmt: skip


def sweep(store, *overrides, **settings):
    return api.sweep("toy/trivial", overrides, output=store, **settings)


def results(store):
    """Everything that is a result, in run_id order."""
    frame = load_sweep(store, status=("ok", "diverged", "failed"))
    return frame.select("run_id", "status", "seed", "step", "loss", "final_loss").sort("run_id")


def test_the_same_sweep_again_computes_nothing_and_a_larger_one_the_rest(tmp_path):
    assert counts(sweep(tmp_path, "seed=0..20")) == (20, 0, 20, 0, 0, 0)
    before = load_sweep(tmp_path)
    assert counts(sweep(tmp_path, "seed=0..20")) == (20, 20, 0, 0, 0, 0)
    assert load_sweep(tmp_path).equals(before)
    assert counts(sweep(tmp_path, "seed=0..40")) == (40, 20, 20, 0, 0, 0)
    assert load_sweep(tmp_path)["seed"].to_list() == list(range(40))


def test_a_repetition_that_fails_is_counted_as_failed_and_the_old_row_stays(tmp_path, monkeypatch):
    api.sweep("toy/single", ["seed=0..4"], output=tmp_path)
    before = load_sweep(tmp_path)
    monkeypatch.setattr("dynascope_toy.train.run", lambda cfg, workdir: None)
    report = api.sweep("toy/single", ["seed=0..4"], output=tmp_path, rerun=["seed=1,2"])
    assert counts(report) == (4, 2, 0, 0, 2, 0)
    assert "a run returned NoneType" in report.first_error
    assert load_sweep(tmp_path).equals(before)


def test_a_single_run_is_found_in_a_sweep_and_the_other_way_round(tmp_path):
    sweep(tmp_path, "seed=3")
    assert counts(sweep(tmp_path, "seed=0..5")) == (5, 1, 4, 0, 0, 0)
    assert counts(sweep(tmp_path, "seed=2")) == (1, 1, 0, 0, 0, 0)


def test_rerun_replaces_rows_and_keeps_one_per_run(tmp_path):
    sweep(tmp_path, "seed=0..10")
    first = load_sweep(tmp_path)
    assert counts(sweep(tmp_path, "seed=0..10", rerun=["seed=3..5"])) == (10, 8, 2, 0, 0, 0)
    second = load_sweep(tmp_path)
    assert len(second) == 10
    again = first.join(second, on="run_id").filter(pl.col("attempt") != pl.col("attempt_right"))
    assert sorted(again["seed"]) == [3, 4]


def test_a_failing_run_is_a_row_and_the_others_go_on(tmp_path):
    report = sweep(tmp_path, "seed=0..10", "bad_seeds=[4]", "diverging_seeds=[5]")
    assert counts(report) == (10, 0, 8, 1, 1, 0)
    assert "RuntimeError: seed 4 is bad" in report.first_error
    [row] = load_sweep(tmp_path, status=("failed",)).rows(named=True)
    assert row["seed"] == 4
    assert "Traceback" in row["error"]
    assert "seed 4 is bad" in row["error"]
    frame = load_sweep(tmp_path)
    assert frame.filter(pl.col("status") == "diverged")["seed"].to_list() == [5]


def test_failed_runs_are_computed_again_by_the_same_command(tmp_path):
    for _ in range(2):
        report = sweep(tmp_path, "seed=0..6", "bad_seeds=[1,2]")
        assert (report.failed, report.missing) == (2, 0)
    assert len(load_sweep(tmp_path, status=("ok", "failed"))) == 6


def test_fail_fast_starts_no_stack_after_a_failure(tmp_path):
    report = sweep(tmp_path, "seed=0..9", "bad_seeds=[4]", max_stack=3, fail_fast=True)
    assert counts(report) == (9, 0, 5, 0, 1, 3)
    assert counts(sweep(tmp_path, "seed=0..9", "bad_seeds=[4]", max_stack=3))[1:] == (5, 3, 0, 1, 0)


def test_rows_do_not_depend_on_the_stack(tmp_path):
    sweep(tmp_path / "alone", "seed=0..7", "model.scale=1,2", max_stack=1)
    sweep(tmp_path / "stacked", "seed=0..7", "model.scale=1,2", max_stack=7)
    assert results(tmp_path / "alone").equals(results(tmp_path / "stacked"))


def test_an_experiment_without_stacks_runs_one_by_one(tmp_path):
    report = api.sweep("toy/single", ["seed=0..5", "bad_seeds=[2]"], output=tmp_path)
    assert counts(report) == (5, 0, 4, 0, 1, 0)


def test_axes_of_the_file_are_replaced_by_the_command_line(tmp_path):
    assert api.sweep("toy/grid", output=tmp_path / "a").planned == 12
    assert api.sweep("toy/grid", ["seed=9"], output=tmp_path / "b").planned == 3
    frame = load_sweep(tmp_path / "b")
    assert frame["model.width"].to_list() == [1, 2, 3]
    assert frame["model.scale"].to_list() == [0.5, 1.0, 2.0]


def test_a_swept_config_group_is_composed_by_hydra_and_explicit_keys_win(tmp_path):
    overrides = ["toy/size=small,large", "seed=0..3", "steps=7"]
    assert counts(api.sweep("toy/grouped", overrides, output=tmp_path)) == (6, 0, 6, 0, 0, 0)
    frame = load_sweep(tmp_path)
    assert frame["model.width"].to_list() == [2] * 3 + [20] * 3
    assert frame["step"].list.len().to_list() == [7] * 6
    assert counts(sweep(tmp_path, "model.width=2", "seed=0..3", "steps=7")) == (3, 3, 0, 0, 0, 0)


def test_added_and_deleted_keys_are_composed_by_hydra(tmp_path):
    report = sweep(tmp_path, "+params.x=1,2", "+params.y=3", "seed=0..2")
    assert counts(report) == (4, 0, 4, 0, 0, 0)
    frame = load_sweep(tmp_path)
    assert sorted(frame["params.x"]) == [1, 1, 2, 2]
    identity = ["data.params.matrix=identity", "~data.params.scale", "model.model_seed=0..2"]
    report = api.sweep("dln/smoke", identity, output=tmp_path / "dln")
    assert counts(report) == (2, 0, 2, 0, 0, 0)
    assert load_sweep_config(tmp_path / "dln")["data"]["params"] == {"matrix": "identity"}


def test_the_config_of_a_row_is_its_file_and_its_columns(tmp_path):
    sweep(tmp_path, "seed=0..2", "model.width=4,5", "bad_seeds=[7],[8]", "steps=9")
    frame = load_sweep(tmp_path)
    for row in frame.rows(named=True):
        config = load_sweep_config(tmp_path, row["run_id"])
        assert config["steps"] == 9
        assert config["model"] == {"width": row["model.width"], "scale": 1.0}
        assert config["seed"] == row["seed"]
        assert config["bad_seeds"] == json.loads(row["bad_seeds"])
        assert config["label"] == str(row["model.width"])


def test_a_unit_that_starts_again_skips_what_is_stored(tmp_path):
    sweep(tmp_path, "seed=0..6", "bad_seeds=[2]")
    [plan] = (tmp_path / "plans").glob("*.parquet")
    before = load_sweep(tmp_path)
    run_unit(plan, 0)
    assert load_sweep(tmp_path).equals(before)
    failed = load_sweep(tmp_path, status=("failed",))
    assert len(failed) == 1  # tried again, still one row


def test_the_plan_file_is_what_a_job_reads(tmp_path):
    sweep(tmp_path, "seed=0..6", "model.scale=1,2")
    [plan] = (tmp_path / "plans").glob("*.parquet")
    rows = read_unit(plan, 0)
    assert rows["index"].to_list() == list(range(12))
    settings = read_settings(plan)
    assert (settings.experiment, settings.units, settings.local) == ("toy/trivial", 1, True)


def test_a_single_run_is_computed_again(tmp_path):
    sweep(tmp_path, "seed=3")
    assert counts(sweep(tmp_path, "seed=3", rerun=["seed=3"])) == (1, 0, 1, 0, 0, 0)
    assert len(load_sweep(tmp_path)) == 1


def test_a_key_of_text_here_and_numbers_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'params\.a' holds .*text"):
        sweep(tmp_path, "+params.a=1,x")
    sweep(tmp_path, "+params.a=1")
    with pytest.raises(ValueError, match=r"'params\.a' holds .*another --output"):
        sweep(tmp_path, "+params.a=x")
    assert len(load_sweep(tmp_path)) == 1


def test_a_damaged_curve_is_reported_after_the_runs(tmp_path, capsys):
    """Planning reads keys only; compaction finds the damage."""
    sweep(tmp_path, "seed=0..50")
    [file] = tmp_path.glob("parts/0*/results.parquet")
    data = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0)
    for i in range(column.num_columns):
        chunk = column.column(i)
        if chunk.path_in_schema.startswith("loss"):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(data)
    assert counts(sweep(tmp_path, "seed=0..60")) == (60, 50, 10, 0, 0, 0)
    assert str(file) in capsys.readouterr().err


def test_a_run_without_a_result_is_a_failed_row(tmp_path, monkeypatch):
    monkeypatch.setattr("dynascope_toy.train.run", lambda cfg, workdir: None)
    report = api.sweep("toy/single", ["seed=0..2"], output=tmp_path)
    assert counts(report) == (2, 0, 0, 0, 2, 0)
    assert "a run returned NoneType, not RunResult" in report.first_error


def test_rows_of_other_code_are_named(tmp_path, capsys):
    sweep(tmp_path, "seed=0..2")
    assert "other code" not in capsys.readouterr().err
    code = {"experiment": "toy/trivial", "code": "0123456789abcdef"}
    [config] = read_configs(tmp_path)
    with SweepWriter(tmp_path, "p", {**provenance("toy/trivial"), **code}) as writer:
        now = datetime.now(UTC)
        writer.append(0, "0" * 16, config, {"seed": 9}, RunResult({"final_loss": 1.0}), now, now, 1)
    sweep(tmp_path, "seed=0..3")
    assert "stored runs come from other code (0123456;" in capsys.readouterr().err


def test_a_sweep_names_no_difference_to_itself(tmp_path, capsys):
    for _ in range(2):
        sweep(tmp_path, "+params.x=1,2", "seed=0..2")
    assert "also holds" not in capsys.readouterr().err


def test_a_file_axis_replaced_by_one_value_leaves_its_zip_group(tmp_path):
    assert api.sweep("toy/grid", ["model.scale=1"], output=tmp_path).planned == 12


def test_sweeps_start_inside_a_running_hydra_application(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert sweep(tmp_path, "seed=0..2").ok == 2
        assert compose("toy/trivial").steps == 3  # the application's Hydra is still there


@pytest.mark.parametrize("name", ["units", "max_stack"])
def test_counts_below_one_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"hydra\.sweeper\.{name} must be >= 1"):
        driver.plan_sweep(driver.Request([], tmp_path, "", **{name: 0}), None, None)


@pytest.mark.parametrize(
    ("experiment", "overrides", "text"),
    [
        ("toy/trivial", ["seed=5..5"], "empty"),
        ("toy/trivial", ["sed=5"], "did you mean 'seed'"),
        ("toy/trivial", ["steps=200", "model.width=9,11"], r"needs model\.width <= 10"),
        ("trivia", [], "did you mean 'trivial'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, experiment, overrides, text):
    with pytest.raises(ValueError, match=text):
        api.sweep(experiment, overrides, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_gives_a_result_and_raises_what_the_run_raises():
    result = api.run("trivial", ["seed=3", "model.scale=2"])
    assert isinstance(result, RunResult)
    assert result.scalars == {"final_loss": 1.0}
    with pytest.raises(RuntimeError, match="seed 3 is bad"):
        api.run("trivial", ["seed=3", "bad_seeds=[3]"])
