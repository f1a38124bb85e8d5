"""Figures of deep linear networks."""

from analysis.dln.figures import plot, plot_comparative, subtract_baseline
from analysis.dln.predictions import add_predictions, plot_plateaus, plot_theory
from analysis.dln.spectra import plot_hessian_spectrum, plot_spectra

__all__ = [
    "add_predictions",
    "plot",
    "plot_comparative",
    "plot_hessian_spectrum",
    "plot_plateaus",
    "plot_spectra",
    "plot_theory",
    "subtract_baseline",
]
