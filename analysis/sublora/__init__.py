"""Figures, summary and hypotheses of sublora, from a store."""

from analysis.sublora.bars import plot_allocations
from analysis.sublora.front import front_of, plot_compression, plot_pareto
from analysis.sublora.gates import plot_gate_trend, plot_gates
from analysis.sublora.hypotheses import differences, gate_tests, report, slopes
from analysis.sublora.runs import Grid, load_grid
from analysis.sublora.summary import latex, summary

__all__ = [
    "Grid",
    "differences",
    "front_of",
    "gate_tests",
    "latex",
    "load_grid",
    "plot_allocations",
    "plot_compression",
    "plot_gate_trend",
    "plot_gates",
    "plot_pareto",
    "report",
    "slopes",
    "summary",
]
