"""Extreme eigenvalues of a symmetric operator known by its products, such as a Hessian."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # v [n] -> H v [n]


@dataclass(frozen=True)
class Extremes:
    """Largest and smallest Ritz value. All nan where a product was not finite."""

    top: float
    bottom: float
    residual: tuple[float, float]  # |H y - theta y|, y of norm 1: an eigenvalue lies this near


def extreme_eigenvalues(matvec: Product, start: Tensor, steps: int = 20) -> Extremes:
    """Both ends of the spectrum after `steps` products: Lanczos, full reorthogonalisation.

    start [n], not zero; its dtype is that of the vectors, which are all kept; sums and the
    tridiagonal matrix are float64. Ritz values lie within the spectrum: top is at most the largest
    eigenvalue, bottom at least the smallest. Ends early where the vectors span an invariant
    subspace; what start has no part in is then unseen. (Golub & Van Loan, Matrix Computations,
    10.1 and 10.3.)
    """
    basis: list[Tensor] = []
    alphas, betas = [], []
    q = start / math.sqrt(_dot(start, start))
    for _ in range(steps):
        basis.append(q)
        w = matvec(q)
        alphas.append(_dot(q, w))
        for _ in range(2):  # one pass leaves rounding errors of the size of H q, two do not
            for v in basis:
                w = w - _dot(v, w) * v
        betas.append(math.sqrt(_dot(w, w)))
        if not math.isfinite(alphas[-1]) or not math.isfinite(betas[-1]):
            return Extremes(math.nan, math.nan, (math.nan, math.nan))
        # A smaller remainder is rounding noise, and its direction no new one.
        if betas[-1] <= 100 * torch.finfo(w.dtype).eps * max(map(abs, alphas + betas)):
            break
        q = w / betas[-1]
    T = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    beside = torch.tensor(betas[:-1], dtype=torch.float64)
    T += torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(T)
    last = betas[-1] * vectors[-1].abs()
    return Extremes(values[-1].item(), values[0].item(), (last[-1].item(), last[0].item()))


def hessian_product(loss: Tensor, params: Sequence[Tensor]) -> Product:
    """v -> H v, H the Hessian of the scalar loss in params (flat, in their order), exactly.

    Two backward passes (Pearlmutter 1994); holds the graph of the loss as long as it lives. The
    loss must allow a second derivative: attention by scaled_dot_product_attention has none on CPU.
    """
    gradients = torch.autograd.grad(loss, params, create_graph=True)
    sizes = [p.numel() for p in params]

    def matvec(v: Tensor) -> Tensor:
        parts = [part.view_as(p) for part, p in zip(v.split(sizes), params, strict=True)]
        products = torch.autograd.grad(gradients, params, parts, retain_graph=True)
        return torch.cat([product.reshape(-1) for product in products])

    return matvec


def preconditioned(matvec: Product, p: Tensor) -> Product:
    """v -> P^-1/2 H P^-1/2 v for P = diag(p), p [n] > 0: symmetric, the spectrum of P^-1 H."""
    root = p.rsqrt()
    return lambda v: root * matvec(root * v)


def _dot(v: Tensor, w: Tensor) -> float:
    # A float32 dot product or norm of millions of numbers is off by 3e-5, eigenvalues by more.
    return (v * w).sum(dtype=torch.float64).item()
