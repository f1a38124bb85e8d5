"""Compression against fit, at one budget: the front of KL and BPD, and the bounds beside it."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from analysis.plots import legend_of_figure
from analysis.sublora.marks import (
    BOUND_LABEL,
    BPD_LABEL,
    KL_LABEL,
    cells_of,
    describe_spread,
    draw_point,
    draw_vocab_line,
    method_handles,
    method_marks,
    vocab_handle,
)
from analysis.sublora.runs import BOUND, BPD, KL, METHOD, SIZE, Grid
from analysis.sublora.statistics import dominated_by

_KB = 1 / 8192  # per bit
_GREY = "0.55"


def front_of(grid: Grid, d: int) -> dict[str, list[str]]:
    """Per method those that dominate it in the means of KL and BPD; none: it is on the front."""
    return dominated_by(
        {cell[METHOD]: (cell[f"{KL}_mean"], cell[f"{BPD}_mean"]) for cell in grid.of_budget(d)}
    )


def plot_pareto(grid: Grid, d: int) -> Axes:
    """KL and empirical BPD of each method, the ones that no other dominates joined."""
    cells = cells_of(grid, d)
    marks = method_marks(grid)
    ax = plt.subplots(figsize=(8, 4.4), layout="constrained")[1]
    by = front_of(grid, d)
    front = sorted((c[f"{KL}_mean"], c[f"{BPD}_mean"]) for c in cells if not by[c[METHOD]])
    line = {"color": _GREY, "marker": "o", "mfc": "none", "ms": 13, "lw": 1.2, "zorder": 1}
    ax.plot(*zip(*front, strict=True), **line)
    for cell in cells:
        draw_point(ax, cell, KL, BPD, **marks[cell[METHOD]])
    ax.set(xlabel=KL_LABEL, ylabel=BPD_LABEL)
    ax.set_title(f"subspace.d = {d}", size="medium")
    ax.margins(0.1)
    handles = [*method_handles(grid, cells), Line2D([], [], label="dominated by none", **line)]
    spread = describe_spread("point", [cell["n"] for cell in cells])
    legend_of_figure(ax.figure, [*spread, "smaller is better in both"], handles)
    return ax


def plot_compression(grid: Grid, d: int) -> list[Axes]:
    """BPD and bound against KL, and both against the size of the message."""
    cells = cells_of(grid, d)
    marks = method_marks(grid)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for cell in cells:
        mark = marks[cell[METHOD]]
        draw_point(axes[0], cell, KL, BPD, **mark)
        draw_point(axes[1], cell, KL, BOUND, **mark)
        draw_point(axes[2], cell, SIZE, BOUND, _KB, **mark)
        draw_point(axes[2], cell, SIZE, BPD, _KB, mfc="white", **mark)
    lines = {BOUND: {"color": _GREY, "ls": "-"}, BPD: {"color": _GREY, "ls": "--"}}
    by_size = sorted(cells, key=lambda cell: cell[f"{SIZE}_mean"])
    sizes = [_KB * cell[f"{SIZE}_mean"] for cell in by_size]
    for measure, line in lines.items():
        axes[2].plot(sizes, [c[f"{measure}_mean"] for c in by_size], lw=1.2, zorder=1, **line)
    for ax in axes[1:]:
        draw_vocab_line(ax, grid)
    _set_log_sizes(axes[2])
    axes[0].set(xlabel=KL_LABEL, ylabel=BPD_LABEL)
    axes[1].set(xlabel=KL_LABEL, ylabel=BOUND_LABEL)
    axes[2].set(xlabel="size of the message (KB of 8192 bits, log)", ylabel="bits per token")
    for ax in axes:
        ax.margins(0.1)
        ax.set_title(f"subspace.d = {d}", size="medium")
    handles = [
        *method_handles(grid, cells),
        Line2D([], [], marker="o", label="bound, by size", **lines[BOUND]),
        Line2D([], [], marker="o", mfc="white", label="empirical BPD, by size", **lines[BPD]),
        vocab_handle(grid),
    ]
    legend_of_figure(figure, describe_spread("point", [cell["n"] for cell in cells]), handles)
    return list(axes)


def _set_log_sizes(ax: Axes) -> None:
    """Plain numbers at few places: the sizes of one budget span a small part of a decade."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
