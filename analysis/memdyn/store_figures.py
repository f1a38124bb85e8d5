"""The figures of a store of memdyn, for its command and for a report."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from analysis.measured import StoreFigure, captioned
from analysis.memdyn.axes import METRICS
from analysis.memdyn.figures import FIGURES, drawings
from analysis.memdyn.over_seeds import plot_over_seeds
from analysis.memdyn.runs import passage_data, runs_of, settings_of, training_summary
from analysis.runs import first_run

MAIN_SCALARS = (
    "final_memorization_rate",
    "final_novel_rate",
    "final_mean_accuracy",
    "final_mean_novel_accuracy",
)
MOST_RUNS = 50  # whose passages are read for a report


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """Of several runs the means over seeds; then those of the first run that ended well.

    Of more than 50 runs the means are of the first, and the caption says so.
    Raises ValueError where no run ended.
    """
    runs = runs_of(store)
    if len(runs) > 1:
        first = runs.head(MOST_RUNS)
        summaries = [_summary(store, run) for run in first.iter_rows(named=True)]
        [figure] = figures_over_seeds(first, summaries)
        few = f" The first {MOST_RUNS} of {len(runs):,} runs." if len(first) < len(runs) else ""
        yield figure._replace(caption=f"{figure.caption}{few}")
    run = first_run(runs)
    data = passage_data(store, run["run_id"])
    yield from captioned(figures_of_run(data, settings_of(store, run["run_id"])), run)


def figures_over_seeds(
    runs: pl.DataFrame, summaries: Sequence[pl.DataFrame]
) -> Iterator[StoreFigure]:
    """Of several runs and their `training_summary`."""
    caption = plot_over_seeds.__doc__.splitlines()[0]
    yield StoreFigure("over_seeds", caption, partial(plot_over_seeds, runs, summaries))


def figures_of_run(data: pl.DataFrame, settings: Mapping[str, float]) -> Iterator[StoreFigure]:
    """Of one run: its `passage_data`, its threshold and alpha.

    They show the first metric of METRICS that the run has; without any only those that need none.
    """
    metric = next((name for name in METRICS if name in data.columns), None)
    for name, draw in drawings(data, metric, **settings).items():
        yield StoreFigure(name, FIGURES[name].__doc__.splitlines()[0], draw)


def _summary(store: Path, run: Mapping) -> pl.DataFrame:
    data, settings = passage_data(store, run["run_id"]), settings_of(store, run["run_id"])
    return training_summary(store, run, data, settings["threshold"])
