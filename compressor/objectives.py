"""Training objectives of W on a batch, for stacks of W.

X [R or 1, B, D] states, W [R, k, D], offset [D] -> [R], one loss for each W. Rows of W that are 0
change nothing, so W of fewer rows are padded with them. xhat = offset + (x - offset) W^T W.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def objective(name: str) -> Objective:
    """mse, relative or cosine."""
    return {"mse": mse, "relative": relative, "cosine": cosine}[name]


def mse(X: Tensor, W: Tensor, offset: Tensor) -> Tensor:
    """Mean over tokens and dimensions of (xhat - x)^2."""
    Y = X - offset
    return (Y @ W.mT @ W - Y).square().mean((-2, -1))


def relative(X: Tensor, W: Tensor, offset: Tensor) -> Tensor:
    """Mean over tokens of |xhat - x|^2 / |x|^2, a token of x = 0 counting 0."""
    Y = X - offset
    x2 = X.square().sum(-1)
    e2 = (Y @ W.mT @ W - Y).square().sum(-1)
    return (e2 * torch.where(x2 > 0, 1 / x2, 0.0)).mean(-1)


def cosine(X: Tensor, W: Tensor, offset: Tensor) -> Tensor:
    """Mean over tokens of 1 - cos(x, xhat); leaves the scale of W free where offset = 0.

    Norms below 1e-8 count as that, so a token of x = 0 or xhat = 0 adds 1 and no gradient.
    """
    Xhat = offset + (X - offset) @ W.mT @ W
    return 1 - cosine_similarity(X, Xhat, dim=-1).mean(-1)


def nested_mse(
    X: Tensor, W: Tensor, offset: Tensor, sizes: Sequence[int], weights: Sequence[float]
) -> Tensor:
    """sum_j weights_j mse(first sizes_j rows of W), sizes increasing.

    Matryoshka training (Kusupati et al. 2022, eq. 1) of the reconstruction.
    """
    Y = X - offset
    error, total, start = -Y, 0.0, 0
    for size, weight in zip(sizes, weights, strict=True):
        rows = W[:, start:size]
        error = error + Y @ rows.mT @ rows
        total = total + weight * error.square().mean((-2, -1))
        start = size
    return total


@torch.no_grad()
def mse_and_gradient(X: Tensor, W: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """mse [R] and its gradient [R, k, D], without a graph and without xhat.

    With C the batch's second moment, P = W C, S = P W^T and G = W W^T: the gradient is
    (2/D) (S W + G P - 2 P), the mse (tr C - 2 tr S + tr S G) / D. Rows of W that are 0 get a
    gradient of exactly 0. In float32 the mse is off by 1e-7 tr C / D, not by 1e-7 mse.
    """
    Y = X - offset
    n = Y.shape[-2] * Y.shape[-1]
    P = (Y @ W.mT).mT @ Y  # B W C, two products with the batch, the only large ones
    S = P @ W.mT
    G = W @ W.mT
    trace_S = S.diagonal(dim1=-2, dim2=-1).sum(-1)
    loss = (Y.square().sum((-2, -1)) - 2 * trace_S + (S * G).sum((-2, -1))) / n
    return loss, (S @ W + G @ P - 2 * P) * (2 / n)
