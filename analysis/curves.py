"""Statistics of curves over runs: mean, spread and t interval per step, incomplete runs by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from plugins.registry import UnknownName, did_you_mean

LEVEL = 0.95  # of t intervals
_ROWS = 5_000  # runs at a time: a million runs of 250 points are never held as float64
_STATISTICS = ("step", "n", "n_runs", "mean", "sd", "low", "high")
_INCOMPLETE = ("run", "status", "last_step")
_NEVER = np.iinfo(np.int64).min  # the last step of a run without a record


@dataclass(frozen=True)
class SeedStatistics:
    """A curve's statistics over seeds, and the runs that are missing from some of its steps.

    curves: the columns `by`, step, n (runs with a record at this step), n_runs (runs of the
    group), mean, sd, low, high; a row per group and step with n > 0, sorted. sd, low and high are
    null where n = 1.
    incomplete: the columns `by`, run (the other varying keys and their values, else the run_id),
    status, last_step (null: no record); a row per run that diverged, failed, or ended before the
    last step of its group. A group in which no run has a record is found here only.
    """

    curves: pl.DataFrame
    incomplete: pl.DataFrame


def over_seeds(
    df: pl.DataFrame | pl.LazyFrame, y: str, by: str | Sequence[str] = (), level: float = LEVEL
) -> SeedStatistics:
    """Statistics of curve `y` over all runs of a frame that agree in the key(s) `by`.

    mean +- t_{n-1}((1 + level) / 2) sd / sqrt(n) over the runs that have the step, sd with
    divisor n - 1, accumulated in float64; nan records (not measured) are skipped. A diverged run
    counts up to its last record: later steps describe the survivors, n says how many. A lazy frame
    of scan_sweep, filtered or not, is read once, a few thousand runs at a time.
    Raises UnknownName when `y` is no curve or `by` no column, ValueError for a list-valued curve
    (a list per record), curves and steps of different lengths, or a level outside (0, 1).
    """
    by = [by] if isinstance(by, str) else list(by)
    schema = df.collect_schema()
    _check(schema, y, by, level)
    keys = ["_all", *by]  # _all: `by` may be empty
    known = [name for name in ("run_id", "status") if name in schema]
    columns = dict.fromkeys([*by, *config_columns(schema), *known])
    rows = df.select(pl.lit(0).alias("_all"), *columns, "step", y)
    lazy = isinstance(rows, pl.LazyFrame)
    parts = rows.collect_batches(chunk_size=_ROWS) if lazy else rows.iter_slices(_ROWS)
    runs, moments = [], []
    for part in parts:
        last, of_part = _moments(part, y, keys)
        runs.append(part.drop("step", y).with_columns(_last=last))
        moments = [_joined([*moments, of_part], keys)]
    if not sum(map(len, runs)):
        raise ValueError("the frame has no runs")
    runs, [moments] = pl.concat(runs), moments

    counts = runs.group_by(keys).agg(n_runs=pl.len().cast(pl.Int64))
    curves = moments.join(counts, on=keys, nulls_equal=True).sort(*keys, "step", nulls_last=True)
    n, mean = curves["n"].to_numpy(), curves["mean"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(curves["m2"].to_numpy() / (n - 1))
        half = stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n)
    spread = {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}
    curves = curves.select(*by, "step", "n", "n_runs").hstack(pl.DataFrame(spread))
    curves = curves.with_columns(pl.col("sd", "low", "high").fill_nan(None))
    return SeedStatistics(curves, _incomplete(runs, keys, config_columns(schema)))


def _moments(runs: pl.DataFrame, y: str, keys: Sequence[str]) -> tuple[np.ndarray, pl.DataFrame]:
    """The last recorded step [runs]; keys, step, n, mean, m2: a row per group and step, n > 0."""
    lengths = runs.select(pl.col(y, "step").list.len().fill_null(0).cast(pl.Int64)).to_numpy().T
    is_filled = lengths[0] > 0
    lengths = lengths[:, is_filled]
    if not np.array_equal(*lengths):
        raise ValueError(f"curve {y!r} and its 'step' differ in length")
    lengths, filled = lengths[0], runs.filter(is_filled)
    step = filled["step"].explode().to_numpy()
    value = filled[y].explode().cast(pl.Float64).fill_null(np.nan).to_numpy()
    is_measured = ~np.isnan(value)
    recorded = step if is_measured.all() else np.where(is_measured, step, _NEVER)
    starts = np.cumsum(lengths) - lengths
    last = np.full(len(runs), _NEVER)
    last[is_filled] = np.maximum.reduceat(recorded, starts)

    groups = filled.select(keys).unique().with_row_index("_group")
    joined = filled.select(keys).join(
        groups, on=keys, how="left", nulls_equal=True, maintain_order="left"
    )
    steps, column = _columns(step, starts, lengths)
    cell = np.repeat(joined["_group"].to_numpy().astype(np.int64) * len(steps), lengths)
    cell += column  # in place, here and below: fresh pages cost more than the sums
    if not is_measured.all():
        cell, value = cell[is_measured], value[is_measured]
    n = np.bincount(cell, minlength=len(groups) * len(steps))
    with np.errstate(invalid="ignore"):  # infinite records
        mean = np.bincount(cell, value, len(n)) / np.maximum(n, 1)
        away = mean[cell]
        away -= value
        m2 = np.bincount(cell, np.square(away, out=away), len(n))
    [seen] = np.nonzero(n)
    group, column = np.divmod(seen, len(steps))
    moments = {"step": steps[column], "n": n[seen], "mean": mean[seen], "m2": m2[seen]}
    floats = {"mean": pl.Float64, "m2": pl.Float64}  # numpy's counts of nothing are integers
    return last, groups.drop("_group")[group].hstack(pl.DataFrame(moments, schema_overrides=floats))


def _columns(
    step: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct steps, sorted; the place of each of `step` among them. Runs start at `starts`.

    Most runs share their steps: only the first run of those that have the same is looked up.
    """
    first: dict[bytes, int] = {}
    ends = (starts + lengths).tolist()
    alike = [
        first.setdefault(step[start:end].tobytes(), start)
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]
    if len(first) == 1:
        steps, column = np.unique(step[: lengths[0]], return_inverse=True)
        return steps, np.tile(column, len(lengths))
    away = np.repeat(starts - np.array(alike, np.int64), lengths)
    is_first = away == 0
    column = np.empty(len(step), np.int64)
    steps, column[is_first] = np.unique(step[is_first], return_inverse=True)
    return steps, column[np.arange(len(step)) - away]


