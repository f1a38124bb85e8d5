"""What a sweep came to: counts of its runs in the store, the first error, jobs that lost runs."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from plugins import slurm
from plugins.driver import Sweep
from plugins.jobs import JobWatch
from plugins.load import scan_sweep
from plugins.winners import stored_runs

_EXAMPLES = 5


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
    lost: tuple[str, ...] = ()  # SLURM jobs that ended without all of their rows
    jobs: tuple[str, ...] = ()  # SLURM jobs that go on
    with_slurm: int = 0  # runs of these that have no row yet; none of `missing`
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        return not (self.failed or self.missing or self.with_slurm)

    def counts(self) -> str:
        text = (
            f"planned {self.planned}, done before {self.done_before}, ok {self.ok}, "
            f"diverged {self.diverged}, failed {self.failed}, missing {self.missing}"
        )
        return f"{text}, with SLURM {self.with_slurm}" if self.with_slurm else text


def report(
    sweep: Sweep, plan: str, watch: JobWatch, seconds: float, interrupted: bool
) -> SweepReport:
    """Count what the store holds now of what `plan` and the units in `watch` were to compute."""
    store = sweep.request.store
    before = sweep.stored["attempt"]
    own = sweep.plan.frame.select("run_id", "unit", plan=pl.lit(plan))
    asked = pl.concat([own, sweep.awaited_runs.select(own.columns)])
    after = asked.join(stored_runs(store), on="run_id", how="left")
    is_fresh = pl.col("attempt").is_not_null() & ~pl.col("attempt").is_in(before.implode())
    fresh, absent = after.filter(is_fresh), after.filter(~is_fresh)
    active = watch.active()
    places = pl.DataFrame(
        [(unit.plan, unit.number) for unit in active],
        schema={"plan": pl.String, "unit": pl.Int64},
        orient="row",
    )
    lost = absent.join(places, on=["plan", "unit"], how="anti")
    counts = dict(fresh["status"].value_counts().iter_rows())
    failed = fresh.filter(pl.col("status") == "failed")["run_id"]
    return SweepReport(
        store,
        sweep.plan.planned,
        sweep.plan.done,
        counts.get("ok", 0),
        counts.get("diverged", 0),
        counts.get("failed", 0),
        len(lost),
        seconds,
        _first_error(store, failed),
        _losses(watch, lost),
        tuple(unit.job for unit in active),
        len(absent) - len(lost),
        interrupted,
    )


def _losses(watch: JobWatch, lost: pl.DataFrame) -> tuple[str, ...]:
    """ "job 12_3 (unit 3) ended as CANCELLED without 120 of its runs; ...", for the first few."""
    counts = {(plan, unit): n for plan, unit, n in lost.group_by("plan", "unit").len().iter_rows()}
    units = [unit for unit in watch.units if (unit.plan, unit.number) in counts]
    lines = [
        f"job {unit.job} (unit {unit.number}) ended as {slurm.end_state(unit.job)} "
        f"without {counts[unit.plan, unit.number]} of its runs; "
        f"log: .submitit/{unit.plan}/{unit.job}"
        for unit in units[:_EXAMPLES]
    ]
    more = len(units) - _EXAMPLES
    return (*lines, *([f"... and {more} more jobs"] if more > 0 else []))


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
