"""Figures that every family shares: curves over seeds, and all curves of one run."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.curves import (
    SeedStatistics,
    config_values,
    key_values,
    over_seeds,
    value_text,
    varying_keys,
)

# Okabe & Ito (2008) without yellow and black: told apart by colour-blind readers.
_QUALITATIVE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LEGEND_ROWS = 20
_CROSS = {"marker": "x", "markersize": 7, "markeredgewidth": 1.8, "linestyle": "none"}


def plot_curves(
    df: pl.DataFrame,
    y: str,
    by: str | Sequence[str] = (),
    ax: Axes | None = None,
    logy: bool | None = None,
    level: float = 0.95,
) -> Axes:
    """Curve `y` against step, a line per value of the key(s) `by`: mean over runs and t interval.

    The legend says what is averaged, what the band means, and per line the number of runs and how
    many of them diverged, failed or ended early; a line of one run has no band. A cross stands on
    the line where a diverged run's records end. Without `by` all runs make one line.
    Numeric keys run from dark to light. `logy` None: logarithmic when the means are positive and
    span a factor of ten. `ax` None: a new figure, legend beside the axes. Saves nothing.
    Raises as over_seeds does, and ValueError when no run has a record of `y`.
    """
    by = [by] if isinstance(by, str) else list(by)
    statistics = over_seeds(df, y, by, level)
    if statistics.curves.is_empty():
        raise ValueError(f"none of the {len(df)} runs has a record of {y!r}")
    lines = _by_values(statistics.curves, by)
    incomplete = _by_values(statistics.incomplete, by)
    names = _names(list(lines | incomplete))
    is_own_figure = ax is None
    if is_own_figure:
        height = max(4.5, 1.4 + 0.2 * min(len(names), _LEGEND_ROWS))
        ax = plt.subplots(figsize=(8, height), layout="constrained")[1]
    is_ordered = bool(by) and all(df.schema[key].is_numeric() for key in by)
    colors = iter(_colors(len(lines), is_ordered))
    handles = []
    for values, name in names.items():
        missing = incomplete.get(values, statistics.incomplete.clear())
        if values in lines:
            curve, color = lines[values], next(colors)
            entry = _entry(name, curve["n_runs"][0], missing)
            handles.append(_draw_mean(ax, curve, color, entry))
            _draw_crosses(ax, curve, missing, color)
        else:
            entry = _entry(name, len(missing), missing, "no record")
            handles.append(Line2D([], [], linestyle="none", label=entry))

    if logy or (logy is None and _spans_decade(statistics.curves["mean"].to_numpy())):
        ax.set_yscale("log")
        _limit_log_bottom(ax)
    ax.set(xlabel="step", ylabel=y)
    ax.xaxis.get_major_locator().set_params(integer=True)
    _draw_legend(ax, df, by, statistics, handles, level, is_own_figure)
    return ax


def plot_run(row: Mapping[str, Any] | pl.DataFrame | Any) -> list[Axes]:
    """All curves of one run, a panel each, in a new figure; returns the panels in curve order.

    `row` is a row of a frame of load_sweep (`df.row(0, named=True)`, or a frame of one row) or
    anything with `.curves` (name -> values, "step" among them), as plugins.api.run returns.
    A curve with a list per record is drawn as a line per component, the first one darkest. nan
    records (not measured) are skipped; a panel is logarithmic when its values are positive and
    span a factor of ten; the curves of a diverged run end in a cross.
    Raises ValueError for a frame of several rows and for a run without curves.
    """
    title, curves, status = _read_run(row)
    step = np.asarray(curves.pop("step"))
    if status == "diverged":
        title = f"{title} (diverged after step {step[-1]})".strip()
    n_columns = min(3, math.ceil(math.sqrt(len(curves))))
    n_rows = math.ceil(len(curves) / n_columns)
    figure, panels = plt.subplots(
        n_rows,
        n_columns,
        figsize=(0.6 + 3.8 * n_columns, 0.7 + 2.7 * n_rows),
        layout="constrained",
        squeeze=False,
        sharex=True,
    )
    panels = list(panels.flat)
    for ax, (name, values) in zip(panels, curves.items(), strict=False):
        _draw_curve(ax, name, step, np.asarray(values, np.float64), status == "diverged")
    for ax in panels[len(curves) :]:
        ax.remove()
    panels = panels[: len(curves)]
    for ax in panels:
        ax.tick_params(labelbottom=True)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in panels[-n_columns:]:
        ax.set_xlabel("step")
    figure.suptitle("\n".join(textwrap.wrap(title, 45 * n_columns)), fontsize="medium")
    return panels


def _by_values(frame: pl.DataFrame, by: Sequence[str]) -> dict[tuple, pl.DataFrame]:
    """The rows of each group under its values, in the frame's order."""
    if not by:
        return {(): frame} if len(frame) else {}
    return dict(frame.group_by(by, maintain_order=True))


def _names(groups: Sequence[tuple]) -> dict[tuple, str]:
    """The groups' texts: floats with four digits, or exact where four make two groups alike."""
    for digits in (4, None):
        texts = [", ".join(value_text(v, digits) for v in g) or "all runs" for g in groups]
        if len(set(texts)) == len(texts):
            break
    return dict(zip(groups, texts, strict=True))


def _entry(name: str, n_runs: int, incomplete: pl.DataFrame, *more: str) -> str:
    """A line's text in the legend: '1.5 (n = 20, 2 diverged)'."""
    status = incomplete["status"].to_list()
    words = {"diverged": "diverged", "failed": "failed", "ok": "ended early"}
    counts = [f"{status.count(s)} {word}" for s, word in words.items() if s in status]
    return f"{name} ({', '.join([f'n = {n_runs}', *counts, *more])})"


