"""What a sweep came to: counts of its runs in the store, the first error, jobs that lost runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from plugins import slurm
from plugins.driver import Sweep
from plugins.jobs import JobUnit, JobWatch
from plugins.parts import list_parts, retry_vanished
from plugins.winners import read_keys, stored_runs

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
    sweep: Sweep, asked: pl.DataFrame, watch: JobWatch, seconds: float, interrupted: bool
) -> SweepReport:
    """Count what the store holds now of the runs `asked` for: run_id, plan, unit."""
    store, active = sweep.request.store, watch.active()
    fresh = asked.join(fresh_runs(sweep), on="run_id")
    counts = dict(fresh["status"].value_counts().iter_rows())
    failed = fresh.filter(pl.col("status") == "failed")
    lost = without_row(asked, fresh, active)
    failures = _failures(store, pl.concat([failed.select(asked.columns), lost]))
    # A repetition that failed has left a row, which the older one beats.
    repetitions = lost.join(failures, on="run_id", how="semi")
    lost = lost.join(repetitions, on="run_id", how="anti")
    return SweepReport(
        store,
        sweep.plan.planned,
        sweep.plan.done,
        counts.get("ok", 0),
        counts.get("diverged", 0),
        len(failed) + len(repetitions),
        len(lost),
        seconds,
        _first_error(failures),
        _losses(watch, lost),
        tuple(unit.job for unit in active),
        len(asked) - len(fresh) - len(repetitions) - len(lost),
        interrupted,
    )


def fresh_runs(sweep: Sweep) -> pl.DataFrame:
    """Rows of `stored_runs` that have come since the planning."""
    before = sweep.stored["attempt"].implode()
    return stored_runs(sweep.request.store).filter(~pl.col("attempt").is_in(before))


def without_row(
    asked: pl.DataFrame, fresh: pl.DataFrame, active: Sequence[JobUnit]
) -> pl.DataFrame:
    """Those of `asked` whose unit is over and that are not among the fresh rows."""
    places = {"plan": [unit.plan for unit in active], "unit": [unit.number for unit in active]}
    over = asked.join(
        pl.DataFrame(places, schema=asked.select("plan", "unit").schema),
        on=["plan", "unit"],
        how="anti",
    )
    return over.join(fresh, on="run_id", how="anti")


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


def _failures(store: Path, asked: pl.DataFrame) -> pl.DataFrame:
    """run_id, error, index: failed rows of the runs `asked` for that their plans have left."""
    if asked.is_empty():
        return pl.DataFrame(schema={"run_id": pl.String, "error": pl.String, "index": pl.Int64})
    columns = {"plan": pl.String, "error": pl.String, "index": pl.Int64}
    rows = retry_vanished(lambda: read_keys(list_parts(store), columns))
    rows = rows.filter(pl.col("status") == "failed").join(asked, on=["run_id", "plan"], how="semi")
    return rows.select("run_id", "error", "index")


def _first_error(failures: pl.DataFrame) -> str | None:
    if failures.is_empty():
        return None
    run_id, error = failures.sort("index").select("run_id", "error").row(0)
    return f"run {run_id}: {error.strip().splitlines()[-1]}"
