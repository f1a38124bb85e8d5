"""The figures of a store of deep linear networks, for its command and for a report."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes

from analysis.curves import curve_names, varying_keys
from analysis.dln.figures import quantities_of, scalar_curves
from analysis.dln.predictions import plot_plateaus, plot_theory
from analysis.dln.spectra import HESSIAN, is_spectrum, plot_hessian_spectrum, plot_spectra
from analysis.measured import NotMeasured, StoreFigure, leading_keys
from analysis.panels import MAX_PANELS, Variant, plot_groups, run_name
from analysis.plots import plot_curves
from analysis.runs import first_run
from plugins.load import load_sweep, scan_sweep

STATUS = ("ok", "diverged", "failed")
MAIN_SCALARS = ("final_test_loss", "final_train_loss", "final_test_loss_a", "final_test_loss_b")
MOST_RUNS = 1_000  # whose theory is computed for a report
_OF_ALL_CURVES = ("test_loss", "curves")  # a report draws every curve by itself
_OF_A_RUN = ("spectra", HESSIAN)


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """The figures that a store allows, but for those of all its curves.

    Of more than 1,000 runs the first of each group are taken, as many of each, and the captions
    say so.
    """
    df, sample = _first_of_each_group(store)
    for figure in figures_of_runs(df):
        if figure.name in _OF_ALL_CURVES:
            continue
        of_runs = "" if figure.name in _OF_A_RUN else sample
        yield figure._replace(caption=f"{figure.caption}{of_runs}.")


def figures_of_runs(df: pl.DataFrame) -> Iterator[StoreFigure]:
    """The figures that runs allow, rows of load_sweep(..., params="all").

    Raises ValueError where no run has a curve.
    """
    curves = scalar_curves(df)
    if not curves:
        raise ValueError(f"none of the {len(df)} runs has a curve")
    by = leading_keys(df)
    runs = f"mean over runs{' by ' + ', '.join(by) if by else ''}"
    if "test_loss" in curves:
        draw = partial(plot_curves, df, "test_loss", by)
        yield StoreFigure("test_loss", f"test_loss, {runs}", draw)
    if "test_loss_a" in curves:
        panels = quantities_of(df, by)
        what = f"networks a and b and their distances, {runs}"
        yield StoreFigure("comparative", what, partial(plot_groups, df, by, panels))
    else:
        panels = {name: {name: Variant()} for name in curves if not is_spectrum(name)}
        if 1 < len(panels) <= MAX_PANELS:
            draw = partial(plot_groups, df, by, panels)
            yield StoreFigure("curves", f"{len(panels)} curves, {runs}", draw)
    yield from _spectra(df)
    if "test_loss" not in curves:  # of two networks there is no theory
        return
    for name, draw, what in (
        ("theory", plot_theory, "test_loss and its theory"),
        ("plateaus", plot_plateaus, "test_loss and the losses of the saddles"),
    ):
        yield StoreFigure(name, f"{what}, {runs}", partial(_where_it_holds, draw, df, by))


def _spectra(df: pl.DataFrame) -> Iterator[StoreFigure]:
    """Of the first run that has them."""
    for name, is_shown, draw in (
        (_OF_A_RUN[0], is_spectrum, plot_spectra),
        (_OF_A_RUN[1], HESSIAN.__eq__, plot_hessian_spectrum),
    ):
        if not (columns := [column for column in curve_names(df) if is_shown(column)]):
            continue
        measured = df.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
        if len(measured):
            row = first_run(measured)
            known = {key: row[key] for key in (*varying_keys(df), "step", "run_id")}
            run = run_name(known) if varying_keys(df) else "the run"
            yield StoreFigure(name, f"{name.replace('_', ' ')} of {run}", partial(draw, row))


def _where_it_holds(draw: Callable, df: pl.DataFrame, by: Sequence[str]) -> Axes | list[Axes]:
    """NotMeasured for runs that the theory is not of."""
    try:
        return draw(df, by=by)
    except ValueError as error:
        raise NotMeasured(error) from error


def _first_of_each_group(store: Path) -> tuple[pl.DataFrame, str]:
    """At most MOST_RUNS runs with their whole configs, and what a caption says of the choice."""
    scan = scan_sweep(store, params="all", status=STATUS)
    schema = scan.collect_schema()
    curves = [name for name, dtype in schema.items() if isinstance(dtype, pl.List)]
    if "step" not in curves:
        raise ValueError("no run has a curve")
    runs = scan.drop(curves, "error").collect(engine="streaming").sort("plan", "index", "run_id")
    if len(runs) <= MOST_RUNS:
        return load_sweep(store, params="all", status=STATUS), ""
    configs = list(schema)[: list(schema).index("step")]
    runs = runs.select(*configs, pl.lit(None).alias("step"), "run_id")
    by = leading_keys(runs)
    n_groups = runs.select(by).n_unique() if by else 1
    k = max(1, MOST_RUNS // n_groups)
    first = (runs.group_by(by, maintain_order=True).head(k) if by else runs.head(k)).head(MOST_RUNS)
    chosen = scan.filter(pl.col("run_id").is_in(first["run_id"].implode()))
    df = chosen.collect(engine="streaming").sort("plan", "index", "run_id")
    of_each = f" of each {', '.join(by)}" if by else ""
    return df, f", of the first {k:,} runs{of_each} (of {len(runs):,} runs in all)"
