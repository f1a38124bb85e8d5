"""Sweeps on SLURM that nothing disturbs, and drivers that come and go."""

import json
import signal

import pytest
from sweeps import (
    SLURM,
    finish,
    jobs,
    reports,
    results,
    slurm,
    start,
    sweep,
    toy,
    wait_until,
)

from plugins.load import load_sweep
from plugins.status import main as status
from plugins.status import store_status

pytestmark = pytest.mark.usefixtures("cluster")


def test_a_sweep_gives_the_rows_of_a_local_one(tmp_path):
    args = ["seed=0..30", "model.width=1,2"]
    code, out = sweep(tmp_path / "slurm", *toy("--jobs=4", *args))
    assert (code, "ok 60, diverged 0, failed 0, missing 0" in out) == (0, True), out
    assert sweep(tmp_path / "local", "-cn=toy/trivial", *args)[0] == 0
    assert results(tmp_path / "slurm").equals(results(tmp_path / "local"))
    where = [json.loads(job) for job in load_sweep(tmp_path / "slurm")["job"].unique()]
    ids = {f"{job['SLURM_ARRAY_JOB_ID']}_{job['SLURM_ARRAY_TASK_ID']}" for job in where}
    assert ids == set(jobs(tmp_path / "slurm"))
    assert len(ids) == 4
    assert "sacct" not in out  # there is none, and no need for it
    [plan] = store_status(tmp_path / "slurm")
    assert (plan.count("done"), plan.is_over) == (60, True)
    code, out = sweep(tmp_path / "slurm", *toy("--jobs=4", *args))
    assert (code, "done before 60" in out) == (0, True), out
    assert len(jobs(tmp_path / "slurm")) == 4


def test_a_run_that_raises_is_a_row_and_a_status(tmp_path):
    code, out = sweep(tmp_path, *toy("--jobs=1", "seed=0..6", "bad_seeds=[4]"))
    assert code == 1
    assert "ok 5, diverged 0, failed 1, missing 0" in out
    assert "seed 4 is bad" in out


def test_detached_jobs_are_waited_for_by_the_same_command(tmp_path, capsys):
    args = toy("--jobs=6", "seed=0..60", "sleep=0.3")
    code, out = sweep(tmp_path, *args, "--detach")
    assert (code, "with SLURM 60" in out) == (0, True), out
    array = jobs(tmp_path)[0].partition("_")[0]
    assert f"scancel {array}" in out
    assert f"python -m plugins.status {tmp_path}" in out
    [plan] = store_status(tmp_path)
    assert not plan.is_over
    assert plan.lost == 0
    assert [unit.job for unit in plan.units] == jobs(tmp_path)
    assert status([str(tmp_path)]) == 0
    assert f"{array}_5" in capsys.readouterr().out

    code, out = sweep(tmp_path, *args, "model.scale=1,2")
    assert code == 0, out
    assert "SLURM jobs of an earlier command have 60 of these runs" in out
    assert "planned 120, done before 0, ok 120" in out
    assert len(load_sweep(tmp_path)) == 120
    assert [plan.count("planned") for plan in store_status(tmp_path)] == [60, 60]


@pytest.mark.parametrize("way", ["ctrl-c", "timeout"])
def test_a_driver_that_stops_waiting_leaves_the_jobs_alone(tmp_path, way):
    args = toy("--jobs=2", "seed=0..16", "sleep=0.5")
    if way == "ctrl-c":
        driver = start(tmp_path, *args)
        wait_until(lambda: reports(tmp_path))
        driver.send_signal(signal.SIGINT)
        code, out = finish(driver)
        assert code == 130
    else:
        code, out = sweep(tmp_path, *args, "hydra.sweeper.wait_timeout_min=0.05")
        assert code == 4
    assert "2 jobs go on" in out
    assert f"scancel {jobs(tmp_path)[0].partition('_')[0]}" in out
    assert "Traceback" not in out
    wait_until(lambda: store_status(tmp_path)[0].count("done") == 16)


def test_a_driver_inside_an_allocation_hands_nothing_of_it_on(tmp_path):
    """sbatch would ask for the memory and the tasks of the job that it is called in."""
    inside = {"SLURM_JOB_ID": "99", "SLURM_NTASKS": "64", "SLURM_MEM_PER_NODE": "999999"}
    code, out = sweep(tmp_path, *toy("--jobs=2", "seed=0..4"), **inside)
    assert code == 0, out
    assert '"99"' not in "".join(load_sweep(tmp_path)["job"])


