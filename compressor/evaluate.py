"""What is recorded of W during a training: from the second moment alone, no pass over states.

W [R, kmax, D] float64, a W of k < kmax rows padded with rows of 0. M = W^T W is never formed: it
shares its spectrum with G = W W^T.
"""

import torch
from torch import Tensor


def mse_of(W: Tensor, C: Tensor) -> Tensor:
    """tr[(I - M) C (I - M)] / D [R], for C [D, D] the mse over the states that C is of.

    Off by 1e-16 tr C / D, which counts only beside spectra that fall this far.
    """
    WC = W @ C
    S, G = WC @ W.mT, W @ W.mT
    trace_S = S.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (C.trace() - 2 * trace_S + (S * G).sum((-2, -1))).clamp_min(0) / len(C)


def orth_defect(W: Tensor, k: Tensor) -> Tensor:
    """|W W^T - I|_F / sqrt k [R], of the first k [R] rows each."""
    rows = torch.arange(W.shape[-2], device=W.device) < k[:, None]
    return (
        torch.linalg.matrix_norm(W @ W.mT - torch.diag_embed(rows.to(W.dtype)))
        / k.to(W.dtype).sqrt()
    )


def idem_defect(W: Tensor) -> Tensor:
    """|M^2 - M|_F / |M|_F [R]: 0 where M is a projection; nan where W is 0."""
    G = W @ W.mT
    return torch.linalg.matrix_norm(G @ G - G) / torch.linalg.matrix_norm(G)


def subspace_overlap(W: Tensor, k: Tensor, eigenvectors: Tensor) -> Tensor:
    """|Q^T V_k|_F^2 / k [R], 0..1: the part of the leading k [R] eigenvectors within W's row space.

    Q is an orthonormal basis of the row space, whose dimension is the numerical rank of W; nan
    where W is not finite.
    """
    finite = W.isfinite().all(-1).all(-1)  # svd of a stack with one diverged W raises
    _, s, Vh = torch.linalg.svd(W.where(finite[:, None, None], 0.0), full_matrices=False)
    rank_tolerance = max(W.shape[-2:]) * torch.finfo(W.dtype).eps * s[:, :1]
    Q = Vh * (s > rank_tolerance)[:, :, None]
    within = (Q @ eigenvectors[:, : W.shape[-2]]).square().sum(-2)
    leading = torch.arange(within.shape[-1], device=W.device) < k[:, None]
    return ((within * leading).sum(-1) / k).where(finite, torch.nan)


def mode_strength(W: Tensor, eigenvectors: Tensor, n: int) -> Tensor:
    """v_i^T M v_i [R, n] of the leading n eigenvectors: 0 not learned, 1 reconstructed in full."""
    return (W @ eigenvectors[:, :n]).square().sum(-2)
