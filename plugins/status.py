"""What is planned, done, running and lost in a store; `python -m plugins.status STORE`.

From the store, and from SLURM where it answers: no driver need be alive.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from plugins import slurm
from plugins.jobs import ask, read_jobs
from plugins.parts import require_store
from plugins.plan_files import PlanSettings, read_settings, read_units
from plugins.progress import duration
from plugins.reports import Progress, UnitReport, is_local_process, is_silent, unit_reports
from plugins.winners import DONE, stored_runs


@dataclass(frozen=True)
class UnitStatus:
    """What became of the runs of one unit."""

    number: int
    job: str | None  # of SLURM
    state: str  # SLURM's word for the job; else running, waiting, ended, died
    active: bool  # it is running, or will be
    planned: int
    done: int  # ok or diverged, whichever plan computed them
    failed: int
    report: UnitReport | None  # None: it has not started

    @property
    def left(self) -> int:
        """Runs without a row: still to come when the unit is active, else lost."""
        return self.planned - self.done - self.failed


@dataclass(frozen=True)
class PlanStatus:
    name: str
    settings: PlanSettings
    units: tuple[UnitStatus, ...]

    def count(self, what: str) -> int:
        return sum(getattr(unit, what) for unit in self.units)

    @property
    def lost(self) -> int:
        """Runs without a row whose unit is over."""
        return sum(unit.left for unit in self.units if not unit.active)

    @property
    def running(self) -> int:
        """Runs without a row whose unit has started."""
        return sum(unit.left for unit in self.units if unit.active and unit.report)

    @property
    def is_over(self) -> bool:
        return not any(unit.active for unit in self.units)

    def __str__(self) -> str:
        planned, waiting = self.count("planned"), self.count("left") - self.lost - self.running
        lines = [
            f"{self.name}: {self.settings.experiment}, {planned} runs in {len(self.units)} units",
            f"  planned {planned}, done {self.count('done')}, failed {self.count('failed')}, "
            f"running {self.running}, waiting {waiting}, lost {self.lost}",
        ]
        reports = [unit.report for unit in self.units if unit.active and unit.report]
        progress = Progress.of(reports)
        if progress.rate:
            left = duration((self.running + waiting - progress.fraction) / progress.rate)
            lines[-1] += f"; {progress.rate:.3g} runs/s, {left} left"
        if self.is_over and (self.lost or self.count("failed")):
            lines.append(f"  to compute these again: {self.settings.command}")
        return "\n".join(lines)


def store_status(store: Path) -> list[PlanStatus]:
    """The plans of a store, oldest first. Raises FileNotFoundError where there is no store."""
    require_store(store)
    files = sorted(store.glob("plans/*.parquet"))
    stored = stored_runs(store, ["plan"]).select("run_id", "attempt", "status", stored_in="plan")
    return [plan_status(store, file, stored) for file in files]


def plan_status(store: Path, plan_file: Path, stored: pl.DataFrame) -> PlanStatus:
    """`stored` has run_id, attempt, status and, as stored_in, the plan of the store's runs.

    A row of an earlier plan that this one is to replace does not count.
    """
    plan, settings = plan_file.stem, read_settings(plan_file)
    rows = read_units(plan_file)
    is_replaced = pl.col("attempt").eq_missing(pl.col("replaces"))
    counts = (
        rows.join(stored, on="run_id", how="left")
        .group_by("unit")
        .agg(
            planned=pl.len(),
            done=(pl.col("status").is_in(DONE) & ~is_replaced).sum(),
            failed=(pl.col("status").eq("failed") & (pl.col("stored_in") >= plan)).sum(),
        )
        .sort("unit")
    )
    reports, jobs = unit_reports(store, plan), read_jobs(store, plan)
    if jobs:
        units = jobs.units()
        undone = [
            units[n] for n, planned, done, failed in counts.iter_rows() if planned > done + failed
        ]
        answers = ask(undone) or {}
    found = []
    for number, planned, done, failed in counts.iter_rows():
        report, job = reports.get(number), jobs.jobs[number] if jobs else None
        if planned == done + failed:
            state, active = "ended", False
        elif jobs is None:
            state, active = _local_state(settings, report)
        elif (unit := units[number]) not in answers:
            heard = max(jobs.submitted, report.updated if report else 0.0)
            state, active = "unknown", not is_silent(heard)
        elif answers[unit] is None:
            state, active = slurm.end_state(job), False
        else:
            state, active = answers[unit], True
        found.append(UnitStatus(number, job, state, active, planned, done, failed, report))
    return PlanStatus(plan, settings, tuple(found))


def _local_state(settings: PlanSettings, report: UnitReport | None) -> tuple[str, bool]:
    if report is None:
        waiting = is_local_process(settings.host, settings.pid)
        return ("waiting", True) if waiting else ("died", False)
    if report.is_alive():
        return "running", True
    return ("ended" if report.finished else "died"), False


def unit_table(plan: PlanStatus) -> Table:
    """A line per unit that is active or has lost runs."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("unit", "job", "state", "done/planned", "failed", "host", "last report"):
        table.add_column(name, justify="left" if name in ("state", "host") else "right")
    for unit in plan.units:
        if unit.active or unit.left:
            report = unit.report
            table.add_row(
                str(unit.number),
                unit.job or "",
                unit.state,
                f"{unit.done}/{unit.planned}",
                str(unit.failed),
                report.host if report else "",
                f"{duration(time.time() - report.updated)} ago" if report else "",
            )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 where there is no store or a damaged one."""
    parser = argparse.ArgumentParser(
        prog="python -m plugins.status",
        description="What the sweeps of a store have done, and what their jobs are doing. Works "
        "beside running sweeps and after their driver died, on any machine that sees the store.",
    )
    parser.add_argument("store", type=Path, metavar="STORE")
    store = parser.parse_args(argv).store
    try:
        plans = store_status(store)
    except FileNotFoundError as error:
        parser.error(str(error))
    except ValueError as error:  # a damaged file
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(soft_wrap=True, highlight=False)
    for plan in plans:
        console.print(str(plan), markup=False)
        if plan.count("left"):
            console.print(unit_table(plan))
    if not plans:
        print(f"{store} has no plans: its runs were merged into it, or run one by one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
