"""What the runs have cost: seconds by group, by metric and by the parts of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis.report.cells import (
    MOST_ROWS,
    Cell,
    Table,
    duration,
    more_rows,
    number,
    of_value,
)
from analysis.report.runs import StoredRuns
from plugins.result import TIMES

_METRIC = f"{TIMES}metric_"  # begins the names of scalars that say what a metric has cost


@dataclass(frozen=True)
class Cost:
    seconds: float
    core_hours: str
    groups: Table
    metrics: Table
    parts: Table


def cost(runs: StoredRuns) -> Cost:
    """Seconds of the runs, in all, by group, and by the scalars that begin with seconds_."""
    rows, keys = runs.rows, runs.group_keys
    seconds = pl.col("seconds")
    total = rows["seconds"].sum()
    groups = (
        rows.group_by([pl.lit(0).alias("_all"), *keys])
        .agg(
            pl.len().alias("n"),
            seconds.sum().alias("total"),
            seconds.median().alias("median"),
            seconds.quantile(0.9, "linear").alias("p90"),
            seconds.max().alias("max"),
        )
        .drop("_all")
    )
    groups = groups.sort(keys, nulls_last=True) if keys else groups
    names = ("total", "median", "p90", "max")
    table = Table(
        [*keys, "runs", "total", "median", "90 % quantile", "longest"],
        [
            [
                *(of_value(row[key]) for key in keys),
                number(row["n"]),
                *(number(row[name], duration) for name in names),
            ]
            for row in groups.head(MOST_ROWS).iter_rows(named=True)
        ],
        more_rows(len(groups), "groups, in the order of their keys"),
    )
    times = [name for name in runs.scalars if name.startswith(TIMES)]
    metrics = [name for name in times if name.startswith(_METRIC)]
    others = [name for name in times if name not in metrics]
    return Cost(
        total,
        _core_hours(runs),
        table,
        _parts_table(rows, metrics, _METRIC, "metric", total),
        _parts_table(rows, others, TIMES, "part", total),
    )


def _core_hours(runs: StoredRuns) -> str:
    """Run hours times `threads`, where the configs say it."""
    rows = runs.rows
    threads = {id: config.config.get("threads") for id, config in runs.configs.items()}
    of_run = pl.col("config_id").replace_strict(threads, default=None, return_dtype=pl.Int64)
    if "threads" in rows.columns:
        of_run = pl.col("threads")
    hours = rows.select(
        known=(pl.col("seconds") * of_run).sum() / 3600, unknown=of_run.is_null().sum()
    )
    known, unknown = hours.row(0)
    if unknown == len(rows):
        return "core hours are not known: the key threads was left to the machine"
    text = f"{known:,.3g} core hours (run hours times the key threads)"
    return f"{text}, without {unknown:,} runs of unknown threads" if unknown else text


def _parts_table(
    rows: pl.DataFrame, names: Sequence[str], prefix: str, what: str, total: float
) -> Table:
    found = []
    for name in names:
        values = rows[name].cast(pl.Float64).drop_nulls().drop_nans()
        share = values.sum() / total if total else float("nan")
        percent = number(share, lambda x: f"{100 * x:.1f} %")
        of_all = number(values.sum(), duration)
        middle = number(values.median(), duration)
        found.append(
            [Cell(name.removeprefix(prefix)), number(len(values)), of_all, percent, middle]
        )
    found.sort(key=lambda row: -(row[2].number or 0))
    return Table([what, "runs", "total", "share of all seconds", "median a run"], found)
