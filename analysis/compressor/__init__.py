"""Figures and answers of compressor, from a store."""

from analysis.compressor.methods import plot_trm
from analysis.compressor.of_a_run import plot_mode_strength, plot_spectrum
from analysis.compressor.over_runs import (
    plot_downstream,
    plot_gap,
    plot_nested,
    plot_reconstruction,
    plot_stage_1b,
)
from analysis.compressor.report import report
from analysis.compressor.runs import Run, Store, load_run, load_store
from analysis.measured import NotMeasured

__all__ = [
    "NotMeasured",
    "Run",
    "Store",
    "load_run",
    "load_store",
    "plot_downstream",
    "plot_gap",
    "plot_mode_strength",
    "plot_nested",
    "plot_reconstruction",
    "plot_spectrum",
    "plot_stage_1b",
    "plot_trm",
    "report",
]