def test_without_jobs_units_are_sized_by_stored_runs(tmp_path):
    """First a unit per stack; then units of two minutes, a third of the limit."""
    code, out = sweep(tmp_path, *toy("seed=0..8", "sleep=1"))
    assert (code, "4 units" in out) == (0, True), out
    more = toy("seed=0..108", "sleep=1", "hydra.launcher.timeout_min=6", "--dry-run")
    code, out = sweep(tmp_path, *more)
    assert (code, "100 runs in 50 stacks, 1 unit" in out) == (0, True), out
    code, out = sweep(tmp_path, *more, "model.width=1,2,3")
    assert "316 runs in 158 stacks, 3 units" in out


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--jobs=1001"], 2, "--jobs=1001: SLURM takes at most 1000 jobs"),
        (["--jobs=2", "hydra.launcher.partiton=x"], 2, "partiton"),
        (["--jobs=2", "hydra.launcher.nodes=2"], 2, "each task would compute the whole unit"),
        (["--jobs=2", "hydra.launcher.partition=gpu"], 3, "Invalid partition name"),
        (["--jobs=2", "hydra.launcher.gres='gpu:8'"], 3, "generic resource"),
    ],
)
def test_what_cannot_be_submitted_is_refused(tmp_path, args, code, text):
    got, out = sweep(tmp_path / "store", *toy("seed=0..4", *args))
    assert (got, text in out, "Traceback" in out) == (code, True, False), out
    assert not list(tmp_path.glob("store/plans/*"))


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--detach"], "--detach needs a launcher that submits to SLURM"),
        (["--jobs=8"], "--jobs=8 needs a launcher that submits to a cluster"),
        (["hydra.sweeper.wait_timeout_min=1"], "wait_timeout_min needs a launcher"),
    ],
)
def test_what_only_a_cluster_can_do_is_refused_here(tmp_path, args, text):
    code, out = sweep(tmp_path / "store", "-cn=toy/trivial", *args)
    assert (code, text in out) == (2, True), out
    assert not (tmp_path / "store").exists()


def test_a_controller_that_is_away_loses_nothing(tmp_path, cluster):
    """The waiting driver asks on; submitting fails; status tells what the store knows."""
    driver = start(tmp_path / "waiting", *toy("--jobs=2", "seed=0..12", "sleep=1"))
    wait_until(lambda: len(reports(tmp_path / "waiting")) == 2)
    cluster.stop_controller()
    try:
        code, out = sweep(tmp_path / "new", *toy("--jobs=2", "seed=0..4"))
        assert (code, "Unable to contact slurm controller" in out) == (3, True), out
        assert not list(tmp_path.glob("new/plans/*"))
        [plan] = store_status(tmp_path / "waiting")
        assert plan.lost == 0
    finally:
        cluster.start_controller()
    code, out = finish(driver)
    assert (code, "ok 12" in out) == (0, True), out
    wait_until(lambda: not slurm("squeue", "-h"))


def test_jobs_run_from_the_plan_whatever_becomes_of_the_config_file(tmp_path):
    folder = tmp_path / "conf" / "toy"
    folder.mkdir(parents=True)
    config = "# @package _global_\ndefaults: [/toy/schema/trivial, /base, _self_]\nsteps: {}\n"
    (folder / "mine.yaml").write_text(config.format(3))
    args = [f"--config-dir={tmp_path / 'conf'}", "-cn=toy/mine", SLURM, "--jobs=2", "seed=0..4"]
    hold = "+hydra.launcher.additional_parameters.hold=true"
    code, out = sweep(tmp_path / "store", *args, hold, "--detach")
    assert code == 0, out
    (folder / "mine.yaml").write_text(config.format(7))
    slurm("scontrol", "release", jobs(tmp_path / "store")[0].partition("_")[0])
    wait_until(lambda: store_status(tmp_path / "store")[0].count("done") == 4)
    assert load_sweep(tmp_path / "store", params=["steps"])["steps"].to_list() == [3] * 4
    assert load_sweep(tmp_path / "store")["step"].list.len().to_list() == [3] * 4
