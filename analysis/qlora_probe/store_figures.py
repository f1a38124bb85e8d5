"""The figures of a store of qlora_probe, for its command and for a report."""

from collections.abc import Iterator
from pathlib import Path

from analysis.measured import StoreFigure, captioned, figures_of
from analysis.qlora_probe.answers import plot_forgetting
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
from analysis.qlora_probe.runs import load_run, runs_of

MAIN_SCALARS = ("final_eval_loss", "min_loss", "final_kl_to_base", "forgetting_change")
OVER_RUNS = {  # file name -> what draws a frame of runs
    "loss_curves": plot_loss_curves,
    "final_loss": plot_final_loss,
    "ranks": plot_ranks,
    "forgetting_over_runs": plot_forgetting_over_runs,
}
OF_A_RUN = {  # file name -> what draws one run
    "forgetting": plot_forgetting,
    "grad_norm": plot_grad_norm,
    "sharpness": plot_sharpness,
    "noise_scale": plot_noise_scale,
    "landscape": plot_landscape,
    "line": plot_line,
    "kl_to_base": plot_kl_to_base,
    "drift": plot_drift,
    "spectrum": plot_spectrum,
    "inner_view": plot_inner_view,
}


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """Those over all runs, then those of the first run that ended well.

    Raises ValueError where no run ended.
    """
    yield from figures_of(OVER_RUNS, runs_of(store))
    run = load_run(store)
    yield from captioned(figures_of(OF_A_RUN, run), run.row)
