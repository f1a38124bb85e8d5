"""Final numbers against D': means over seeds, with what is drawn beside the trained compressor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.compressor.runs import INIT_FROM
from analysis.curves import LEVEL, value_text, varying_keys
from analysis.measured import is_measured, parts_of, scalar_statistics
from analysis.plots import Group, groups_of, legend_of_figure, set_log, spans_decade

_BESIDE_STYLES = {  # what is drawn beside; a marker where it is a single point
    "PCA": {"linestyle": "--", "marker": "s"},
    "random projector": {"linestyle": ":", "marker": "^"},
    "mean state alone": {"linestyle": "-.", "marker": "D", "linewidth": 1},
}
_STYLES = ({"ls": "-"}, {"ls": ":", "mfc": "white"})  # of a panel's columns
_DARK = "0.25"
_MOST_TICKS = 8


@dataclass(frozen=True)
class Panel:
    """One quantity against D'.

    trained: columns of the compressor, and their names where there are several (solid, dotted).
    beside: columns and what they are the numbers of, a key of _BESIDE_STYLES.
    linear_below: the axis is logarithmic down to this value and linear below; None: linear, but
    logarithmic for numbers that span a factor of ten and are no shares.
    """

    label: str
    trained: Mapping[str, str]
    beside: Mapping[str, str] = field(default_factory=dict)
    linear_below: float | None = None


def plot_against(runs: pl.DataFrame, panels: Sequence[Panel], by: Sequence[str]) -> list[Axes]:
    """A panel each in a new figure, x the column k on a log axis; a line per value of `by`.

    A point is the mean over the runs with its k, its bar their t interval. What is drawn beside is
    grey where all lines share it, else in their colours.
    """
    groups = groups_of(runs, by, styles=False)
    axes = make_row(len(panels))
    counts: set[int] = set()
    kinds: dict[str, Any] = {}
    for ax, panel in zip(axes, panels, strict=True):
        for column, style in zip(panel.trained, _STYLES, strict=False):
            for values, points in _points(runs, column, by):
                counts |= set(points["n"])
                _draw(ax, points, groups[values].color, style)
        for column, kind in panel.beside.items():
            if is_measured(runs, column):
                is_point = runs[column, "k"].drop_nulls()["k"].n_unique() == 1
                kinds[kind] = _BESIDE_STYLES[kind] | ({} if is_point else {"marker": None})
                _draw_beside(ax, _points(runs, column, by), groups, kinds[kind])
        _set_scales(ax, runs, panel)
        if len(panel.trained) > 1:
            _name_columns(ax, panel.trained.values())
    handles = [
        Line2D([], [], color=group.color, marker="o", ms=4, label=group.name if by else "trained")
        for group in groups.values()
    ]
    handles += [
        Line2D([], [], color=_DARK, mfc="none", label=kind, **style)
        for kind, style in kinds.items()
    ]
    title = _describe(runs, [*by, "k"], counts)
    keys = [f"{', '.join(by)}:"] if by else []
    legend_of_figure(axes[0].figure, title + keys, handles)
    return axes


def make_row(n: int) -> list[Axes]:
    """`n` axes side by side in a new figure, with room for a legend."""
    size = (3.6 + 3.9 * n, 3.7)
    return list(plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False)[1].flat)


def _points(runs: pl.DataFrame, column: str, by: Sequence[str]) -> list[tuple[tuple, pl.DataFrame]]:
    """k, n, mean, low, high by the values of `by`; a point per k that has the column."""
    points = scalar_statistics(runs, column, [*by, "k"]).curves
    return [(tuple(values.values()), part) for values, part in parts_of(points, by)]


def _draw(ax: Axes, points: pl.DataFrame, color: Any, style: Mapping[str, str]) -> None:
    k, mean, low, high = points.sort("k").select("k", "mean", "low", "high").to_numpy().T
    bars = np.nan_to_num([mean - low, high - mean])  # 0 of a single run
    common = {"marker": "o", "ms": 4, "lw": 1.5, "capsize": 3, "elinewidth": 1}
    ax.errorbar(k, mean, bars, color=color, **common, **style)


def _draw_beside(
    ax: Axes,
    lines: Sequence[tuple[tuple, pl.DataFrame]],
    groups: Mapping[tuple, Group],
    style: Mapping[str, Any],
) -> None:
    own = {values: points.sort("k").select("k", "mean").rows() for values, points in lines}
    longest = max(own.values(), key=len)
    if all(set(points) <= set(longest) for points in own.values()):
        own = {None: longest}
    for values, points in own.items():
        color = groups[values].color if values is not None else _DARK
        ax.plot(*zip(*points, strict=True), color=color, mfc="none", zorder=3, **style)


def _set_scales(ax: Axes, runs: pl.DataFrame, panel: Panel) -> None:
    ranks = runs["k"].drop_nulls().unique().sort().to_list()
    dims = runs["dim"].drop_nulls().unique().to_list()
    ax.set_xscale("log", base=2)
    if len(ranks) <= _MOST_TICKS:
        ratios = [f"\n{value_text(dims[0] / k, 3)}x" if len(dims) == 1 else "" for k in ranks]
        ax.set_xticks(ranks, [f"{k}{ratio}" for k, ratio in zip(ranks, ratios, strict=True)])
        ax.set_xticks([], minor=True)
    of = f", below it $D/D'$ ($D$ = {dims[0]})" if len(dims) == 1 else ""
    ax.set_xlabel(f"$D'$ (dimensions){of}", size="small")
    if len(ranks) == 1:
        ax.set_xlim(ranks[0] / 2, ranks[0] * 2)
    ax.set_ylabel(panel.label, size="small")
    if panel.linear_below is not None:
        set_log_above(ax, panel.linear_below)
    elif spans_decade(drawn := _drawn(ax)) and drawn.max() > 1:  # shares stay linear
        set_log(ax)


def set_log_above(ax: Axes, linear_below: float) -> None:
    """A logarithmic y axis; linear below `linear_below`, around 0, where lines come there.

    Bars and bands that reach below all lines are cut.
    """
    drawn = _drawn(ax)
    lowest = drawn.min()
    if lowest > linear_below:
        set_log(ax)
        return
    ax.set_yscale("symlog", linthresh=linear_below)
    highest = max(drawn.max(), linear_below)
    ax.set_ylim(2 * min(lowest, -linear_below / 4), 2 * highest)
    ax.axhline(0, color="0.6", lw=0.6, zorder=0)


def _drawn(ax: Axes) -> np.ndarray:
    """The finite heights of all lines."""
    lines = [line for line in ax.lines if line.get_marker() != "_"]  # no caps
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines])
    return heights[np.isfinite(heights)]


def _name_columns(ax: Axes, names: Sequence[str]) -> None:
    """A legend of its own for a panel of two columns."""
    lines = [
        Line2D([], [], color=_DARK, marker="o", ms=4, label=name, **style)
        for name, style in zip(names, _STYLES, strict=True)
    ]
    ax.legend(handles=lines, fontsize="small")


def _describe(runs: pl.DataFrame, by: Sequence[str], counts: set[int]) -> list[str]:
    if counts <= {1}:
        return ["point: a single run"]
    n = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    differ = [key for key in varying_keys(runs, by) if key != INIT_FROM]
    title = [f"point: mean of {n} runs", f"(they differ in {', '.join(differ)})"]
    return [*title, f"bar: {100 * LEVEL:g} % t interval of the mean"]
