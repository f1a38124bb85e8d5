"""Spectrum and size of an adapter's update s B A without ever forming it.

B [out, r], A [r, in], scale s; everything in float64. An update of rank r has the singular values
of the core R_B R_A^T, at most r x r, of the factors' QR decompositions.
"""

import torch
from torch import Tensor


def product_singular_values(B: Tensor, A: Tensor, scale: float) -> Tensor:
    """Singular values [min(out, r, in)] of scale * B A, descending; the others are 0."""
    return torch.linalg.svdvals(_core(B.double(), A.double())) * abs(scale)


def difference_norm(B1: Tensor, A1: Tensor, B0: Tensor, A0: Tensor, scale: float) -> Tensor:
    """||scale * (B1 A1 - B0 A0)||_F [], from factors of rank 2 r."""
    B1, A1, B0, A0 = B1.double(), A1.double(), B0.double(), A0.double()
    # (B1 - B0) A1 + B0 (A1 - A0): a step far smaller than the factors is not lost in rounding.
    core = _core(torch.cat([B1 - B0, B0], 1), torch.cat([A1, A1 - A0]))
    return core.norm() * abs(scale)


def stable_rank(s: Tensor) -> Tensor:
    """sum s^2 / max s^2 of singular values [*, k] -> [*], 1 .. k; nan where all are 0."""
    squares = s.square()
    return squares.sum(-1) / squares.amax(-1)


def effective_rank(s: Tensor) -> Tensor:
    """exp of the entropy of s / sum s, [*, k] -> [*], 1 .. k; nan where all are 0.

    Roy & Vetterli 2007.
    """
    return torch.special.entr(s / s.sum(-1, keepdim=True)).sum(-1).exp()


def _core(B: Tensor, A: Tensor) -> Tensor:
    R_B = torch.linalg.qr(B, mode="r").R
    R_A = torch.linalg.qr(A.T, mode="r").R
    return R_B @ R_A.T
