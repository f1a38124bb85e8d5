"""How methods and budgets are drawn, and what a legend says of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.measured import NotMeasured
from analysis.plots import line_colors
from analysis.sublora.runs import Grid

_MARKERS = "os^Dvp"
KL_LABEL = "KL (nats)"
BPD_LABEL = "empirical BPD (bits per token)"
BOUND_LABEL = "bound (bits per token)"


def method_marks(grid: Grid) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, the same in all figures of a grid."""
    colors = line_colors(len(grid.methods), False)
    return {
        method: {"color": color, "marker": marker}
        for method, color, marker in zip(grid.methods, colors, cycle(_MARKERS), strict=False)
    }


def budget_colors(grid: Grid) -> dict[int, Any]:
    """The smaller of two is blue, the larger red."""
    return dict(zip(grid.budgets, line_colors(len(grid.budgets), False), strict=True))


def cells_of(grid: Grid, d: int) -> list[dict[str, Any]]:
    """The cells of a budget that have a run; NotMeasured where there are none."""
    cells = grid.of_budget(d)
    if not cells:
        raise NotMeasured(f"no usable run has subspace.d={d}")
    return cells


def draw_point(
    ax: Axes, cell: Mapping[str, Any], x: str, y: str, scale: float = 1, **style: Any
) -> None:
    """The cell's means, a bar of a standard deviation to each side; x is multiplied by scale."""
    std = cell[f"{x}_std"]
    ax.errorbar(
        scale * cell[f"{x}_mean"],
        cell[f"{y}_mean"],
        xerr=None if std is None else scale * std,
        yerr=cell[f"{y}_std"],
        **{"linestyle": "none", "markersize": 6, "elinewidth": 1, "capsize": 3, **style},
    )


def draw_vocab_line(ax: Axes, grid: Grid) -> None:
    """log2 V: what a uniform guess costs; a bound from there on says nothing."""
    level = math.log2(grid.vocab)
    ax.axhline(level, color="0.2", linestyle=(0, (1, 1.5)), linewidth=1.2)
    ax.annotate(
        r"$\log_2 V$",
        xy=(1, level),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        size="small",
    )


def vocab_handle(grid: Grid) -> Line2D:
    label = rf"$\log_2 V$ = {math.log2(grid.vocab):.4g} (V = {grid.vocab:,}): vacuous from here"
    return Line2D([], [], color="0.2", linestyle=(0, (1, 1.5)), linewidth=1.2, label=label)


def method_handles(grid: Grid, cells: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    """'fixed_0.2 (n = 3)'"""
    marks = method_marks(grid)
    return [
        Line2D([], [], linestyle="none", label=f"{name} (n = {cell['n']})", **marks[name])
        for cell in cells
        for name in [cell["allocation.name"]]
    ]


def describe_spread(what: str, counts: Iterable[int]) -> list[str]:
    """Lines of a legend's title: what is drawn per cell, of `counts` seeds."""
    counts = set(counts)
    if max(counts) == 1:
        return [f"{what}: a single seed"]
    last = "(divisor n - 1; none if n = 1)" if 1 in counts else "(divisor n - 1)"
    return [f"{what}: mean over n seeds", "bar: +- standard deviation", last]
