"""What `python -m plugins.status` says of plans that ended, run, and died."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import polars as pl

from plugins import api
from plugins.plan_files import read_settings, read_unit, write_plan
from plugins.reports import reporting
from plugins.status import main, store_status
from plugins.winners import stored_runs
from plugins.worker import run_unit


def plan_of(store):
    [path] = (store / "plans").glob("*.parquet")
    return path


def rewritten(store, units, **settings):
    """The store's only plan with its runs in other units and its driver another one."""
    path = plan_of(store)
    frame = read_unit(path, 0).with_columns(unit=pl.col("index") % units).sort("unit", "index")
    plan = api.driver.Plan(frame, {}, len(frame), 0, 0)
    changed = replace(read_settings(path), units=units, **settings)
    return write_plan(store, path.stem, plan, changed)


def test_a_complete_plan_has_nothing_left(tmp_path, capsys):
    api.sweep("toy/trivial", ["seed=0..8", "bad_seeds=[1]"], output=tmp_path)
    [plan] = store_status(tmp_path)
    assert (plan.count("planned"), plan.count("done"), plan.count("failed")) == (8, 7, 1)
    assert (plan.lost, plan.running, plan.is_over) == (0, 0, True)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "planned 8, done 7, failed 1, running 0, waiting 0, lost 0" in out
    assert "to compute these again: plugins.api.sweep('toy/trivial'" in out
    assert "last report" not in out  # no unit to list


def test_runs_of_a_dead_driver_are_lost_and_done_by_whoever_computes_them(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    store = tmp_path / "b"
    api.sweep("toy/trivial", ["seed=0..6"], output=store)
    path = rewritten(store, 3, pid=child.pid)
    for part in (store / "parts").iterdir():
        part.rename(tmp_path / part.name)
    for report in (store / "progress").iterdir():
        report.unlink()
    run_unit(path, 1)
    [plan] = store_status(store)
    assert [(unit.state, unit.left) for unit in plan.units] == [
        ("died", 2),
        ("ended", 0),
        ("died", 2),
    ]
    assert (plan.lost, plan.running, plan.is_over) == (4, 0, True)
    assert api.sweep("toy/trivial", ["seed=0..6"], output=store).ok == 4
    old, new = store_status(store)
    assert (old.lost, new.lost) == (0, 0)


def test_units_that_run_and_units_that_wait_are_no_losses(tmp_path, capsys):
    api.sweep("toy/trivial", ["seed=0..6"], output=tmp_path)
    path = rewritten(tmp_path, 3, pid=os.getpid())
    for part in (tmp_path / "parts").iterdir():
        part.rename(tmp_path / part.name)
    for report in (tmp_path / "progress").iterdir():
        report.unlink()
    with reporting(tmp_path, path.stem, 0, 2) as reporter:
        reporter.report.fraction = 1.0
        reporter.report.started -= 10
        reporter.write(force=True)
        [plan] = store_status(tmp_path)
        assert [unit.state for unit in plan.units] == ["running", "waiting", "waiting"]
        assert (plan.running, plan.lost, plan.is_over) == (2, 0, False)
        assert main([str(tmp_path)]) == 0
        out = capsys.readouterr().out
        # One run in ten seconds and a little; five are left.
        assert re.search(r"running 2, waiting 4, lost 0; 0\.0\d+ runs/s, 5\ds left", out)
        assert "to compute these again" not in out


def test_a_folder_that_is_no_store_is_refused(tmp_path, capsys):
    command = [sys.executable, "-m", "plugins.status", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a store" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_that_the_plan_replaces_is_not_yet_done(tmp_path):
    """--rerun, and failed runs that are tried again: what is stored is of an earlier plan."""
    api.sweep("toy/trivial", ["seed=0..4", "bad_seeds=[3]"], output=tmp_path)
    old = plan_of(tmp_path)
    frame = read_unit(old, 0)
    attempts = stored_runs(tmp_path).select("run_id", replaces="attempt", status="status")
    again = frame.drop("replaces").join(attempts, on="run_id")
    again = again.with_columns(
        replaces=pl.when(pl.col("status") == "ok").then(pl.col("replaces"))
    ).select(frame.columns)
    settings = replace(read_settings(old), pid=os.getpid())
    name = f"9{old.stem}"  # later
    path = write_plan(tmp_path, name, api.driver.Plan(again, {}, 4, 0, 0), settings)
    _, plan = store_status(tmp_path)
    assert (plan.count("done"), plan.count("failed"), plan.count("left")) == (0, 0, 4)
    assert not plan.is_over
    run_unit(path, 0)
    _, plan = store_status(tmp_path)
    assert (plan.count("done"), plan.count("failed"), plan.count("left")) == (3, 1, 0)
