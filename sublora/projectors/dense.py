"""dense and dense_qr: every entry drawn; kept, or drawn anew each time."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sublora.projectors.projector import Projector
from sublora.registry import register_matrix

CHUNK_ENTRIES = 2**20  # drawn at a time; the numbers do not depend on it


class Dense(Projector):
    """P kept as `matrix`."""

    def _times(self, w: Tensor) -> Tensor:
        return self.matrix @ w

    def _times_transposed(self, v: Tensor) -> Tensor:
        return v @ self.matrix


class Regenerated(Projector):
    """N(0, 1/D) entries drawn anew, some rows at a time, in every forward and adjoint."""

    def __init__(self, rows: int, cols: int, generator: np.random.Generator):
        super().__init__(rows, cols, "mean")
        self._generator = copy.deepcopy(generator)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """(which rows, their entries float32 on the CPU) from the first row to the last."""
        rows, cols = self.shape
        generator = copy.deepcopy(self._generator)
        height = max(1, CHUNK_ENTRIES // cols)
        for start in range(0, rows, height):
            entries = generator.standard_normal((min(height, rows - start), cols))
            entries /= math.sqrt(rows)
            yield slice(start, start + len(entries)), torch.from_numpy(entries).float()

    def _times(self, w: Tensor) -> Tensor:
        return torch.cat([entries.to(w) @ w for _, entries in self.chunks()])

    def _times_transposed(self, v: Tensor) -> Tensor:
        return sum(v[rows] @ entries.to(v) for rows, entries in self.chunks())


@register_matrix("dense")
def dense(rows: int, cols: int, generator: np.random.Generator, cache_mb: float = 256) -> Projector:
    """Entries N(0, 1/D); kept when the float32 matrix takes at most cache_mb MiB."""
    regenerated = Regenerated(rows, cols, generator)
    if rows * cols * 4 > cache_mb * 2**20:
        return regenerated
    matrix = np.empty((rows, cols), np.float32)
    for part, entries in regenerated.chunks():
        matrix[part] = entries
    return Dense(rows, cols, "mean", matrix=matrix)


@register_matrix("dense_qr")
def dense_qr(rows: int, cols: int, generator: np.random.Generator) -> Projector:
    """Orthonormal columns, uniform over all such matrices."""
    return Dense(rows, cols, "exact", matrix=orthonormal(generator, rows, cols))


def orthonormal(generator: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    """Q of a Gaussian [rows, cols], R's diagonal made positive: Haar (Mezzadri 2007)."""
    q, r = np.linalg.qr(generator.standard_normal((rows, cols)))
    return q * np.sign(np.diag(r))
