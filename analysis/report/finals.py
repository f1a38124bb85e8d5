"""Final scalars over seeds, a row per group of the other keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import stdtrit

from analysis.curves import LEVEL
from analysis.report.cells import (
    MOST_ROWS,
    Cell,
    Table,
    more_rows,
    number,
    number_or_text,
    of_value,
    some,
)
from analysis.report.runs import STATUS, StoredRuns
from plugins.result import TIMES

_IN_A_TABLE = 4  # scalars side by side
_MOST_SCALARS = 60  # with statistics


def scalar_order(runs: StoredRuns, main: Sequence[str]) -> list[str]:
    """The objective first, then the family's main ones, those that are final, the others."""
    objectives: list[str] = []
    for config in runs.configs.values():
        objective = config.config.get("objective") or []
        objectives += [objective] if isinstance(objective, str) else objective
    first = [*objectives, *main]
    known = [name for name in runs.scalars if not name.startswith(TIMES)]
    place = {name: i for i, name in reversed(list(enumerate(first)))}
    return sorted(
        known, key=lambda name: (place.get(name, len(first)), not name.startswith("final_"))
    )


def statistics(rows: pl.DataFrame, keys: Sequence[str], scalars: Sequence[str]) -> pl.DataFrame:
    """A row per group of the runs that agree in `keys`, sorted by them.

    ok, diverged, failed: runs by status. Of each scalar over the runs that are ok, nan left out:
    <scalar>.n, .mean, .sd (divisor n - 1) and .half, of mean +- t_{n-1}(0.975) sd / sqrt(n).
    """
    is_ok = pl.col("status") == "ok"
    exprs = [(pl.col("status") == s).sum().alias(s) for s in STATUS]
    for name in scalars:
        x = pl.col(name).cast(pl.Float64).fill_nan(None).filter(is_ok)
        exprs += [x.count().alias(f"{name}.n"), x.mean().alias(f"{name}.mean")]
        exprs.append(x.std(ddof=1).alias(f"{name}.sd"))
    groups = rows.group_by([pl.lit(0).alias("_all"), *keys]).agg(exprs).drop("_all")
    groups = groups.sort(keys, nulls_last=True) if keys else groups
    halves = {}
    for name in scalars:
        n, sd = groups[f"{name}.n"].to_numpy(), groups[f"{name}.sd"].to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            half = stdtrit(n - 1.0, (1 + LEVEL) / 2) * sd / np.sqrt(n)
        halves[f"{name}.half"] = pl.Series(half).fill_nan(None)
    return groups.with_columns(**halves)


@dataclass(frozen=True)
class Scalars:
    """The final scalars of a store: tables of those that vary, and what the others are."""

    tables: list[Table]
    constant: list[tuple[str, str]]
    texts: Table
    left_out: list[str]


def scalar_tables(runs: StoredRuns, main: Sequence[str]) -> Scalars:
    """Tables of a few scalars each, a row per group of all keys but the seeds."""
    rows, keys = runs.rows, runs.group_keys
    ordered = scalar_order(runs, main)
    known = {name: rows[name].drop_nulls() for name in ordered}
    varying = [name for name in ordered if known[name].n_unique() > 1 or len(rows) == 1]
    constant = [(name, number_or_text(known[name][0])) for name in ordered if name not in varying]
    texts = [name for name in varying if rows.schema[name] == pl.String]
    numbers = [name for name in varying if name not in texts]
    shown, left_out = numbers[:_MOST_SCALARS], numbers[_MOST_SCALARS:]
    groups = statistics(rows, keys, shown)
    more = more_rows(len(groups), "groups, in the order of their keys")
    groups = groups.head(MOST_ROWS)
    statuses = [s for s in ("diverged", "failed") if groups[s].sum()]
    chunks = [shown[i : i + _IN_A_TABLE] for i in range(0, len(shown), _IN_A_TABLE)] or [[]]
    tables = [_scalar_table(groups, keys, statuses, chunk, more) for chunk in chunks]
    return Scalars(tables, constant, _text_table(rows, texts), left_out)


def _scalar_table(
    groups: pl.DataFrame, keys: Sequence[str], statuses: Sequence[str], scalars: Sequence[str],
    more: str,
) -> Table:  # fmt: skip
    header, units = [*keys, "n", *statuses], [""] * (len(keys) + 1 + len(statuses))
    for name in scalars:
        header += [name] * 3
        units += ["mean", "sd", "± 95 % t"]
    rows = []
    for row in groups.iter_rows(named=True):
        cells = [of_value(row[key]) for key in keys]
        cells += [number(row[name]) for name in ("ok", *statuses)]
        for name in scalars:
            mean = number(row[f"{name}.mean"])
            if 0 < row[f"{name}.n"] < row["ok"]:
                mean = Cell(f"{mean.text} (n = {row[f'{name}.n']})", mean.number)
            cells += [mean, number(row[f"{name}.sd"]), number(row[f"{name}.half"])]
        rows.append(cells)
    return Table(header, rows, more, units, ", ".join(scalars))


def _text_table(rows: pl.DataFrame, names: Sequence[str]) -> Table:
    found = []
    for name in names:
        values = (
            rows[name].drop_nulls().value_counts().sort("count", name, descending=[True, False])
        )
        texts = some([f"{value} ({n:,})" for value, n in values.iter_rows()])
        found.append([Cell(name), number(len(values)), Cell(", ".join(texts))])
    return Table(["scalar", "values", "which (runs)"], found)
