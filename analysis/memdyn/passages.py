"""The frame that figures draw: rows per epoch, passage and layer, their means."""

from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from analysis.curves import LEVEL
from memdyn.theory import middle_layer
from plugins.registry import UnknownName, did_you_mean


def passages_of(data: Any, *columns: str) -> pl.DataFrame:
    """epoch, passage_id, group, layer and `columns` of a mapping or frame; nan becomes null.

    Without a column group all are trained; without layer there is one, 0.
    Raises UnknownName for another column that is missing.
    """
    known = list(getattr(data, "columns", data))
    defaults = {"group": pl.lit("trained"), "layer": pl.lit(0)}
    wanted = dict.fromkeys(("epoch", "passage_id", *defaults, *columns))
    if missing := [name for name in wanted if name not in known and name not in defaults]:
        raise UnknownName(f"data has no column {missing[0]!r}{did_you_mean(missing[0], known)}")
    frame = pl.DataFrame({name: np.asarray(data[name]) for name in wanted if name in known})
    frame = frame.with_columns(**{n: x for n, x in defaults.items() if n not in known})
    return frame.with_columns(pl.col(columns).cast(pl.Float64).fill_nan(None))


def of_layer(frame: pl.DataFrame, layer: int | None) -> pl.DataFrame:
    """The rows of one layer; None: the middle one. ValueError when it is not there."""
    layers = frame["layer"].unique().sort().to_list()
    layer = middle_layer(layers) if layer is None else layer
    if layer not in layers:
        raise ValueError(f"layer={layer} is none of {', '.join(map(str, layers))}")
    return frame.filter(layer=layer)


def epochs_of(frame: pl.DataFrame) -> list[int]:
    """The measured ones, ascending."""
    return frame["epoch"].unique().sort().to_list()


def means_of(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """layer, group, epoch, n, mean, low, high: over the passages with a value, t interval.

    Sorted, trained first. low and high are nan where n = 1.
    """
    value = pl.col(column)
    means = (
        frame.drop_nulls(column)
        .group_by("layer", "group", "epoch")
        .agg(n=pl.len().cast(pl.Int64), mean=value.mean(), sd=value.std())
        .sort("layer", "group", "epoch", descending=[False, True, False])
    )
    n, sd = means["n"].to_numpy(), means["sd"].to_numpy()
    with np.errstate(invalid="ignore"):
        half = stdtrit(n - 1, (1 + LEVEL) / 2) * sd / np.sqrt(n)
    mean = means["mean"].to_numpy()
    return means.drop("sd").with_columns(low=pl.Series(mean - half), high=pl.Series(mean + half))


def n_of(means: pl.DataFrame, group: str) -> str:
    """n = 50, or n = 48 to 50 where not all passages have a value everywhere."""
    n = means.filter(group=group)["n"]
    if n.is_empty():
        return "n = 0"
    return f"n = {n.max()}" if n.min() == n.max() else f"n = {n.min()} to {n.max()}"
