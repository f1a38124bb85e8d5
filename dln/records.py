"""Records of a stack: which steps are recorded, and the curves of each replica."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def record_steps(max_steps: int, num_evaluations: int) -> list[int]:
    """{0, e, 2e, ... < max_steps} and max_steps, e = max(1, ceil(max_steps / num_evaluations))."""
    every = max(1, math.ceil(max_steps / num_evaluations))
    return [*range(0, max_steps, every), max_steps]


class Recorder:
    """Columns [records, R] or [records, R, k] of a stack that replicas may leave."""

    def __init__(self, n_records: int, replicas: int, dtype: torch.dtype):
        self.replicas = replicas
        self._n_records, self._dtype = n_records, dtype
        self._columns: dict[str, np.ndarray] = {}
        self._steps: list[int] = []
        self._lengths = np.zeros(replicas, dtype=np.int64)

    def add(self, step: int, alive: np.ndarray, values: Mapping[str, Tensor]) -> None:
        """One record; values [len(alive)] or [len(alive), k] of the replicas `alive`."""
        row = len(self._steps)
        for name, value in values.items():
            dtype = self._dtype if value.is_floating_point() else torch.int64
            stored = value.to(dtype).cpu().numpy()
            if name not in self._columns:
                shape = (self._n_records, self.replicas, *stored.shape[1:])
                self._columns[name] = np.zeros(shape, stored.dtype)
            self._columns[name][row, alive] = stored
        self._steps.append(step)
        self._lengths[alive] += 1

    def curves(self, replica: int) -> dict[str, np.ndarray]:
        """The replica's records: `step` (int64) and every column, while it was in the stack."""
        n = self._lengths[replica]
        columns = {name: values[:n, replica].copy() for name, values in self._columns.items()}
        return {"step": np.array(self._steps[:n], dtype=np.int64), **columns}
