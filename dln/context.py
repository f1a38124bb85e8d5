"""What a metric sees: the weights of a stack and its test set, with shared products computed once.

P_k = W_{k-1} ... W_0 and Q_k = W_{L-1} ... W_{k+1}, so that E = Q_k W_k P_k for every k.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln.clean_set import CleanSet
from dln.criteria import Criterion


class EvalContext:
    """R networks and their test sets, in float64."""

    def __init__(self, weights: Sequence[Tensor], samples: CleanSet, criterion: Criterion):
        self.weights = list(weights)  # W_l [R, n_{l+1}, n_l]
        self.samples = samples
        self.inputs = samples.inputs  # [R, N, d]
        self.targets = samples.targets  # [R, N, o], without noise
        self.criterion = criterion  # (outputs, targets) -> [R]
        self._shared: dict[Any, Any] = {}

    @property
    def n_layers(self) -> int:
        return len(self.weights)

    @cached_property
    def product(self) -> Tensor:
        """E = W_{L-1} ... W_0: [R, o, d]."""
        return self.partial(0, self.n_layers - 1)

    @cached_property
    def error(self) -> Tensor:
        """D = E - A: [R, o, d]; the residuals are y - E x = -D x."""
        return self.product - self.samples.teacher

    def partial(self, i: int, j: int) -> Tensor:
        """W_j ... W_i, 0 <= i <= j < L: [R, n_{j+1}, n_i]."""
        return self.shared(("partial", i, j), lambda: self._partial(i, j))

    def _partial(self, i: int, j: int) -> Tensor:
        if i == j:
            return self.weights[i]
        if j == self.n_layers - 1 and i > 0:  # from the narrow end
            return self.partial(i + 1, j) @ self.weights[i]
        # By rows: several times faster than by columns where the product is thin.
        return (self.partial(i, j - 1).mT @ self.weights[j].mT).mT

    def before(self, k: int) -> Tensor:
        """P_k: [R, n_k, d]; the identity for k = 0."""
        return self.partial(0, k - 1) if k > 0 else self._identity(self.weights[0].shape[-1])

    def after(self, k: int) -> Tensor:
        """Q_k: [R, o, n_{k+1}]; the identity for k = L - 1."""
        last = self.n_layers - 1
        return self.partial(k + 1, last) if k < last else self._identity(self.product.shape[-2])

    def between(self, k: int, m: int) -> Tensor:
        """W_{m-1} ... W_{k+1}, k < m: [R, n_m, n_{k+1}]; the identity for neighbours."""
        return (
            self.partial(k + 1, m - 1) if m > k + 1 else self._identity(self.weights[k].shape[-2])
        )

    def shared(self, key: Any, compute: Callable[[], Any]) -> Any:
        """`compute()`, once per context: metrics of one record share their work."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def replicas(self, start: int, stop: int) -> "EvalContext":
        """The context of some of the replicas."""
        part = slice(start, stop)
        weights = [W[part] for W in self.weights]
        return EvalContext(weights, self.samples.map(lambda values: values[part]), self.criterion)

    def _identity(self, n: int) -> Tensor:
        W = self.weights[0]
        return torch.eye(n, dtype=W.dtype, device=W.device).expand(len(W), n, n)
