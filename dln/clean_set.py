"""Samples with the teacher's own targets, and means over them of products of quadratic forms."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_QUARTIC_BYTES = 2**26  # most bytes of a stack's fourth moments


@dataclass(frozen=True)
class CleanSet:
    """Samples of R replicas with y = A x; float64, rows are samples."""

    inputs: Tensor  # [R, N, d]
    targets: Tensor  # [R, N, o]
    teacher: Tensor  # A, [R, o, d]
    gram: Tensor  # S = X^T X / N, [R, d, d]
    quartic: Tensor | None  # mean of phi phi^T, phi the products x_i x_j, i <= j: [R, p, p]

    @classmethod
    def of(cls, inputs: Tensor, teacher: Tensor, copies: int = 1) -> "CleanSet":
        """The sets with their moments; the fourth ones only where they are smaller than the
        samples' products, that is p = d (d + 1) / 2 <= N, and `copies` of them take little memory:
        they grow as d^4."""
        n, d = inputs.shape[-2:]
        i, j = torch.triu_indices(d, d, device=inputs.device)
        quartic = None
        if len(i) <= n and copies * len(i) ** 2 * inputs.itemsize <= _QUARTIC_BYTES:
            products = inputs[..., i] * inputs[..., j]
            quartic = products.mT @ products / n
        return cls(inputs, inputs @ teacher.mT, teacher, inputs.mT @ inputs / n, quartic)

    def map(self, change: Callable[[Tensor], Tensor]) -> "CleanSet":
        """The set with its tensors' replicas chosen by `change`."""
        values = (getattr(self, field.name) for field in fields(self))
        return CleanSet(*(value if value is None else change(value) for value in values))

    def mean_product(self, left: Tensor, right: Tensor, chunks: int) -> Tensor:
        """mean_i sum_k (x_i^T U_k x_i)(x_i^T V_k x_i) of U, V [R, K, d, d]: [R].

        By the fourth moments where they are there, at a cost that does not depend on N; else sample
        by sample, in at most `chunks` parts.
        """
        if self.quartic is not None:
            U, V = _coefficients(left), _coefficients(right)
            return ((U @ self.quartic) * V).sum((-2, -1))
        total = left.new_zeros(len(left))
        for x in self.inputs[:, None].chunk(chunks, 2):
            forms = (((x @ matrix) * x).sum(-1) for matrix in (left, right))  # [R, K, n]
            total += torch.mul(*forms).sum((-2, -1))
        return total / self.inputs.shape[1]


def _coefficients(matrices: Tensor) -> Tensor:
    """c [*, p] with c phi = x^T M x of M [*, d, d]."""
    i, j = torch.triu_indices(*matrices.shape[-2:], device=matrices.device)
    twice = matrices + matrices.mT  # counts the diagonal twice
    return twice[..., i, j] * torch.where(i == j, 0.5, 1.0).to(matrices)
