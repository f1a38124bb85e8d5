"""The recursive predictor of codes beside its baselines."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from analysis.compressor.against import make_row
from analysis.compressor.runs import TRM, Store, keys_of_predictors
from analysis.curves import LEVEL, varying_keys
from analysis.measured import is_measured, parts_of, require, scalar_statistics
from analysis.plots import groups_of, legend_of_figure

METHODS = {  # in columns: on an axis
    "mean": "train\nmean",
    "copy": "copy",
    "ridge": "ridge",
    "one_pass": "one pass,\nequal\nsize",
    "equal_flops": "one pass,\nequal\ntraining",
    "trm": "recursive",
}
_SHIFT = 0.16  # between groups, of the distance of two methods


def plot_trm(store: Store) -> list[Axes]:
    """Held-out R^2 and cosine of the recursive predictor and of each baseline."""
    runs = store.finals(TRM)
    require(runs, "r2_trm", "r2_ridge")
    by = keys_of_predictors(runs)
    groups = groups_of(runs, by, styles=False)
    axes = make_row(2)
    axes[0].set_yscale("symlog", linthresh=1, linscale=3)  # a copy may have -100
    axes[0].yaxis.set_major_formatter(ScalarFormatter())
    counts = set()
    labels = {
        "r2": "$R^2$ against the train mean, held-out\n(logarithmic below -1)",
        "cos": "mean cosine, held-out",
    }
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        for i, group in enumerate(groups.values()):
            shift = _SHIFT * (i - (len(groups) - 1) / 2)
            _, part = list(parts_of(runs, by))[i]
            counts |= _draw(ax, part, name, np.arange(len(METHODS)) + shift, group.color)
        ax.set_xticks(range(len(METHODS)), list(METHODS.values()), size="small")
        ax.set(xlabel="method", ylabel=label)
        ax.grid(axis="y", lw=0.4)
    axes[0].axhline(0, color="0.3", lw=0.8)
    n = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    title = ["point: a run"]
    if max(counts) > 1:
        differ = ", ".join(varying_keys(runs, by))
        title += [f"bar: mean of {n} runs (they differ", f"in {differ}), with its"]
        title += [f"{100 * LEVEL:g} % t interval"]
    handles = [
        Line2D([], [], color=group.color, marker="o", ls="none", ms=5, label=group.name)
        for group in groups.values()
    ]
    keys = [f"{', '.join(by)}:"] if by else []
    legend_of_figure(axes[0].figure, title + keys, handles)
    return axes


def _draw(ax: Axes, runs: pl.DataFrame, name: str, places: np.ndarray, color: str) -> set[int]:
    """Points, and mean and interval of several; how many runs there are at each method."""
    counts = set()
    for place, method in zip(places, METHODS, strict=True):
        column = f"{name}_{method}"
        if not is_measured(runs, column):
            continue
        values = runs[column].drop_nulls()
        counts.add(len(values))
        ax.plot([place] * len(values), values, "o", ms=5, mfc="none", color=color)
        [point] = scalar_statistics(runs, column, []).curves.iter_rows(named=True)
        if point["n"] > 1:
            half = point["high"] - point["mean"]
            style = {"color": color, "marker": "_", "ms": 12, "capsize": 4}
            ax.errorbar([place], [point["mean"]], [half], **style)
    return counts
