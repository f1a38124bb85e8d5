"""fastfood: blocks of Walsh-Hadamard transforms, random signs and permutations."""

import math

import numpy as np
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn.functional import pad

from sublora.projectors.projector import Projector, random_signs
from sublora.registry import register_matrix


class Fastfood(Projector):
    """v blocks H B2 Pi H B1 of size n, stacked and cut to D rows; the scale stands in `signs2`.

    H [n, n] = H_a (x) H_b: two small products for all blocks at once, O(D sqrt n) operations but
    faster than log2 n butterflies over memory.
    """

    def _times(self, w: Tensor) -> Tensor:
        w = pad(w, (0, self.signs1.shape[1] - len(w)))
        x = self._hadamard(self.signs1 * w).view(-1).index_select(0, self.permutation)
        return self._hadamard(x.view_as(self.signs2) * self.signs2).view(-1)[: self.shape[0]]

    def _times_transposed(self, v: Tensor) -> Tensor:
        v = pad(v, (0, self.signs2.numel() - len(v))).view_as(self.signs2)
        x = (self._hadamard(v) * self.signs2).view(-1).index_select(0, self.inverse)
        return (self._hadamard(x.view_as(self.signs1)) * self.signs1).sum(0)[: self.shape[1]]

    def _hadamard(self, x: Tensor) -> Tensor:
        """x H of every row, x [v, n]; H of +-1, not normalised."""
        table = x.view(len(x), len(self.hadamard_a), len(self.hadamard_b))
        return (self.hadamard_a @ (table @ self.hadamard_b)).view_as(x)


@register_matrix("fastfood")
def fastfood(rows: int, cols: int, generator: np.random.Generator) -> Projector:
    """sqrt(n/D) times stacked H B2 Pi H B1, n = 2^ceil(log2 d), H Walsh-Hadamard / sqrt n.

    Le, Sarlos & Smola 2013 without the Gaussian diagonal. With v = ceil(D/n) blocks the
    eigenvalues of P^T P lie in [(v-1) n/D, v n/D]: the last block is cut. For d <= 16 some rows
    can be zero by chance; `unmoved` leaves them out.
    """
    exponent = (cols - 1).bit_length()
    n = 2**exponent
    blocks = -(-rows // n)
    signs1, signs2 = random_signs(generator, (blocks, n)), random_signs(generator, (blocks, n))
    within = generator.permuted(np.tile(np.arange(n), (blocks, 1)), axis=1)
    permutation = (within + n * np.arange(blocks)[:, None]).ravel()
    return Fastfood(
        rows,
        cols,
        "band" if rows % n else "exact",
        signs1=signs1,
        signs2=signs2 / math.sqrt(n * rows),  # sqrt(n/D) / sqrt(n)^2
        permutation=permutation,
        inverse=np.argsort(permutation),
        hadamard_a=hadamard(2 ** (exponent // 2), dtype=float),
        hadamard_b=hadamard(2 ** (exponent - exponent // 2), dtype=float),
    )
