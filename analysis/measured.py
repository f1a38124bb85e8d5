"""What runs have measured: the columns and keys of a frame, final scalars over seeds, figures."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from analysis.curves import SeedStatistics, over_seeds, varying_keys

MOST_GROUPS = 20  # that are told apart in a figure


class NotMeasured(ValueError):
    """A figure or an answer needs what no run has measured, or a key that no run varies."""


def is_measured(runs: pl.DataFrame, column: str) -> bool:
    """Whether some run has it."""
    return column in runs.columns and runs[column].count() > 0


def require(runs: pl.DataFrame, *columns: str) -> None:
    """Raises NotMeasured where no run has one of them."""
    for column in columns:
        if not is_measured(runs, column):
            raise NotMeasured(f"none of the {len(runs)} runs has {column}")


def leading_keys(
    runs: pl.DataFrame, *, first: str | None = None, without: Sequence[str] = ()
) -> list[str]:
    """Keys that tell the runs apart but for the seed, `first` before the others.

    As many as make groups that a figure can tell apart; a key whose values these keys, or those of
    `without`, tell already is left out.
    """
    without = [key for key in without if key in runs.columns]
    keys: list[str] = []
    n_known = runs.select(without).n_unique() if without else 1
    for key in sorted(varying_keys(runs), key=lambda key: key != first):
        if key.split(".")[-1] == "seed" or key in without:
            continue
        n = runs.select(*without, *keys, key).n_unique()
        if n == n_known:
            continue
        if keys and runs.select(*keys, key).n_unique() > MOST_GROUPS:
            break
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


def write_figures(figures: Mapping[str, Callable], data: Any, output: Path) -> None:
    """<name>.png of each that the data allow; a line for each that they do not."""
    for name, draw in figures.items():
        try:
            axes = draw(data)
        except NotMeasured as error:
            print(f"no {name}.png: {error}", file=sys.stderr)
            continue
        figure = axes[0].figure if isinstance(axes, list) else axes.figure
        path = output / f"{name}.png"
        figure.savefig(path, dpi=150)
        plt.close(figure)
        print(f"{path}: {draw.__doc__.splitlines()[0]}")
