"""Reading stores and drawing: paths in, frames and axes out."""

from analysis.curves import SeedStatistics, over_seeds
from analysis.panels import plot_run
from analysis.plots import plot_curves
from plugins.load import load_sweep, load_sweep_config, load_table, scan_sweep

__all__ = [
    "SeedStatistics",
    "load_sweep",
    "load_sweep_config",
    "load_table",
    "over_seeds",
    "plot_curves",
    "plot_run",
    "scan_sweep",
]
