"""Initial weights W [k, D], rows of norm 1; model.init_scale multiplies them."""

import torch
from torch import Generator, Tensor

from compressor.registry import register_matrix


@register_matrix("orthogonal")
@register_matrix("small")  # differs by the scale that goes with it
def orthogonal(rows: int, cols: int, generator: Generator, basis: Tensor) -> Tensor:
    """Orthonormal rows, uniform among all such: QR of a Gaussian with the signs of R's diagonal
    taken out (Mezzadri 2007). rows <= cols.
    """
    gaussian = torch.randn(cols, rows, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(gaussian)
    return (Q * R.diagonal().sign()).T.contiguous()


@register_matrix("pca")
def pca(rows: int, cols: int, generator: Generator, basis: Tensor) -> Tensor:
    """The leading eigenvectors of the train states: the optimum of the mse."""
    return basis[:, :rows].T.contiguous()
