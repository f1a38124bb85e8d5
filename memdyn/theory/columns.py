"""Columns of a run's tables as arrays over epochs and passages."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

GROUPS = ("trained", "novel")


@dataclass(frozen=True)
class Grid:
    """Where each row of `data` belongs among layers, epochs and passages."""

    data: Any
    layers: np.ndarray  # [L] int64, ascending; 0 alone without a column `layer`
    epochs: np.ndarray  # [E] int64, ascending
    passages: np.ndarray  # [N] ids, ascending
    is_trained: np.ndarray  # [N] bool
    cells: np.ndarray  # [rows] index into [L, E, N], flattened

    def by_layer(self, name: str) -> np.ndarray:
        """A column [L, E, N], float64, nan where missing."""
        shape = len(self.layers), len(self.epochs), len(self.passages)
        values = np.full(np.prod(shape), np.nan)
        values[self.cells] = numbers(self.data, name)
        return values.reshape(shape)

    def of_layer(self, name: str, layer: int | None) -> np.ndarray:
        """A column at one layer [E, N]; None: the only one."""
        return self.by_layer(name)[_layer_index(self.layers, layer, self.data)]

    def of_passage(self, name: str) -> np.ndarray:
        """A column that is the same in all layers (accuracy, nll), [E, N]."""
        return self.by_layer(name)[0]

    def index(self, name: str, epoch: int) -> int:
        """Of an epoch. ValueError, naming the argument, when it was not measured."""
        if epoch not in self.epochs:
            measured = ", ".join(map(str, self.epochs))
            raise ValueError(f"{name}={epoch} was not measured (epochs: {measured})")
        return int(np.searchsorted(self.epochs, epoch))


@dataclass(frozen=True)
class Series:
    """A group's mean over epochs, and the passages behind it where they are known."""

    epochs: np.ndarray  # [E] int64, ascending
    means: np.ndarray  # [E]
    values: np.ndarray | None  # [E, n] of passages that have a value at every epoch; None: unknown
    sd: np.ndarray | None  # [E] over passages, ddof 1; None with less than two, or unknown


def middle_layer(layers: Any) -> int:
    """(B - 1) // 2 of the layers 0 .. B - 2 between B blocks."""
    layers = sorted(set(layers))
    return int(layers[len(layers) // 2])


def grid(data: Any) -> Grid:
    """The layers, epochs and passages of data.

    Raises ValueError for a missing column, a group other than trained and novel, and two rows of
    one epoch, passage and layer (two runs).
    """
    layers, at_layer = np.unique(_layers(data), return_inverse=True)
    epochs, at_epoch = np.unique(_epochs(data), return_inverse=True)
    passages, first, at_passage = np.unique(
        column(data, "passage_id"), return_index=True, return_inverse=True
    )
    cells = (at_layer * len(epochs) + at_epoch) * len(passages) + at_passage
    if cells.size and np.bincount(cells).max() > 1:
        raise ValueError("data has two rows of one epoch, passage and layer; give it a single run")
    return Grid(data, layers, epochs, passages, _is_trained(data)[first], cells)


def series(data: Any, name: str, layer: int | None = None) -> dict[str, Series]:
    """A column at one layer by group, both over the epochs that have a value at all.

    Passages that lack a value at one of these epochs are left out. Raises ValueError for a missing
    column, an unknown layer, several layers and none chosen, and as `grid`.
    """
    if "passage_id" not in data:
        return _mean_series(data, name, layer)
    table = grid(data)
    values = table.of_layer(name, layer)
    measured = np.isfinite(values).any(1)
    result = {}
    for group, belongs in zip(GROUPS, (table.is_trained, ~table.is_trained), strict=True):
        own = values[measured][:, belongs]
        own = own[:, np.isfinite(own).all(0)]
        n = own.shape[1]
        means = own.mean(1) if n else np.full(len(own), np.nan)
        sd = own.std(1, ddof=1) if n > 1 else None
        result[group] = Series(table.epochs[measured], means, own, sd)
    return result


def column(data: Any, name: str) -> np.ndarray:
    """A column as it is. ValueError naming the nearest one when it is missing."""
    if name in data:
        return np.asarray(data[name])
    known = sorted(getattr(data, "columns", data))
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"data has no column {name!r}{hint} (columns: {', '.join(known)})")


def numbers(data: Any, name: str) -> np.ndarray:
    """A column as float64; null is nan."""
    return column(data, name).astype(float)


def number(value: float) -> float | None:
    """None for nan and infinities: what a result says of an undefined number."""
    return float(value) if np.isfinite(value) else None


def _layer_index(layers: np.ndarray, layer: int | None, data: Any) -> int:
    known = ", ".join(map(str, layers))
    if layer is None or "layer" not in data:
        if len(layers) > 1:
            raise ValueError(f"data has layers {known}: choose one with layer=")
        return 0
    if layer not in layers:
        raise ValueError(f"layer={layer} is none of {known}")
    return int(np.searchsorted(layers, layer))


def _layers(data: Any) -> np.ndarray:
    if "layer" in data:
        return column(data, "layer").astype(np.int64)
    return np.zeros(len(column(data, "epoch")), np.int64)


def _epochs(data: Any) -> np.ndarray:
    return column(data, "epoch").astype(np.int64)


def _is_trained(data: Any) -> np.ndarray:
    if "group" not in data:
        return np.full(len(column(data, "epoch")), True)
    group = column(data, "group")
    is_trained, is_novel = group == "trained", group == "novel"
    if not (is_trained | is_novel).all():
        other = group[~(is_trained | is_novel)][0]
        raise ValueError(f"group must be trained or novel, got {other!r}")
    return is_trained


def _mean_series(data: Any, name: str, layer: int | None) -> dict[str, Series]:
    layers, at = np.unique(_layers(data), return_inverse=True)
    rows = at == _layer_index(layers, layer, data)
    epochs, means, is_trained = (
        a[rows] for a in (_epochs(data), numbers(data, name), _is_trained(data))
    )
    sd = numbers(data, "sd")[rows] if "sd" in data else None
    measured = np.unique(epochs[np.isfinite(means)])
    result = {}
    for group, belongs in zip(GROUPS, (is_trained, ~is_trained), strict=True):
        own = np.flatnonzero(belongs)
        if len(np.unique(epochs[own])) < len(own):
            raise ValueError(f"data has two rows of one epoch for group {group}, no passage_id")
        of_group = np.full(len(measured), np.nan)
        spread = np.full(len(measured), np.nan)
        for row in own[np.isin(epochs[own], measured)]:
            place = np.searchsorted(measured, epochs[row])
            of_group[place] = means[row]
            spread[place] = np.nan if sd is None else sd[row]
        result[group] = Series(measured, of_group, None, None if sd is None else spread)
    return result
