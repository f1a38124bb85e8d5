"""Metrics: norms of weights, of their Gram matrices, and of the layers' imbalance."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.linalg import matrix_norm

from dln.context import EvalContext
from dln.registry import register_metric


@register_metric("weight_norm")
def weight_norm(ctx: EvalContext) -> Tensor:
    """sqrt(sum_l ||W_l||_F^2): [R]."""
    return torch.stack([matrix_norm(W) for W in ctx.weights]).square().sum(0).sqrt()


@register_metric("layer_norms")
def layer_norms(ctx: EvalContext) -> dict[str, Tensor]:
    """layer_norm_{l} = ||W_l||_F."""
    return {f"layer_norm_{layer}": matrix_norm(W) for layer, W in enumerate(ctx.weights)}


@register_metric("gram_norms")
def gram_norms(ctx: EvalContext) -> dict[str, Tensor]:
    """gram_norm_{l} = ||W_l W_l^T||_F."""
    return {f"gram_norm_{layer}": _gram_norm(W) for layer, W in enumerate(ctx.weights)}


def _gram_norm(W: Tensor) -> Tensor:
    # ||W W^T||_F = ||W^T W||_F: the smaller of the two.
    return matrix_norm(W @ W.mT if W.shape[-2] <= W.shape[-1] else W.mT @ W)


@register_metric("balance_diffs")
def balance_diffs(ctx: EvalContext) -> dict[str, Tensor]:
    """balance_diff_{l} = ||W_l W_l^T - W_{l+1}^T W_{l+1}||_F, l < L - 1.

    Conserved by the gradient flow (Arora, Cohen & Hazan 2018, theorem 1).
    """
    return {
        f"balance_diff_{layer}": matrix_norm(W @ W.mT - W_next.mT @ W_next)
        for layer, (W, W_next) in enumerate(pairwise(ctx.weights))
    }


@register_metric("effective_weight_norm")
@register_metric("end_to_end_weight_norm")
def end_to_end_weight_norm(ctx: EvalContext) -> Tensor:
    """||E||_F: [R]. Two names; the column is the one asked for."""
    return matrix_norm(ctx.product)
