"""The figures of a store of compressor, for its command and for a report."""

from collections.abc import Iterator
from pathlib import Path

from analysis.compressor.methods import plot_trm
from analysis.compressor.of_a_run import plot_mode_strength, plot_spectrum
from analysis.compressor.over_runs import (
    plot_downstream,
    plot_gap,
    plot_nested,
    plot_reconstruction,
    plot_stage_1b,
)
from analysis.compressor.runs import load_run, load_store
from analysis.measured import StoreFigure, captioned, figures_of

MAIN_SCALARS = ("mse_heldout", "gap_pca_heldout", "cos_heldout", "delta_nll", "r2_trm", "nll_trm")
OVER_RUNS = {  # file name -> what draws a store
    "reconstruction": plot_reconstruction,
    "gap": plot_gap,
    "downstream": plot_downstream,
    "nested": plot_nested,
    "stage_1b": plot_stage_1b,
    "trm": plot_trm,
}
OF_A_RUN = {  # file name -> what draws one run
    "mode_strength": plot_mode_strength,
    "spectrum": plot_spectrum,
}


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """Those over all runs, then those of the first compressor that ended well.

    Raises NotMeasured where no compressor ended.
    """
    runs = load_store(store)
    yield from figures_of(OVER_RUNS, runs)
    run = load_run(runs)
    yield from captioned(figures_of(OF_A_RUN, run), run.row)
