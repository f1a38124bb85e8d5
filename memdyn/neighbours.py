"""Nearest neighbours of token states, and how far states spread over them."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def centred(states: Tensor) -> Tensor:
    """[n, d] minus its mean over n, which is summed in float64: equal states become exact zeros."""
    return states - states.mean(0, dtype=torch.float64).to(states.dtype)


def nearest_neighbours(X: Tensor, k: int, block: int = 512) -> Tensor:
    """[n, k] int64: the k rows of X [n, d] at the smallest Euclidean distance, in no order.

    A row is no neighbour of itself, an equal one is. Memory: block x n distances at a time, which
    come from products of centred rows: ranks are right to the rounding of |x|^2 in X's dtype.
    Raises ValueError when k >= n.
    """
    n = len(X)
    if k >= n:
        raise ValueError(f"{k} neighbours need more than {k} rows, got {n}")
    X = centred(X)
    columns, squares = X.T.contiguous(), X.square().sum(1)
    found = torch.empty(n, k, dtype=torch.int64, device=X.device)
    place = X.new_empty(min(block, n), n)
    for start in range(0, n, block):
        rows = X[start : start + block]
        distances = place[: len(rows)]  # squared, less the row's own |x|^2
        torch.addmm(squares, rows, columns, alpha=-2, out=distances)
        distances.diagonal(start).fill_(torch.inf)
        found[start : start + block] = distances.topk(k, largest=False, sorted=False).indices
    return found


def neighbour_variance(Z: Tensor, neighbours: Tensor) -> Tensor:
    """V_i = sum over d of var over j in N_k(i) of Z_jd, ddof 0: Z [n, d], N_k [n, k] -> [n].

    As mean |z|^2 - |mean z|^2 of centred Z, never below 0, without a tensor [n, k, d]. Its error is
    that of rounding |z|^2 in Z's dtype.
    """
    Z = centred(Z)
    mean_square = embedding_bag(neighbours, Z.square().sum(1, keepdim=True), mode="mean")[:, 0]
    square_of_mean = embedding_bag(neighbours, Z, mode="mean").square().sum(1)
    return (mean_square - square_of_mean).clamp_min(0)
