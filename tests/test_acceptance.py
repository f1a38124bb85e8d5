"""What the project promises first: deep linear networks from the command line to a figure."""

import subprocess
import sys

import polars as pl
import pytest
from test_cli import summary

from analysis import load_sweep

pytestmark = pytest.mark.slow

ZIPPED = [
    "-cn=gph",
    "model.gamma=0.75,1.0,1.5",
    "max_steps=50,100,270",
    "--zip=model.gamma,max_steps",
    "training.batch_size=5",
]


def results(store, *keys):
    frame = load_sweep(store)
    return frame.select("run_id", *keys, "step", "test_loss", "final_test_loss").sort("run_id")


def test_a_zipped_sweep_grows_resumes_and_repeats(sweep_cli, tmp_path):
    store = "--output=out/a"
    assert summary(sweep_cli(*ZIPPED, "training.batch_seed=0..20", "--workers=2", store)) == (
        60, 0, 60, 0, 0, 0)  # fmt: skip
    frame = load_sweep(tmp_path / "out/a")
    assert frame.columns[:5] == [
        "model.gamma", "max_steps", "training.batch_seed", "step", "test_loss"]  # fmt: skip
    assert frame["training.batch_seed"].to_list() == [*range(20)] * 3
    assert [row[-1] for row in frame["test_loss"].to_list()] == frame["final_test_loss"].to_list()
    again = sweep_cli(*ZIPPED, "training.batch_seed=0..20", store)
    assert summary(again) == (60, 60, 0, 0, 0, 0)
    more = sweep_cli(*ZIPPED, "training.batch_seed=0..40", store)
    assert summary(more) == (120, 60, 60, 0, 0, 0)
    rerun = sweep_cli(
        *ZIPPED, "training.batch_seed=0..40", store, "--rerun=training.batch_seed=3..5"
    )
    assert summary(rerun) == (120, 114, 6, 0, 0, 0)
    assert len(load_sweep(tmp_path / "out/a")) == 120


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-cn=gph", "training.lrr=1", "training.batch_seed=0..3"], "did you mean 'training.lr'"),
        (["-cn=gph", "metrics=[weight_nrom]"], "did you mean 'weight_norm'"),
        (["-cn=gph", "data.online=true"], "training.batch_size=null needs data.online=false"),
        (["-cn=gph", "model.gamma=1,-1"], "model.gamma must be finite and > 0, got -1.0"),
        (["-cn=gph", "training.optimizer=SDG"], "SGD"),
        (["-cn=gph", "data.params.matrix=powerlaw"], "power_law"),
    ],
)
def test_bad_input_is_named_and_writes_nothing(sweep_cli, tmp_path, args, text):
    done = sweep_cli(*args)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["lr=0.1"], "did you mean 'training.lr'"),
        (["metrics=weight_norm"], "metrics is a list: metrics=[weight_norm]"),
        (["data.params.matrix=identity", "~data.params.alpha"], "~data.params.scale removes it"),
        (["--dryrun"], "did you mean '--dry-run'"),
    ],
)
def test_common_slips_are_told_the_way_out(sweep_cli, args, text):
    done = sweep_cli("-cn=gph", *args)
    assert done.returncode == 2
    assert text in done.stderr


def test_equal_runs_are_warned_of(sweep_cli):
    done = sweep_cli("-cn=smoke", "training.batch_seed=0..3", "--dry-run")
    assert "warning: training.batch_seed has no effect with training.batch_size=null" in done.stdout
    done = sweep_cli("-cn=smoke", "training.batch_seed=0..3", "training.batch_size=5", "--dry-run")
    assert "warning" not in done.stdout


def test_a_diverging_run_keeps_its_curve_and_counts_as_done(sweep_cli, tmp_path):
    done = sweep_cli(
        "-cn=diagonal_teacher", "training.lr=1e-4,10", "max_steps=100", "num_evaluations=100"
    )
    assert (done.returncode, summary(done)) == (0, (2, 0, 1, 1, 0, 0))
    frame = load_sweep(tmp_path / "outputs/dln/diagonal_teacher")
    good, bad = frame.rows(named=True)
    assert (good["status"], bad["status"]) == ("ok", "diverged")
    assert len(good["step"]) == 101
    assert 1 <= len(bad["step"]) < 101
    assert bad["diverged_step"] >= bad["step"][-1]
    assert all(loss < float("inf") for loss in bad["test_loss"])


@pytest.mark.parametrize("how", [["--workers=2"], ["hydra.sweeper.max_stack=1"],
                                 ["hydra.sweeper.max_stack=7"]])  # fmt: skip
