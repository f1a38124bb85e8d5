"""Statistics of curves over runs: mean, spread and t interval per step, incomplete runs by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from plugins.registry import UnknownName, did_you_mean

LEVEL = 0.95  # of t intervals
_ROWS = 20_000  # runs turned to float64 at a time: a million runs of 250 points need no copy
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
    df: pl.DataFrame, y: str, by: str | Sequence[str] = (), level: float = LEVEL
) -> SeedStatistics:
    """Statistics of curve `y` over all runs of a frame that agree in the key(s) `by`.

    mean +- t_{n-1}((1 + level) / 2) sd / sqrt(n) over the runs that have the step, sd with
    divisor n - 1, accumulated in float64; nan records (not measured) are skipped. A diverged run
    counts up to its last record: later steps describe the survivors, n says how many.
    Raises UnknownName when `y` is no curve or `by` no column, ValueError for a list-valued curve
    (a list per record), curves and steps of different lengths, or a level outside (0, 1).
    """
    by = [by] if isinstance(by, str) else list(by)
    _check(df, y, by, level)
    keys = df.select(pl.repeat(0, pl.len()).alias("_all"), *by)  # _all: `by` may be empty
    groups = keys.unique().sort(keys.columns, nulls_last=True)
    group = keys.join(
        groups.with_row_index("_group"),
        on=keys.columns,
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )["_group"].to_numpy()

    steps, n, mean, sd, last = _moments(df, y, group, len(groups))
    at, column = np.nonzero(n)
    n, mean, sd = n[at, column], mean[at, column], sd[at, column]
    with np.errstate(invalid="ignore"):
        half = stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n)
    statistics = {
        "step": steps[column],
        "n": n,
        "n_runs": np.bincount(group, minlength=len(groups))[at],
        "mean": mean,
        "sd": sd,
        "low": mean - half,
        "high": mean + half,
    }
    statistics = pl.DataFrame(statistics).with_columns(pl.col("sd", "low", "high").fill_nan(None))
    curves = groups[at].hstack(statistics).drop("_all")
    return SeedStatistics(curves, _incomplete(df, keys, group, last).drop("_all"))


def _moments(df: pl.DataFrame, y: str, group: np.ndarray, n_groups: int) -> tuple[np.ndarray, ...]:
    """Steps [S]; n, mean, sd [groups, S], sd nan where n < 2; the last recorded step [runs]."""
    steps = df["step"].explode().drop_nulls().unique().sort().to_numpy()
    n = np.zeros(n_groups * len(steps), np.int64)
    mean, m2 = np.zeros(n.shape), np.zeros(n.shape)
    last = np.full(len(df), _NEVER)
    filled = np.flatnonzero((df[y].list.len().fill_null(0) > 0).to_numpy())
    for start in range(0, len(filled), _ROWS):
        rows = filled[start : start + _ROWS]
        part = df.select("step", y)[rows]
        lengths = part[y].list.len().cast(pl.Int64).to_numpy()
        if not np.array_equal(lengths, part["step"].list.len().fill_null(0).to_numpy()):
            raise ValueError(f"curve {y!r} and its 'step' differ in length")
        step = part["step"].explode().to_numpy()
        value = part[y].explode().cast(pl.Float64).fill_null(np.nan).to_numpy()
        measured = ~np.isnan(value)
        offsets = np.cumsum(lengths) - lengths
        last[rows] = np.maximum.reduceat(np.where(measured, step, _NEVER), offsets)

        cell = np.searchsorted(steps, step) + np.repeat(group[rows] * len(steps), lengths)
        if not measured.all():
            cell, value = cell[measured], value[measured]
        # Two passes inside the part, then Chan, Golub & LeVeque (1983) to join the parts.
        part_n = np.bincount(cell, minlength=len(n))
        seen = part_n > 0
        with np.errstate(invalid="ignore"):  # infinite records
            part_mean = np.bincount(cell, value, len(n)) / np.maximum(part_n, 1)
            part_m2 = np.bincount(cell, (value - part_mean[cell]) ** 2, len(n))
            gap, total = part_mean[seen] - mean[seen], n[seen] + part_n[seen]
            mean[seen] += gap * part_n[seen] / total
            m2[seen] += part_m2[seen] + gap**2 * n[seen] * part_n[seen] / total
        n[seen] = total
    sd = np.sqrt(np.divide(m2, n - 1, out=np.full(n.shape, np.nan), where=n > 1))
    shape = (n_groups, len(steps))
    return steps, n.reshape(shape), mean.reshape(shape), sd.reshape(shape), last


def _incomplete(
    df: pl.DataFrame, keys: pl.DataFrame, group: np.ndarray, last: np.ndarray
) -> pl.DataFrame:
    """Runs that diverged, failed or ended before the last step of their group."""
    end = np.full(group.max() + 1, _NEVER)
    np.maximum.at(end, group, last)
    status = df["status"] if "status" in df.columns else pl.repeat("ok", len(df), eager=True)
    found = np.flatnonzero((status != "ok").to_numpy() | (last < end[group]) | (last == _NEVER))
    others = varying_keys(df, keys.columns[1:])
    if not others and "run_id" in df.columns:
        others = ["run_id"]
    rows = df.select(pl.int_range(pl.len()).alias("row"), *others)[found]
    columns = {
        "run": [key_values(dict(zip(others, row[1:], strict=True))) for row in rows.iter_rows()],
        "status": status[found],
        "last_step": [None if step == _NEVER else step for step in last[found].tolist()],
    }
    schema = {"run": pl.String, "status": pl.String, "last_step": pl.Int64}
    return keys[found].hstack(pl.DataFrame(columns, schema=schema))


def varying_keys(df: pl.DataFrame, within: Sequence[str] = ()) -> list[str]:
    """Config keys, which stand before a frame's curves, that take two values in a group `within`.

    Without `within` all runs are one group.
    """
    keys = [key for key in config_columns(df.columns) if key not in within]
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
    after = df.columns[df.columns.index("step") + 1 :] if "step" in df.columns else []
    return [name for name in after if isinstance(df.schema[name], pl.List)]


def config_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a frame of load_sweep before its curves: its config keys."""
    columns = list(columns)
    return columns[: columns.index("step")] if "step" in columns else []


def _check(df: pl.DataFrame, y: str, by: Sequence[str], level: float) -> None:
    if df.is_empty():
        raise ValueError("the frame has no runs")
    curves = curve_names(df)
    if y not in curves:
        raise UnknownName(f"the frame has no curve {y!r}{did_you_mean(y, curves)}")
    if isinstance(df.schema[y].inner, pl.List):
        raise ValueError(f"curve {y!r} holds a list per record; plot_run(row) draws its components")
    for key in by:
        if key not in df.columns or isinstance(df.schema[key], pl.List):
            raise UnknownName(
                f"the frame has no key {key!r}{did_you_mean(key, varying_keys(df))}; a key fixed"
                " in the whole sweep is a column with load_sweep(..., params='all')"
            )
        if key in (*_STATISTICS, *_INCOMPLETE):
            raise ValueError(f"the key {key!r} has the name of a statistic: rename the column")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no probability between 0 and 1")
