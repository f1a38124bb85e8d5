"""Figures and answers of qlora_probe, from a store."""

from analysis.measured import NotMeasured
from analysis.qlora_probe.answers import paired_answers, plot_forgetting, write_generations
from analysis.qlora_probe.inside import plot_inner_view, plot_spectrum
from analysis.qlora_probe.of_training import (
    plot_drift,
    plot_grad_norm,
    plot_kl_to_base,
    plot_landscape,
    plot_line,
    plot_noise_scale,
    plot_sharpness,
)
from analysis.qlora_probe.over_runs import (
    plot_final_loss,
    plot_forgetting_over_runs,
    plot_loss_curves,
    plot_ranks,
)
from analysis.qlora_probe.report import report
from analysis.qlora_probe.runs import Run, load_run, runs_of

__all__ = [
    "NotMeasured",
    "Run",
    "load_run",
    "paired_answers",
    "plot_drift",
    "plot_final_loss",
    "plot_forgetting",
    "plot_forgetting_over_runs",
    "plot_grad_norm",
    "plot_inner_view",
    "plot_kl_to_base",
    "plot_landscape",
    "plot_line",
    "plot_loss_curves",
    "plot_noise_scale",
    "plot_ranks",
    "plot_sharpness",
    "plot_spectrum",
    "report",
    "runs_of",
    "write_generations",
]