def _joined(parts: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """Moments of all the parts' runs: Chan, Golub & LeVeque (1983)."""
    n, mean = pl.col("n"), pl.col("mean")
    whole = (n * mean).sum() / n.sum()
    return (
        pl.concat(parts)
        .group_by(*keys, "step")
        .agg(n=n.sum(), mean=whole, m2=pl.col("m2").sum() + (n * (mean - whole) ** 2).sum())
    )


def _incomplete(runs: pl.DataFrame, keys: Sequence[str], config: Sequence[str]) -> pl.DataFrame:
    """Runs that diverged, failed or ended before the last step of their group, sorted by keys."""
    if "status" not in runs.columns:
        runs = runs.with_columns(status=pl.lit("ok"))
    last = pl.col("_last")
    early = (last < last.max().over(keys)) | (last == _NEVER)
    others = _varying(runs, [key for key in config if key not in keys], keys)
    if not others and "run_id" in runs.columns:
        others = ["run_id"]
    found = runs.filter((pl.col("status") != "ok") | early)
    found = found.sort(*keys, *others, nulls_last=True, maintain_order=True)
    names = [key_values(row) for row in found.select(others).iter_rows(named=True)]
    return found.select(
        *keys[1:],
        pl.Series("run", names or [""] * len(found), dtype=pl.String),
        "status",
        last_step=pl.when(last != _NEVER).then(last),
    )


def varying_keys(df: pl.DataFrame, within: Sequence[str] = ()) -> list[str]:
    """Config keys, which stand before a frame's curves, that take two values in a group `within`.

    Without `within` all runs are one group.
    """
    return _varying(df, [key for key in config_columns(df.columns) if key not in within], within)


def _varying(df: pl.DataFrame, keys: Sequence[str], within: Sequence[str]) -> list[str]:
    # Most of a config is constant: only what varies at all is counted by group.
    keys = [key for key in keys if df[key].n_unique() > 1]
    if not within or not keys:
        return keys
    counts = df.group_by(within).agg(pl.col(keys).n_unique())
    return [key for key in keys if counts[key].max() > 1]


def config_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The config keys of one row of a frame of load_sweep, and their values."""
    return {key: row[key] for key in config_columns(row)}


def key_values(row: Mapping[str, Any]) -> str:
    """A text for figures: 'model.gamma = 0.75, training.batch_seed = 3'."""
    return ", ".join(f"{key} = {value_text(value)}" for key, value in row.items())


def value_text(value: Any, digits: int | None = None) -> str:
    """A key's value in few characters; a float rounded to `digits`, or exact."""
    if isinstance(value, float):
        short = f"{value:.{digits or 6}g}"
        return short if digits or float(short) == value else repr(value)
    return "null" if value is None else str(value)


def curve_names(df: pl.DataFrame) -> list[str]:
    """The list columns of a frame of load_sweep that are curves against step."""
    return _curves(df.schema)


def config_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a frame of load_sweep before its curves: its config keys."""
    columns = list(columns)
    return columns[: columns.index("step")] if "step" in columns else []


def _curves(schema: pl.Schema) -> list[str]:
    names = list(schema)
    after = names[names.index("step") + 1 :] if "step" in names else []
    return [name for name in after if isinstance(schema[name], pl.List)]


def _check(schema: pl.Schema, y: str, by: Sequence[str], level: float) -> None:
    curves = _curves(schema)
    if y not in curves:
        raise UnknownName(f"the frame has no curve {y!r}{did_you_mean(y, curves)}")
    if isinstance(schema[y].inner, pl.List):
        raise ValueError(f"curve {y!r} holds a list per record; plot_run(row) draws its components")
    for key in by:
        if key not in schema or isinstance(schema[key], pl.List):
            raise UnknownName(
                f"the frame has no key {key!r}{did_you_mean(key, config_columns(schema))}; a key"
                " fixed in the whole sweep is a column with load_sweep(..., params='all')"
            )
        if key in (*_STATISTICS, *_INCOMPLETE):
            raise ValueError(f"the key {key!r} has the name of a statistic: rename the column")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no probability between 0 and 1")