def _draw_legend(
    ax: Axes,
    df: pl.DataFrame,
    by: Sequence[str],
    statistics: SeedStatistics,
    handles: list[Line2D],
    level: float,
    is_own_figure: bool,
) -> None:
    """What line, band and cross mean, and the groups; beside the axes if the figure is ours."""
    averaged = [key for key in varying_keys(df) if key not in by]
    over = f" (they differ in {', '.join(averaged)})" if averaged else ""
    what = f"line: mean over the runs that have the step{over}"
    if statistics.curves["n_runs"].max() == 1:
        what = "line: a single run"
    title = textwrap.wrap(what, 42)
    if statistics.curves["high"].is_not_null().any():
        title.append(f"band: {100 * level:g} % t interval of the mean")
    if len(handles) > _LEGEND_ROWS:
        title.append(f"{_LEGEND_ROWS} of the {len(handles)} groups are listed")
        listed = np.linspace(0, len(handles) - 1, _LEGEND_ROWS).round().astype(int)
        handles = [handles[i] for i in listed]
    if by:
        title.append(f"{', '.join(by)}:")
    if (statistics.incomplete["status"] == "diverged").any():
        handles = [*handles, Line2D([], [], color="0.3", label="a run diverged here", **_CROSS)]
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    ax.legend(
        handles=handles,
        title="\n".join(title),
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        **(beside if is_own_figure else {}),
    )


def _colors(n: int, is_ordered: bool) -> list:
    if is_ordered or n > len(_QUALITATIVE):
        # Up to 0.82: the yellow end of viridis is lost on paper.
        return list(plt.get_cmap("viridis")(np.linspace(0, 0.82, n)))
    return list(_QUALITATIVE[:n])


def _draw_mean(ax: Axes, curve: pl.DataFrame, color: Any, label: str) -> Line2D:
    step, mean, low, high = curve.select("step", "mean", "low", "high").to_numpy().T
    marker = "o" if len(step) == 1 else None
    (line,) = ax.plot(step, mean, color=color, label=label, marker=marker, linewidth=1.6)
    if np.isfinite(high).any():
        ax.fill_between(step, low, high, color=color, alpha=0.2, linewidth=0)
    return line


def _draw_crosses(ax: Axes, curve: pl.DataFrame, incomplete: pl.DataFrame, color: Any) -> None:
    """A cross on the mean at the last record of each diverged run."""
    last = incomplete.filter(pl.col("status") == "diverged")["last_step"].drop_nulls().unique()
    ends = curve.filter(pl.col("step").is_in(last.implode()))
    if len(ends):
        ax.plot(ends["step"], ends["mean"], color=color, zorder=3, **_CROSS)


def _spans_decade(values: np.ndarray) -> bool:
    """Whether the finite values are positive and span a factor of ten."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() >= 10 * finite.min()


def _limit_log_bottom(ax: Axes) -> None:
    """Keep intervals that reach down to 0 from stretching a log axis over many decades."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    lowest = drawn[drawn > 0].min(initial=np.inf)
    if ax.get_ylim()[0] < lowest / 10 < np.inf:
        ax.set_ylim(bottom=lowest / 10, auto=True)


def _read_run(row: Mapping[str, Any] | pl.DataFrame | Any) -> tuple[str, dict, str]:
    """Title, curves with "step" first, and status of a run in any form that plot_run takes."""
    if isinstance(row, pl.DataFrame):
        if len(row) != 1:
            raise ValueError(f"plot_run draws one run, the frame has {len(row)} rows")
        row = row.row(0, named=True)
    if isinstance(row, Mapping):
        title = key_values(config_values(row)) or f"run {row.get('run_id', '')}"
        status, error, columns = row.get("status", "ok"), row.get("error"), list(row.items())
        if row.get("step") is not None:
            columns = columns[list(row).index("step") :]
    else:
        title, status, error = "", getattr(row, "status", "ok"), None
        columns = row.curves.items()
    columns = {name: value for name, value in columns if value is not None}
    if "step" not in columns:
        why = f": {error.strip().splitlines()[-1]}" if error else ""
        raise ValueError(f"{title or 'the run'} ({status}) has no curves{why}")
    step = columns.pop("step")
    curves = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list | tuple | np.ndarray) and len(values) == len(step)
    }
    if not curves or not len(step):
        raise ValueError(f"{title or 'the run'} ({status}) has no curve but 'step'")
    return title, {"step": step, **curves}, status


def _draw_curve(ax: Axes, name: str, step: np.ndarray, values: np.ndarray, diverged: bool) -> None:
    """One curve [steps], or a line per component of [steps, k], in its panel."""
    components = values.reshape(len(step), -1).T
    for component, color in zip(
        components, _colors(len(components), len(components) > 1), strict=True
    ):
        measured = ~np.isnan(component)
        x, y = step[measured], component[measured]
        marker = "o" if len(x) == 1 else None
        ax.plot(x, y, color=color, linewidth=1.4, marker=marker)
        if diverged and len(x):
            ax.plot(x[-1:], y[-1:], color=color, zorder=3, **_CROSS)
    k = f" ({len(components)} components, first darkest)" if len(components) > 1 else ""
    ax.set_title(name + k, fontsize="medium")
    if _spans_decade(values):
        ax.set_yscale("log")
