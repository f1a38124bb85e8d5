"""Jobs cancelled, requeued, killed and pre-empted, nodes and drivers lost: the same command again
completes the sweep, and each run counts once."""

import os
import signal

import polars as pl
import pytest
from sweeps import (
    SLURM,
    finish,
    finish_with_requeues,
    jobs,
    reports,
    results,
    slurm,
    start,
    start_requeued_soon,
    sweep,
    toy,
    wait_until,
)

from plugins.load import load_sweep, scan_sweep

pytestmark = pytest.mark.usefixtures("cluster")


def test_2000_runs_survive_a_lost_node_a_cancelled_and_a_requeued_job_and_their_driver(
    cluster, tmp_path
):
    """Eight jobs, everything at once; the same command then ends with 2,000 ok rows, equal to
    those of a sweep that nobody disturbed."""
    sweep_args = [
        *("-cn=gph", "model.gamma=0.75,1", "training.batch_seed=0..1000"),
        *("training.batch_size=5", "model.hidden_dim=20", "max_steps=4000", "num_evaluations=20"),
        "hydra.sweeper.max_stack=25",
    ]
    store = tmp_path / "disturbed"
    args = [*sweep_args, SLURM, "--jobs=8"]
    driver = start(store, *args)
    wait_until(lambda: len(reports(store)) == 4 and any(store.glob("parts/0*")))
    started = [report["job"] for report in reports(store)]
    nodes = {job: slurm("squeue", "-h", "-o", "%N", "-j", job).strip() for job in started}
    cancelled, requeued = [job for job in started if nodes[job] == "n1"]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    slurm("scancel", cancelled)
    slurm("scontrol", "requeue", requeued)
    cluster.kill("n2")
    stored = scan_sweep(store).select(pl.len()).collect().item()
    assert 0 < stored < 2000

    driver = start(store, *args)
    # SLURM needs half a minute to see that the node is gone.
    wait_until(lambda: cluster.node_states()["n2"].startswith("down"), start_requeued_soon)
    cluster.start("n2")
    code, out = finish_with_requeues(driver)
    assert (code, "failed 0, missing 0" in out) == (0, True), out
    assert "SLURM jobs of an earlier command have" in out
    frame = load_sweep(store)
    assert frame["status"].to_list() == ["ok"] * 2000
    assert frame["run_id"].n_unique() == 2000
    assert frame["job"].str.contains("SLURM_RESTART_COUNT").any()

    code, out = sweep(tmp_path / "undisturbed", *sweep_args, "--workers=2")
    assert code == 0, out
    columns = ["run_id", "model.gamma", "training.batch_seed", "step", "test_loss"]
    got, expected = (load.select(columns).sort("run_id") for load in (
        frame, load_sweep(tmp_path / "undisturbed")
    ))  # fmt: skip
    assert got.drop("test_loss").equals(expected.drop("test_loss"))
    # Other stacks give other roundings of float32.
    loss, reference = (f["test_loss"].explode().to_numpy() for f in (got, expected))
    assert abs(loss / reference - 1).max() < 1e-3


def test_a_cancelled_job_is_named_and_its_runs_are_computed_again(tmp_path):
    args = toy("--jobs=2", "seed=0..40", "sleep=0.4")
    driver = start(tmp_path, *args)
    wait_until(lambda: any(report["done"] > 2 for report in reports(tmp_path)))
    slurm("scancel", jobs(tmp_path)[1])
    code, out = finish(driver)
    assert code == 1, out
    assert f"job {jobs(tmp_path)[1]} (unit 1) ended as CANCELLED without" in out
    stored = len(load_sweep(tmp_path))
    assert 20 <= stored < 40
    assert f"ok {stored}, diverged 0, failed 0, missing {40 - stored}" in out
    code, out = sweep(tmp_path, *args)
    assert (code, f"done before {stored}, ok {40 - stored}" in out) == (0, True), out


def test_a_job_killed_by_the_system_is_named(tmp_path):
    """As for its memory: SIGKILL, no signal before."""
    args = toy("--jobs=2", "seed=0..40", "sleep=0.4")
    driver = start(tmp_path, *args)
    wait_until(lambda: sum(report["done"] > 2 for report in reports(tmp_path)) == 2)
    [report] = [r for r in reports(tmp_path) if r["job"] == jobs(tmp_path)[0]]
    os.kill(report["pid"], signal.SIGKILL)
    code, out = finish(driver)
    assert code == 1, out
    assert f"job {jobs(tmp_path)[0]} (unit 0) ended as FAILED without" in out
    assert sweep(tmp_path, *args)[0] == 0
    assert len(load_sweep(tmp_path)) == 40


def test_a_preempted_job_publishes_what_it_has_and_goes_on_later(tmp_path):
    """Three seconds of work are not yet due to be published; SIGTERM makes them."""
    driver = start(tmp_path, *toy("--jobs=4", "seed=0..80", "sleep=0.4"))
    wait_until(
        lambda: all(r["done"] >= 2 for r in reports(tmp_path)) and len(reports(tmp_path)) == 4
    )
    done = sum(report["done"] for report in reports(tmp_path))
    slurm("sbatch", "-p", "urgent", "-n4", "-o", "/dev/null", "--wrap", "sleep 5")
    wait_until(lambda: "BeginTime" in slurm("squeue", "-h", "-o", "%r"))
    stored = len(load_sweep(tmp_path))
    assert done - 4 <= stored < 80
    code, out = finish_with_requeues(driver)
    assert (code, "ok 80" in out) == (0, True), out
    assert len(load_sweep(tmp_path)) == 80
    frame = load_sweep(tmp_path)
    assert frame["job"].str.contains("SLURM_RESTART_COUNT").sum() == 80 - stored


def test_rows_of_a_disturbed_toy_sweep_equal_those_of_a_local_one(tmp_path):
    args = toy("--jobs=3", "seed=0..60", "sleep=0.2")
    driver = start(tmp_path / "slurm", *args)
    wait_until(lambda: any(report["done"] for report in reports(tmp_path / "slurm")))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    slurm("scancel", "--signal=KILL", jobs(tmp_path / "slurm")[0])
    wait_until(lambda: jobs(tmp_path / "slurm")[0] not in slurm("squeue", "-h", "-r", "-o", "%i"))
    code, out = sweep(tmp_path / "slurm", *args)
    assert code == 0, out
    assert sweep(tmp_path / "local", "-cn=toy/trivial", "seed=0..60", "sleep=0.2")[0] == 0
    assert results(tmp_path / "slurm").equals(results(tmp_path / "local"))


def test_what_an_earlier_commands_job_loses_is_computed_by_the_one_that_waits(tmp_path):
    args = toy("--jobs=2", "seed=0..40", "sleep=0.4")
    assert sweep(tmp_path, *args, "--detach")[0] == 0
    driver = start(tmp_path, *args)
    wait_until(lambda: sum(report["done"] > 2 for report in reports(tmp_path)) == 2)
    slurm("scancel", jobs(tmp_path)[1])
    code, out = finish(driver)
    assert (code, "failed 0, missing 0" in out) == (0, True), out
    assert "jobs of an earlier command ended without" in out
    assert len(load_sweep(tmp_path)) == 40
