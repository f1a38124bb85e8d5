"""Carrying out a planned sweep: launch its units, wait, count what the store then holds."""

import math
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from plugins.config_files import write_config
from plugins.driver import Sweep
from plugins.fold import compact
from plugins.jobs import JobUnit, JobWatch, reports_of
from plugins.outcome import SweepReport, fresh_runs, report, without_row
from plugins.overrides import quoted
from plugins.parts import CannotPublish
from plugins.plan import Plan
from plugins.plan_files import PlanSettings, write_plan
from plugins.processes import run_units
from plugins.progress import showing
from plugins.reports import Progress, UnitReport, unit_reports
from plugins.submission import NothingSubmitted, in_background, submit
from plugins.worker import run_unit

_RETURN = 0.3  # seconds that a launcher gets to return after its units have ended
_STOP = 10.0  # seconds that units get to stop after Ctrl-C


def execute(
    sweep: Sweep, launch: Callable[[list[list[str]]], Any], *, local: bool, in_process: bool
) -> SweepReport:
    """Launch what is to compute, wait, compact, and count what the store then holds.

    `launch` gets the overrides of each unit. In another process than ours it may wait for ever
    (a killed job of submitit) or return early, so there the units' own reports decide.
    """

    def work(path: Path, plan: Plan) -> None:
        jobs = _overrides(sweep, path, plan)
        if in_process:
            launch(jobs)
        else:
            _watch(launch, jobs, sweep.request.store, path.stem)

    return _execute(sweep, work, local)


def execute_in_processes(sweep: Sweep) -> SweepReport:
    """`execute` without Hydra's launchers: a process per unit on this machine."""
    return _execute(sweep, lambda path, plan: run_units(path, plan.n_units), local=True)


def execute_here(sweep: Sweep) -> SweepReport:
    """`execute` without Hydra's launchers: the units one after the other in this process."""

    def work(path: Path, plan: Plan) -> None:
        for unit in range(plan.n_units):
            run_unit(path, unit)

    return _execute(sweep, work, local=True)


def execute_with_slurm(
    sweep: Sweep,
    launch: Callable[[list[list[str]], Path], Any],
    folder: Path,
    *,
    detach: bool,
    wait_seconds: float | None,
) -> SweepReport:
    """`execute` with a SLURM job per unit; `folder` is submitit's, `launch` gets the plan's in it.

    Waits for the jobs, at most `wait_seconds`, or not at all; they go on in any case.
    """

    def work(path: Path, plan: Plan) -> list[JobUnit]:
        own, store = folder / path.stem, sweep.request.store
        start = partial(launch, folder=own)
        return submit(start, _overrides(sweep, path, plan), store, path.stem, own).units()

    return _execute(sweep, work, local=False, wait_seconds=0 if detach else wait_seconds)


