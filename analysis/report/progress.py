"""What became of the runs: counts by status, plans, commands."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from analysis.report.cells import MOST_ROWS, Cell, Table, number
from analysis.report.runs import STATUS, StoredRuns
from plugins.plan_files import read_units
from plugins.status import PlanStatus


def counts(runs: StoredRuns) -> Table:
    """Runs by status, a row per experiment."""
    of_status = ((pl.col("status") == status).sum().alias(status) for status in STATUS)
    found = runs.rows.group_by("experiment").agg(*of_status, n=pl.len()).sort("experiment")
    rows = [[Cell(name), *map(number, numbers)] for name, *numbers in found.iter_rows()]
    return Table(["experiment", *STATUS, "runs stored"], rows)


def missing_runs(store: Path, runs: StoredRuns) -> tuple[int, int]:
    """Runs that the plans of the store have asked for, and how many of them have no row."""
    files = sorted(store.glob("plans/*.parquet"))
    if not files:
        return 0, 0
    asked = pl.concat(read_units(file).select("run_id") for file in files).unique()
    return len(asked), len(asked.join(runs.rows, on="run_id", how="anti"))


def plan_table(plans: Sequence[PlanStatus]) -> Table:
    """A row per plan, as `python -m plugins.status` counts."""
    rows = []
    for plan in plans:
        planned, done, failed = (plan.count(what) for what in ("planned", "done", "failed"))
        waiting = plan.count("left") - plan.lost - plan.running
        numbers = (planned, done, failed, plan.running, waiting, plan.lost)
        rows.append([Cell(plan.name), *map(number, numbers), Cell(plan.settings.host)])
    header = ["plan", "planned", "done", "failed", "running", "waiting", "lost", "started on"]
    return Table(header, rows[:MOST_ROWS])


def commands(plans: Iterable[PlanStatus]) -> list[str]:
    """The commands of the plans, each once, oldest first."""
    return list(dict.fromkeys(plan.settings.command for plan in plans))
