"""Carrying out a planned sweep: launch its units, wait, count what the store then holds."""

import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from plugins.driver import Sweep
from plugins.fold import compact
from plugins.load import scan_sweep
from plugins.overrides import quoted
from plugins.plan_files import PlanSettings, write_plan
from plugins.processes import run_units
from plugins.progress import showing
from plugins.status import UnitReport, plan_status
from plugins.winners import stored_runs
from plugins.worker import run_unit

_RETURN = 0.3  # seconds that a launcher gets to return after its units have ended
_STOP = 10.0  # seconds that units get to stop after Ctrl-C


@dataclass(frozen=True)
class SweepReport:
    """What the store holds of a sweep's runs afterwards."""

    store: Path
    planned: int
    done_before: int
    ok: int
    diverged: int
    failed: int
    missing: int  # planned, launched, and without a row
    seconds: float
    first_error: str | None = None
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        return not (self.failed or self.missing)

    def counts(self) -> str:
        return (
            f"planned {self.planned}, done before {self.done_before}, ok {self.ok}, "
            f"diverged {self.diverged}, failed {self.failed}, missing {self.missing}"
        )


class NothingSubmitted(RuntimeError):
    """The launcher failed before any unit started."""


def execute(
    sweep: Sweep, launch: Callable[[list[list[str]]], Any], *, local: bool, in_process: bool
) -> SweepReport:
    """Launch what is to compute, wait, compact, and count what the store then holds.

    `launch` gets the overrides of each unit. In another process than ours it may wait for ever
    (a killed job of submitit) or return early, so there the units' own reports decide.
    """

    def work(path: Path) -> None:
        jobs = [
            [*sweep.first_lines(unit), f"hydra.sweeper.unit={quoted(f'{path}:{unit}')}"]
            for unit in range(sweep.plan.n_units)
        ]
        if in_process:
            launch(jobs)
        else:
            _watch(launch, jobs, sweep.request.store, path.stem)

    return _execute(sweep, work, local)


def execute_in_processes(sweep: Sweep) -> SweepReport:
    """`execute` without Hydra's launchers: a process per unit on this machine."""
    return _execute(sweep, lambda path: run_units(path, sweep.plan.n_units), local=True)


def execute_here(sweep: Sweep) -> SweepReport:
    """`execute` without Hydra's launchers: the units one after the other in this process."""

    def work(path: Path) -> None:
        for unit in range(sweep.plan.n_units):
            run_unit(path, unit)

    return _execute(sweep, work, local=True)


def _execute(sweep: Sweep, work: Callable[[Path], None], local: bool) -> SweepReport:
    request, plan = sweep.request, sweep.plan
    started, interrupted = time.monotonic(), False
    if len(plan.frame):
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(2)}"
        settings = PlanSettings(
            experiment=sweep.experiment.name,
            command=request.command,
            units=plan.n_units,
            local=local,
            fail_fast=request.fail_fast,
            cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )
        try:
            path = write_plan(request.store, name, plan, settings).resolve()
        except OSError as error:
            raise ValueError(f"cannot write to the store {request.store}: {error}") from None
        try:
            with showing(request.store, name, len(plan.frame)):
                work(path)
        except KeyboardInterrupt:
            interrupted = True
            _interrupt_units(request.store, name)
        except NothingSubmitted:
            raise
        except (Exception, SystemExit) as error:
            traceback.print_exception(error)  # runs that fail are rows: this ended a whole unit
    try:
        if request.store.exists():
            compact(request.store)
    except (ValueError, OSError) as error:
        print(f"warning: the store was not compacted: {error}", file=sys.stderr)
    return _report(sweep, time.monotonic() - started, interrupted)


def _watch(
    launch: Callable[[list[list[str]]], Any], jobs: list[list[str]], store: Path, plan: str
) -> None:
    """Launch in a thread; come back when it does, or soon after all units ended or died."""
    failure: list[Exception] = []

    def target() -> None:
        try:
            launch(jobs)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        units = plan_status(store, plan).units
        if len(units) == len(jobs) and not any(unit.is_alive() for unit in units):
            # submitit looks every second, and notices a killed job 15 s later.
            thread.join(_RETURN)
            break
    while any(unit.is_alive() for unit in plan_status(store, plan).units):
        time.sleep(0.2)  # a killed job ends the launch while the others still run
    if failure and not plan_status(store, plan).units:
        raise NothingSubmitted(repr(failure[0])) from failure[0]
    if failure:
        print(f"a unit stopped: {_last_line(failure[0])}", file=sys.stderr)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _interrupt_units(store: Path, plan: str) -> None:
    """Ctrl-C reached only us: pass it on to the local units, which publish what they have."""

    def running() -> list[UnitReport]:
        here = socket.gethostname()
        return [
            unit
            for unit in plan_status(store, plan).units
            if unit.is_alive() and unit.host == here and unit.pid != os.getpid()
        ]

    for unit in running():
        os.kill(unit.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP
    while running() and time.monotonic() < deadline:
        time.sleep(0.1)


def _report(sweep: Sweep, seconds: float, interrupted: bool) -> SweepReport:
    plan = sweep.plan
    before = sweep.stored["attempt"]
    after = plan.frame.select("run_id").join(
        stored_runs(sweep.request.store), on="run_id", how="left"
    )
    fresh = after.filter(
        pl.col("attempt").is_not_null() & ~pl.col("attempt").is_in(before.implode())
    )
    counts = dict(fresh["status"].value_counts().iter_rows())
    failed = fresh.filter(pl.col("status") == "failed")["run_id"]
    return SweepReport(
        sweep.request.store,
        plan.planned,
        plan.done,
        counts.get("ok", 0),
        counts.get("diverged", 0),
        counts.get("failed", 0),
        len(after) - len(fresh),
        seconds,
        _first_error(sweep.request.store, failed),
        interrupted,
    )


def _first_error(store: Path, failed: pl.Series) -> str | None:
    if failed.is_empty():
        return None
    rows = (
        scan_sweep(store, params=[], status=("failed",))
        .filter(pl.col("run_id").is_in(failed.implode()))
        .select("run_id", "error", "index")
        .sort("index")
        .first()
        .collect()
    )
    run_id, error, _ = rows.row(0)
    return f"run {run_id}: {error.strip().splitlines()[-1]}"