def _execute(
    sweep: Sweep,
    work: Callable[[Path, Plan], Sequence[JobUnit] | None],
    local: bool,
    wait_seconds: float | None = None,
) -> SweepReport:
    """`work` runs a plan's units, or gives those that it left to SLURM, which are waited for.

    So are those of earlier commands that have runs of this sweep; what they lose is computed here.
    """
    started, interrupted = time.monotonic(), False
    end = math.inf if wait_seconds is None else started + wait_seconds
    store, watch = sweep.request.store, JobWatch(sweep.request.store, sweep.awaited)
    asked = sweep.awaited_runs  # with the plan and the unit that are to compute each run
    own: list[str] = []  # plans of this command

    def look() -> tuple[Progress, str]:
        theirs = reports_of(store, sweep.awaited).values()
        ours = [report for plan in own for report in unit_reports(store, plan).values()]
        return Progress.of([*ours, *theirs]), watch.summary()

    def compute(plan: Plan, path: Path | None) -> None:
        nonlocal asked
        if path:
            own.append(path.stem)
            runs = plan.frame.select("run_id", "unit", plan=pl.lit(path.stem))
            asked = pl.concat([asked.join(runs, on="run_id", how="anti"), runs])
            try:
                watch.add(work(path, plan) or ())
            except NothingSubmitted:
                path.unlink()  # it would look like a sweep whose runs are lost
                raise
        watch.wait(end)

    path = _write_plan(sweep, sweep.plan, local)
    try:
        total = len(sweep.plan.frame) + sum(sweep.awaited.values())
        with showing(look, total, sweep.plan.n_units + len(sweep.awaited)):
            compute(sweep.plan, path)
            lost = sweep.awaited_runs.clear()
            if sweep.awaited and not local and time.monotonic() < end:
                lost = without_row(sweep.awaited_runs, fresh_runs(sweep), watch.active())
            if len(lost):
                print(
                    f"jobs of an earlier command ended without {len(lost)} runs of this sweep; "
                    "they are submitted now",
                    file=sys.stderr,
                )
                plan = sweep.take_over(lost)
                try:
                    compute(plan, _write_plan(sweep, plan, local))
                except NothingSubmitted as error:
                    print(f"error: nothing could be submitted: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
        _interrupt_units(store, own)
    except NothingSubmitted:
        raise
    except CannotPublish as error:
        print(f"error: {error}", file=sys.stderr)
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)  # runs that fail are rows: this ended a whole unit
    result = report(sweep, asked, watch, time.monotonic() - started, interrupted)
    try:
        if store.exists():
            compact(store)  # after the report: it drops rows that are beaten
    except (ValueError, OSError) as error:
        print(f"warning: the store was not compacted: {error}", file=sys.stderr)
    return result


def _write_plan(sweep: Sweep, plan: Plan, local: bool) -> Path | None:
    """The plan's file; None when there is nothing to compute."""
    request = sweep.request
    if plan.frame.is_empty():
        _restore_configs(sweep)
        return None
    settings = PlanSettings(
        experiment=sweep.experiment.name,
        command=request.command,
        units=plan.n_units,
        local=local,
        fail_fast=request.fail_fast,
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(2)}"
    try:
        return write_plan(request.store, name, plan, settings).resolve()
    except OSError as error:
        raise ValueError(f"cannot write to the store {request.store}: {error}") from None


def _restore_configs(sweep: Sweep) -> None:
    """Write config files that stored rows need and somebody has deleted, as one that is damaged."""
    needed = set(sweep.stored["config_id"])
    for name, file in sweep.plan.configs.items():
        if name in needed:
            write_config(sweep.request.store, file)


def _overrides(sweep: Sweep, plan_file: Path, plan: Plan) -> list[list[str]]:
    """Of each unit: those of its first run, and where its plan is."""
    return [
        [*sweep.first_lines(plan, unit), f"hydra.sweeper.unit={quoted(f'{plan_file}:{unit}')}"]
        for unit in range(plan.n_units)
    ]


def _watch(
    launch: Callable[[list[list[str]]], Any], jobs: list[list[str]], store: Path, plan: str
) -> None:
    """Launch in a thread; come back when it does, or soon after all units ended or died."""
    thread, failure = in_background(lambda: launch(jobs))
    while thread.is_alive():
        thread.join(0.2)
        units = unit_reports(store, plan).values()
        if len(units) == len(jobs) and not any(unit.is_alive() for unit in units):
            # submitit looks every second, and notices a killed job 15 s later.
            thread.join(_RETURN)
            break
    while any(unit.is_alive() for unit in unit_reports(store, plan).values()):
        time.sleep(0.2)  # a killed job ends the launch while the others still run
    if failure and not unit_reports(store, plan):
        raise NothingSubmitted(repr(failure[0])) from failure[0]
    if failure:
        print(f"a unit stopped: {_last_line(failure[0])}", file=sys.stderr)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _interrupt_units(store: Path, plans: Sequence[str]) -> None:
    """Ctrl-C reached only us: pass it on to the local units, which publish what they have."""

    def running() -> list[UnitReport]:
        here = socket.gethostname()
        return [
            unit
            for plan in plans
            for unit in unit_reports(store, plan).values()
            if unit.is_alive()
            and unit.job is None
            and unit.host == here
            and unit.pid != os.getpid()
        ]

    for unit in running():
        os.kill(unit.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP
    while running() and time.monotonic() < deadline:
        time.sleep(0.1)
