"""What runs have measured: the columns and keys of a frame, final scalars over seeds, figures."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves import SeedStatistics, over_seeds, varying_keys
from analysis.panels import run_name

MOST_GROUPS = 20  # that are told apart in a figure


class NotMeasured(ValueError):
    """A figure or an answer needs what no run has measured, or a key that no run varies."""


class StoreFigure(NamedTuple):
    """A figure that a store may have: its file name, one sentence on it, and what draws it.

    `draw` raises NotMeasured where the runs lack what it needs.
    """

    name: str
    caption: str
    draw: Callable[[], Axes | list[Axes]]


def is_measured(runs: pl.DataFrame, column: str) -> bool:
    """Whether some run has it."""
    return column in runs.columns and runs[column].count() > 0


def require(runs: pl.DataFrame, *columns: str) -> None:
    """Raises NotMeasured where no run has one of them."""
    for column in columns:
        if not is_measured(runs, column):
            raise NotMeasured(f"none of the {len(runs)} runs has {column}")


def is_seed(key: str) -> bool:
    """Whether runs that differ in this key alone are repetitions: `seed`, `data.data_seed`."""
    name = key.split(".")[-1]
    return name == "seed" or name.endswith("_seed")


def leading_keys(
    runs: pl.DataFrame, *, first: str | None = None, without: Sequence[str] = ()
) -> list[str]:
    """Keys that tell the runs apart but for the seeds, `first` before the others.

    A key is left out with which the groups were more than a figure can tell apart, and one whose
    values these keys, or those of `without`, tell already.
    """
    without = [key for key in without if key in runs.columns]
    keys: list[str] = []
    n_known = runs.select(without).n_unique() if without else 1
    for key in sorted(varying_keys(runs), key=lambda key: key != first):
        if is_seed(key) or key in without:
            continue
        n = runs.select(*without, *keys, key).n_unique()
        if n == n_known:
            continue
        if keys and runs.select(*keys, key).n_unique() > MOST_GROUPS:
            continue
        keys.append(key)
        n_known = n
    return keys


def parts_of(
    frame: pl.DataFrame, by: Sequence[str]
) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """The values of the keys and the rows that have them, sorted; all rows without keys."""
    if not by:
        yield {}, frame
        return
    for values, part in frame.sort(by, nulls_last=True).group_by(by, maintain_order=True):
        yield dict(zip(by, values, strict=True)), part


def scalar_statistics(runs: pl.DataFrame, y: str, by: Sequence[str]) -> SeedStatistics:
    """`over_seeds` of a scalar: a curve of one point, at step 0."""
    value = pl.col(y).cast(pl.Float64).fill_null(np.nan)
    cells = runs.with_columns(pl.concat_list(value).alias(y), step=pl.concat_list(pl.lit(0)))
    return over_seeds(cells, y, by)


def figures_of(draws: Mapping[str, Callable], data: Any) -> Iterator[StoreFigure]:
    """A figure per name -> function of `data`; its caption is the first line of the docstring."""
    for name, draw in draws.items():
        yield StoreFigure(name, draw.__doc__.splitlines()[0], partial(draw, data))


def captioned(figures: Iterable[StoreFigure], row: Mapping[str, Any]) -> Iterator[StoreFigure]:
    """Figures of one run, whose captions then name it; `row` is its row of load_sweep."""
    keys = run_name(row)
    name = row["run_id"] if not keys or keys.endswith(row["run_id"]) else f"{row['run_id']}, {keys}"
    for figure in figures:
        yield figure._replace(caption=f"{figure.caption.rstrip('.')} (run {name}).")


def figure_of(axes: Axes | list[Axes]) -> Figure:
    """The figure that a StoreFigure has drawn."""
    return axes[0].figure if isinstance(axes, list) else axes.figure


def write_figures(figures: Iterable[StoreFigure], output: Path) -> None:
    """<name>.png of each that the data allow; a line for each that they do not."""
    for name, caption, draw in figures:
        try:
            figure = figure_of(draw())
        except NotMeasured as error:
            print(f"no {name}.png: {error}", file=sys.stderr)
            continue
        path = output / f"{name}.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
        print(f"{path}: {caption}")
