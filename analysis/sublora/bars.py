"""All methods and budgets side by side."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from analysis.plots import legend_of_figure
from analysis.sublora.marks import (
    BOUND_LABEL,
    BPD_LABEL,
    budget_colors,
    describe_spread,
    draw_vocab_line,
    vocab_handle,
)
from analysis.sublora.runs import BOUND, BPD, BUDGET, GAIN, METHOD, SIZE, UNIFORM, Grid

_PANELS = {
    BPD: BPD_LABEL,
    BOUND: BOUND_LABEL,
    SIZE: "size of the message (bits)",
    GAIN: "improvement of the BPD over uniform,\n100 (u - x) / u of the same seed (%)",
}
_WIDTH = 0.84  # of the bars of one method


def plot_allocations(grid: Grid) -> list[Axes]:
    """BPD, bound, size, and improvement over uniform: a bar per method and budget."""
    width = max(8.0, 2 + 0.55 * len(grid.methods) * len(grid.budgets))
    figure, axes = plt.subplots(2, 2, figsize=(2.2 + 1.4 * width, 8), layout="constrained")
    colors = budget_colors(grid)
    for ax, (measure, label) in zip(axes.flat, _PANELS.items(), strict=True):
        methods = [name for name in grid.methods if measure != GAIN or name != UNIFORM]
        for i, d in enumerate(grid.budgets):
            _draw(ax, grid, measure, methods, d, i, colors[d])
        ax.set_xticks(range(len(methods)), methods)
        ax.set_xlim(-0.6, max(len(methods), 1) - 0.4)
        ax.set(xlabel="allocation", ylabel=label)
        ax.axhline(0, color="0.2", lw=0.8)
        ax.margins(y=0.12)
        if not ax.patches:
            ax.set_yticks([])
            ax.set_title("no run beside one of uniform", size="medium")
    draw_vocab_line(axes[0, 1], grid)
    handles = [Patch(color=color, label=f"subspace.d = {d}") for d, color in colors.items()]
    counts = grid.cells["n"].to_list()
    title = describe_spread("height", [n for n in counts if n]) + _counts(grid)
    legend_of_figure(figure, title, [*handles, vocab_handle(grid)])
    return list(axes.flat)


def _draw(
    ax: Axes, grid: Grid, measure: str, methods: list[str], d: int, place: int, color: str
) -> None:
    """The bars of one budget with their means as text; 'no usable run' where there is none."""
    cells = {cell[METHOD]: cell for cell in grid.of_budget(d)}
    width = _WIDTH / len(grid.budgets)
    for i, method in enumerate(methods):
        x = i + (place - (len(grid.budgets) - 1) / 2) * width
        mean = cells.get(method, {}).get(f"{measure}_mean")
        if mean is None:
            missing = "no usable run" if method not in cells else "no uniform"
            place_of = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
            style = {"ha": "center", "va": "bottom", "size": "x-small", "color": "0.35"}
            ax.annotate(missing, (x, 0), (0, 4), rotation=90, **place_of, **style)
            continue
        std = cells[method][f"{measure}_std"]
        ax.bar(x, mean, 0.92 * width, color=color)
        if std is not None:
            ax.errorbar(x, mean, std, color="0.15", capsize=3, elinewidth=1)
        end = mean + np.copysign(std or 0, mean)
        ax.annotate(
            f"{mean:,.0f}" if measure == SIZE else f"{mean:.2f}",
            (x, end),
            (0, np.copysign(3, mean)),
            textcoords="offset points",
            ha="center",
            va="bottom" if mean >= 0 else "top",
            size="x-small",
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"},  # log2 V runs behind
        )


def _counts(grid: Grid) -> list[str]:
    """'n = 3', and a line per cell that has another n."""
    counts = [n for n in grid.cells["n"] if n]
    usual = max(set(counts), key=counts.count)
    lines = [
        f"  {cell[METHOD]}, d = {cell[BUDGET]}: {cell['n']}"
        for cell in grid.cells.rows(named=True)
        if cell["n"] != usual
    ]
    n_alone = grid.rows[GAIN].null_count()
    is_partial = 0 < n_alone < len(grid.rows)
    fewer = ["(%: of the seeds that", "uniform has too)"] if is_partial else []
    return [f"n = {usual}{', but of' if lines else ''}", *lines, *fewer]
