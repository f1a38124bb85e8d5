"""`python -m analysis.dln STORE... -o DIR`: every figure that the runs of a sweep of dln allow."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import matplotlib
import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from analysis.arguments import check_parent, parser_of
from analysis.curves import curve_names, key_values, varying_keys
from analysis.dln.figures import quantities_of, scalar_curves
from analysis.dln.predictions import plot_plateaus, plot_theory
from analysis.dln.spectra import HESSIAN, is_spectrum, plot_hessian_spectrum, plot_spectra
from analysis.panels import MAX_PANELS, Variant, plot_groups
from analysis.plots import plot_curves
from analysis.runs import first_run
from plugins.load import load_sweep

_LINES = 20  # most groups that are told apart
_EXAMPLES = """\
example:
  python -m analysis.dln outputs/dln/gph -o outputs/dln/gph/figures
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(
        "dln",
        "Write every figure that the runs of a sweep of dln allow.",
        _EXAMPLES,
        several=True,
        output="folder for the .png files, made if its parent is there",
    )
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    try:
        df = load_sweep(*arguments.stores, params="all", status=("ok", "diverged", "failed"))
        check_parent(arguments.output)
        arguments.output.mkdir(exist_ok=True)
        for name, draw, what in _figures(df):
            path = arguments.output / f"{name}.png"
            axes = draw()
            figure = axes[0].figure if isinstance(axes, list) else axes.figure
            figure.savefig(path, dpi=150)
            plt.close(figure)
            print(f"{path}: {what}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _figures(df: pl.DataFrame) -> Iterator[tuple[str, Callable[[], Axes | list[Axes]], str]]:
    """(file name, what draws it, what it shows) of every figure that the frame allows."""
    curves = scalar_curves(df)
    if not curves:
        raise ValueError(f"none of the {len(df)} runs has a curve")
    by = _leading_keys(df)
    runs = f"mean over runs{' by ' + ', '.join(by) if by else ''}"
    if "test_loss" in curves:
        yield "test_loss", lambda: plot_curves(df, "test_loss", by), f"test_loss, {runs}"
    if "test_loss_a" in curves:
        panels = quantities_of(df, by)
        what = f"networks a and b and their distances, {runs}"
        yield "comparative", lambda: plot_groups(df, by, panels), what
    else:
        panels = {name: {name: Variant()} for name in curves if not is_spectrum(name)}
        if 1 < len(panels) <= MAX_PANELS:
            yield "curves", lambda: plot_groups(df, by, panels), f"{len(panels)} curves, {runs}"

    for name, is_shown, draw in (
        ("spectra", is_spectrum, plot_spectra),
        (HESSIAN, HESSIAN.__eq__, plot_hessian_spectrum),
    ):
        if not (columns := [column for column in curve_names(df) if is_shown(column)]):
            continue
        measured = df.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
        if len(measured):
            row = first_run(measured)
            run = key_values({key: row[key] for key in varying_keys(df)}) or "the run"
            yield name, partial(draw, row), f"{name.replace('_', ' ')} of {run}"
    if "test_loss" not in curves:  # of two networks there is no theory
        return
    for name, draw, what in (
        ("theory", plot_theory, "test_loss and its theory"),
        ("plateaus", plot_plateaus, "test_loss and the losses of the saddles"),
    ):
        try:
            axes = draw(df, by=by)
        except ValueError as error:  # the theory holds for some runs only
            print(f"no {name}.png: {error}", file=sys.stderr)
        else:
            yield name, lambda axes=axes: axes, f"{what}, {runs}"


def _leading_keys(df: pl.DataFrame) -> list[str]:
    """The first varying keys that are no seeds, as many as make lines that are told apart."""
    keys: list[str] = []
    n_groups = 1
    for key in varying_keys(df):
        n = df.select(*keys, key).n_unique()
        if key.endswith("_seed") or n == n_groups:  # n: a key that others already tell
            continue
        if keys and n > _LINES:
            break
        keys.append(key)
        n_groups = n
    return keys


if __name__ == "__main__":
    sys.exit(main())
