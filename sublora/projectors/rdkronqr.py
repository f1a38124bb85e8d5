"""rdkronqr: a Kronecker product of two orthonormal matrices, its rows in random order."""

import math

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from sublora.projectors.dense import dense_qr, orthonormal
from sublora.projectors.projector import Projector
from sublora.registry import register_matrix


class Kronecker(Projector):
    """P w = the entries of Q1 W Q2^T and `unmoved` zeros in random order, W = w row by row."""

    def _times(self, w: Tensor) -> Tensor:
        d1, d2 = self.q1.shape[1], self.q2.shape[1]
        W = pad(w, (0, d1 * d2 - len(w))).view(d1, d2)
        entries = (self.q1 @ W @ self.q2.mT).view(-1)
        return pad(entries, (0, self.unmoved)).index_select(0, self.entry_of_row)

    def _times_transposed(self, v: Tensor) -> Tensor:
        V = v.index_select(0, self.row_of_entry).view(len(self.q1), len(self.q2))
        return (self.q1.mT @ V @ self.q2).view(-1)[: self.shape[1]]


@register_matrix("rdkronqr")
def rdkronqr(rows: int, cols: int, generator: np.random.Generator) -> Projector:
    """A random permutation of Q1 (x) Q2, D1 = floor(sqrt D), D2 = floor(D/D1), d1 = ceil(sqrt d).

    D - D1 D2 < D1 parameters stay unmoved. dense_qr where D1 < d1. arXiv 2312.17173.
    """
    if not fits(rows, cols):
        return dense_qr(rows, cols, generator)
    D1, d1 = math.isqrt(rows), _ceil_sqrt(cols)
    D2, d2 = rows // D1, -(-cols // d1)
    q1, q2 = orthonormal(generator, D1, d1), orthonormal(generator, D2, d2)
    row_of_entry = generator.permutation(rows)
    return Kronecker(
        rows,
        cols,
        "exact",
        rows - D1 * D2,
        q1=q1,
        q2=q2,
        row_of_entry=row_of_entry[: D1 * D2],
        entry_of_row=np.argsort(row_of_entry),
    )


def fits(rows: int, cols: int) -> bool:
    """D1 >= d1; then D2 >= D1 >= d1 >= d2 too."""
    return math.isqrt(rows) >= _ceil_sqrt(cols)


def _ceil_sqrt(n: int) -> int:
    return math.isqrt(n - 1) + 1
