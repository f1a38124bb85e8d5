"""Metrics: singular values and ranks of the network, its layers and its partial products."""

import torch
from torch import Tensor

from dln.context import EvalContext
from dln.params import require_number
from dln.registry import register_metric


def _singular_values(ctx: EvalContext, i: int, j: int) -> Tensor:
    """Of W_j ... W_i, descending: [R, k]; one decomposition per record."""
    return ctx.shared(("svdvals", i, j), lambda: torch.linalg.svdvals(ctx.partial(i, j)))


def _rank(s: Tensor, tol: float, abs_tol: float) -> Tensor:
    """#{s_k > max(tol s_0, abs_tol)} of descending s [R, k]: int64 [R]; 0 for s = 0."""
    threshold = (require_number("tol", tol, 0) * s[:, :1]).clamp_min(
        require_number("abs_tol", abs_tol, 0)
    )
    return (s > threshold).sum(-1)


def _spans(ctx: EvalContext) -> list[tuple[int, int]]:
    return [(i, j) for i in range(ctx.n_layers) for j in range(i, ctx.n_layers)]


@register_metric("singular_values")
def singular_values(ctx: EvalContext) -> dict[str, Tensor]:
    """sv_{k} of E, descending from k = 0."""
    s = _singular_values(ctx, 0, ctx.n_layers - 1)
    return {f"sv_{k}": s[:, k] for k in range(s.shape[1])}


@register_metric("layer_singular_values")
def layer_singular_values(ctx: EvalContext) -> dict[str, Tensor]:
    """layer_{l}_sv_{k} of W_l, descending from k = 0."""
    spectra = [_singular_values(ctx, layer, layer) for layer in range(ctx.n_layers)]
    return {
        f"layer_{layer}_sv_{k}": s[:, k]
        for layer, s in enumerate(spectra)
        for k in range(s.shape[1])
    }


@register_metric("relative_rank")
def relative_rank(ctx: EvalContext, tol: float = 0.01, abs_tol: float = 0.0) -> Tensor:
    """Singular values of E above max(tol s_0, abs_tol): int64 [R]; 0 for E = 0."""
    return _rank(_singular_values(ctx, 0, ctx.n_layers - 1), tol, abs_tol)


@register_metric("partial_product_singular_values")
def partial_product_singular_values(ctx: EvalContext) -> dict[str, Tensor]:
    """pp_{i}_{j}_sv [R, k] of W_j ... W_i, 0 <= i <= j < L, descending."""
    return {f"pp_{i}_{j}_sv": _singular_values(ctx, i, j) for i, j in _spans(ctx)}


@register_metric("partial_product_rank_metrics")
def partial_product_rank_metrics(
    ctx: EvalContext, tol: float = 0.01, abs_tol: float = 0.0
) -> dict[str, Tensor]:
    """pp_{i}_{j}_relative_rank of W_j ... W_i, 0 <= i <= j < L."""
    return {
        f"pp_{i}_{j}_relative_rank": _rank(_singular_values(ctx, i, j), tol, abs_tol)
        for i, j in _spans(ctx)
    }


@register_metric("partial_product_metrics")
def partial_product_metrics(
    ctx: EvalContext, tol: float = 0.01, abs_tol: float = 0.0
) -> dict[str, Tensor]:
    """Singular values and relative ranks of the partial products."""
    return {
        **partial_product_singular_values(ctx),
        **partial_product_rank_metrics(ctx, tol, abs_tol),
    }
