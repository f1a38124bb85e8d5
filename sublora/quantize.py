"""Quantisation of the coordinates: K float16 levels and the level of each coordinate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ROUNDS = 100


@dataclass(frozen=True)
class Quantized:
    """codebook float16 [K], symbols int64 [d] in 0..K-1."""

    codebook: NDArray
    symbols: NDArray

    @property
    def values(self) -> NDArray:
        """What the decoder gets, float32 [d]."""
        return self.codebook.astype(np.float32)[self.symbols]


def quantize(w: NDArray, n_levels: int, method: str) -> Quantized:
    """w [d] on n_levels levels of METHODS, rounded to float16, each coordinate to its nearest.

    Raises ValueError when w is not finite or a level is too large for float16.
    """
    w = np.asarray(w, dtype=np.float64)
    if not np.isfinite(w).all():
        raise ValueError(f"{np.sum(~np.isfinite(w))} of {len(w)} coordinates are not finite")
    return on_levels(w, METHODS[method](w, n_levels))


def on_levels(w: NDArray, levels: NDArray) -> Quantized:
    """w [d] on given levels [K]: these rounded to float16 first, then each coordinate's nearest.

    Raises ValueError when a level is too large for float16.
    """
    with np.errstate(over="ignore"):
        codebook = np.asarray(levels).astype(np.float16)
    if not np.isfinite(codebook).all():
        raise ValueError(
            f"a level of {np.abs(levels).max():g} does not fit float16 (at most 65504): "
            "the coordinates are too large"
        )
    return Quantized(codebook, nearest(w, codebook))


def nearest(w: NDArray, levels: NDArray) -> NDArray:
    """Index of the level [K] nearest to each of w [d], int64; ties, also of equal levels: lower."""
    distinct, first = np.unique(np.asarray(levels, dtype=np.float64), return_index=True)
    midpoints = (distinct[1:] + distinct[:-1]) / 2
    return first[np.searchsorted(midpoints, np.asarray(w, dtype=np.float64), side="left")]


def _uniform(w: NDArray, n_levels: int) -> NDArray:
    """Means of w in n_levels equal bins of [-a, a], a = max |w|; an empty bin's is its centre."""
    a = np.abs(w).max()
    edges = np.linspace(-a, a, n_levels + 1)
    bins = np.searchsorted(edges[1:-1], w, side="left")
    return _means(w, bins, (edges[1:] + edges[:-1]) / 2)


def _kmeans(w: NDArray, n_levels: int) -> NDArray:
    """Lloyd's rounds from the quantiles (k + 1/2) / K until no level moves, 100 at most."""
    levels = np.quantile(w, (np.arange(n_levels) + 0.5) / n_levels)
    for _ in range(MAX_ROUNDS):
        before, levels = levels, _means(w, nearest(w, levels), levels)
        if np.array_equal(before, levels):
            break
    return levels


def _means(w: NDArray, symbols: NDArray, empty: NDArray) -> NDArray:
    """Mean of the members of each level [K]; that of one without members is its `empty`."""
    members = np.bincount(symbols, minlength=len(empty))
    sums = np.bincount(symbols, weights=w, minlength=len(empty))
    return np.where(members > 0, sums / np.maximum(members, 1), empty)


METHODS: dict[str, Callable[[NDArray, int], NDArray]] = {"uniform": _uniform, "kmeans": _kmeans}
