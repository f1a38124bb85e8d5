"""Jobs of plans where SLURM gives no answer; the others are tested on a cluster."""

import os
import time

import pytest
from hydra import compose, initialize_config_dir

from plugins import api, slurm
from plugins.driver import Request, plan_sweep
from plugins.experiment import CONF
from plugins.jobs import JobWatch, PlanJobs, active_units, read_jobs, write_jobs
from plugins.reports import reporting
from plugins.status import store_status


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """A store whose only plan, of six runs in one unit, was given to a SLURM job that nobody here
    can ask for; no row is there. Gives a function of the seconds since."""
    monkeypatch.setenv("PATH", "")
    slurm.settings.cache_clear()  # a test on a cluster may have asked in this process
    api.sweep("toy/trivial", ["seed=0..6"], output=tmp_path)
    for room in ("parts", "progress"):
        for entry in (tmp_path / room).iterdir():
            entry.rename(tmp_path / entry.name)
    [plan] = (path.stem for path in tmp_path.glob("plans/*.parquet"))

    def since(seconds):
        jobs = PlanJobs(plan, "far", time.time() - seconds, ("12",))
        write_jobs(tmp_path, jobs)
        assert read_jobs(tmp_path, plan) == jobs
        return jobs

    return since


def test_a_silent_unit_counts_as_active_for_fifteen_minutes(tmp_path, submitted):
    [unit] = submitted(seconds=600).units()
    assert active_units(tmp_path) == [unit]
    [plan] = store_status(tmp_path)
    assert (plan.units[0].state, plan.lost, plan.is_over) == ("unknown", 0, False)
    submitted(seconds=1000)
    assert active_units(tmp_path) == []
    [plan] = store_status(tmp_path)
    assert (plan.units[0].state, plan.lost, plan.is_over) == ("unknown", 6, True)


def test_a_unit_that_reports_is_active_and_one_that_ended_is_not(tmp_path, submitted):
    [unit] = submitted(seconds=1000).units()
    with reporting(tmp_path, unit.plan, 0, 6) as reporter:
        assert active_units(tmp_path) == [unit]
        reporter.report.done = 5  # interrupted: SLURM may start it again
    assert active_units(tmp_path) == [unit]
    with reporting(tmp_path, unit.plan, 0, 6) as reporter:
        reporter.report.done = 6
    assert active_units(tmp_path) == []


def test_nobody_waits_for_ever(tmp_path, submitted, capsys):
    watch = JobWatch(tmp_path, submitted(seconds=1000).units())
    watch.wait(time.monotonic() + 60)
    assert watch.active() == []
    assert "SLURM does not answer" in capsys.readouterr().err
    watch = JobWatch(tmp_path, submitted(seconds=0).units())
    start = time.monotonic()
    watch.wait(start + 2)
    assert len(watch.active()) == 1
    assert 2 <= time.monotonic() - start < 10


def test_runs_of_active_units_are_left_to_them(tmp_path, submitted):
    submitted(seconds=0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweep = plan_sweep(
            Request(["seed=range(4,9)"], tmp_path, ""),
            lambda lines: compose("toy/trivial", lines),
            lambda key: False,
        )
    assert sorted(sweep.plan.frame["seed"]) == [6, 7, 8]
    assert sweep.awaited_runs.height == 2
    assert list(sweep.awaited.values()) == [6]
    lost = sweep.awaited_runs.head(1)
    taken = sweep.take_over(lost)
    assert taken.frame["run_id"].to_list() == lost["run_id"].to_list()


def test_variables_of_an_allocation_are_left_behind(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_NTASKS", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "1")
    slurm.leave_allocation()
    left = {name for name in os.environ if name.startswith(("SLURM", "SBATCH"))}
    assert left == {"SLURM_CONF", "SBATCH_PARTITION"}


def test_a_process_in_somebodys_allocation_is_no_job_of_ours(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm.own_job() is None
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert slurm.own_job() == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "6")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm.own_job() == "6_2"