def test_rows_do_not_depend_on_stack_or_workers(sweep_cli, tmp_path, how):
    """To the stated tolerance of float32 stacks, 1e-5 relative; run ids are equal."""
    sweep = ["-cn=gph", "model.gamma=0.75,1.5", "training.batch_seed=0..7",
             "training.batch_size=5", "max_steps=200"]  # fmt: skip
    sweep_cli(*sweep, "--output=one")
    sweep_cli(*sweep, "--output=other", *how)
    one, other = results(tmp_path / "one"), results(tmp_path / "other")
    assert one["run_id"].to_list() == other["run_id"].to_list()
    a, b = one["test_loss"].explode(), other["test_loss"].explode()
    assert ((a - b).abs() <= 1e-5 * a.abs()).all()


def test_one_failing_metric_of_fifty_runs_is_one_failed_row(sweep_cli, tmp_path):
    """The metric comes from a package that is installed by entry point."""
    sweep = ["-cn=smoke", "metrics=[fragile_norm]", "model.model_seed=0..50"]
    sweep_cli(*sweep, "--output=good")
    norms = load_sweep(tmp_path / "good")["fragile_norm"].list.first()
    flag = tmp_path / "bad_norm"
    flag.write_text(str(norms[17]))
    env = {"DYNASCOPE_TOY_BAD": str(flag)}
    done = sweep_cli(*sweep, "--output=out", env=env)
    assert (done.returncode, summary(done)) == (1, (50, 0, 49, 0, 1, 0))
    [row] = load_sweep(tmp_path / "out", status=("failed",)).rows(named=True)
    assert row["model.model_seed"] == 17
    assert "RuntimeError: a network has norm" in row["error"]
    assert 'dynascope_toy/dln_metrics.py", line' in row["error"]
    flag.unlink()
    assert summary(sweep_cli(*sweep, "--output=out", env=env)) == (50, 49, 1, 0, 0, 0)


def test_the_stock_sweeper_and_submitit_give_the_same_store(sweep_cli, tmp_path):
    args = ["-cn=gph", "model.gamma=0.75,1", "max_steps=20"]
    assert sweep_cli("--multirun", *args, "hydra/sweeper=basic").returncode == 0
    done = sweep_cli(*args, "hydra/launcher=submitit_local")
    assert summary(done) == (2, 2, 0, 0, 0, 0)
    local = sweep_cli(*args, "hydra/launcher=submitit_local", "--output=local")
    assert summary(local) == (2, 0, 2, 0, 0, 0)
    stock = results(tmp_path / "outputs/dln/gph", "model.gamma")
    ours = results(tmp_path / "local", "model.gamma")
    assert stock["run_id"].to_list() == ours["run_id"].to_list()
    assert (stock["final_test_loss"] / ours["final_test_loss"] - 1).abs().max() < 1e-5


def test_merging_overlapping_stores_makes_a_differing_key_a_column(sweep_cli, tmp_path):
    for gamma, seeds, store in (("1", "0..4", "a1"), ("1", "2..6", "a2"), ("1.5", "0..2", "a3")):
        sweep_cli("-cn=smoke", f"model.gamma={gamma}", f"training.batch_seed={seeds}",
                  "training.batch_size=3", f"--output=out/{store}")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "plugins.merge", *(f"out/a{i}" for i in (1, 2, 3)), "-o", "out/c"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "2" in done.stdout
    frame = load_sweep(tmp_path / "out/c")
    assert frame["run_id"].n_unique() == len(frame) == 8
    counts = frame.group_by("model.gamma").len().sort("model.gamma")
    assert counts.rows() == [(1.0, 6), (1.5, 2)]


def test_a_corrupt_part_is_named_and_its_runs_are_computed_again(sweep_cli, tmp_path):
    sweep_cli("-cn=smoke", "model.model_seed=0..4")
    store = tmp_path / "outputs/dln/smoke"
    [part] = store.glob("parts/0*")
    file = part / "results.parquet"
    file.write_bytes(file.read_bytes()[:200])
    done = sweep_cli("-cn=smoke", "model.model_seed=0..4")
    assert done.returncode == 2
    assert str(part) in done.stderr
    assert "Delete the folder" in done.stderr
    for path in part.iterdir():
        path.unlink()
    part.rmdir()
    assert summary(sweep_cli("-cn=smoke", "model.model_seed=0..4")) == (4, 0, 4, 0, 0, 0)


def test_a_figure_of_the_sweep(sweep_cli, tmp_path):
    done = sweep_cli("-cn=gph", "model.gamma=0.75,1.5", "model.model_seed=0..3", "max_steps=50")
    command = done.stdout.partition("next: python ")[2].split()
    drawn = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    figure = tmp_path / drawn.stdout.splitlines()[0]
    assert figure.stat().st_size > 10_000
    assert "(3 of 3 runs)" in drawn.stdout
    frame = load_sweep(tmp_path / "outputs/dln/gph")
    assert frame.filter(pl.col("status") != "ok").is_empty()
