"""Runs as units: memorization and compression in the middle layer, means over seeds."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from analysis.curves import curve_names, varying_keys
from analysis.measured import is_seed
from analysis.memdyn.axes import COLORS, STYLES, set_epochs
from analysis.panels import Variant, plot_groups


def plot_over_seeds(runs: pl.DataFrame, summaries: Sequence[pl.DataFrame]) -> list[Axes]:
    """Over epochs, a line per value of the keys that are no seeds: mean over runs, t interval.

    `runs` is a frame of load_sweep, `summaries` are its runs' `training_summary`. Panels: share of
    memorized passages; nv_rel of the middle layer, if some run has it. Trained passages solid,
    novel ones dashed.
    """
    rates = {
        name: pl.Series([summary[name].to_list() for summary in summaries])
        for name in ("memorization_rate", "novel_rate")
    }
    runs = runs.with_columns(**rates)  # the runs' own are by their own thresholds
    by = [key for key in varying_keys(runs) if not is_seed(key)]
    curves = {
        "memorized passages": ("memorization_rate", "novel_rate"),
        "compression in the middle layer": ("nv_rel_trained", "nv_rel_novel"),
    }
    known = curve_names(runs)
    curves = {title: found for title, found in curves.items() if found[0] in known}
    panels = {
        title: {
            curve: Variant(group, linestyle, None if by else COLORS[group])
            for curve, (group, linestyle) in zip(names, STYLES.items(), strict=True)
        }
        for title, names in curves.items()
    }
    axes = plot_groups(runs, by, panels)
    epochs = runs["step"].explode().unique().sort().to_list()
    for ax in axes:
        set_epochs(ax, epochs)
    axes[0].set_ylim(-0.03, 1.03)
    return axes
