"""What every projector is: a random linear map P [D, d], its transpose, its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor


class Projector(torch.nn.Module, ABC):
    """P [D, d]. Its tensors are buffers that no state_dict has: the seed is what is saved.

    isometry: P^T P = I is "exact", holds for the "mean" over draws, or its eigenvalues lie in a
    known "band" around 1. unmoved: rows of P that are zero, parameters that stay as they are.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        isometry: Literal["exact", "band", "mean"],
        unmoved: int = 0,
        **tensors: np.ndarray,
    ):
        super().__init__()
        self.shape, self.isometry, self.unmoved = (rows, cols), isometry, unmoved
        for name, array in tensors.items():
            dtype = torch.float32 if array.dtype.kind == "f" else torch.int32
            self.register_buffer(name, torch.from_numpy(array).to(dtype), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """P w: [d] -> [D]; its gradient is the adjoint."""
        return _Linear.apply(w, self._times, self._times_transposed)

    def adjoint(self, v: Tensor) -> Tensor:
        """P^T v: [D] -> [d]; its gradient is the forward."""
        return _Linear.apply(v, self._times_transposed, self._times)

    def to_dense(self) -> Tensor:
        """P [D, d] float64, by d forwards of unit vectors in the projector's dtype: for tests."""
        floats = [b for b in self.buffers() if b.is_floating_point()]
        like = floats[0] if floats else torch.empty(0)
        units = torch.eye(self.shape[1], dtype=like.dtype, device=like.device)
        return torch.stack([self(unit).double() for unit in units], dim=1)

    @abstractmethod
    def _times(self, w: Tensor) -> Tensor:
        """P w."""

    @abstractmethod
    def _times_transposed(self, v: Tensor) -> Tensor:
        """P^T v."""


class _Linear(torch.autograd.Function):
    """A linear map whose gradient is its transpose, of any order, with nothing saved."""

    @staticmethod
    def forward(ctx, x: Tensor, times: Callable, times_transposed: Callable) -> Tensor:
        ctx.maps = times, times_transposed
        # Under a caller's bfloat16 autocast, P w would lose what the subspace coordinates say.
        with torch.autocast(x.device.type, enabled=False):
            return times(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        times, times_transposed = ctx.maps
        return _Linear.apply(gradient, times_transposed, times), None, None


def random_signs(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """+-1.0 with equal chances."""
    return 2.0 * generator.integers(2, size=shape) - 1.0
