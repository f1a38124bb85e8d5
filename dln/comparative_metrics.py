"""Comparative metrics: how far apart two networks are. Importing this registers them.

A comparative metric is (ctx_a, ctx_b, **params) -> Tensor [R], [R, k] for lists, or a dict of
them; a bare tensor's column has the metric's name.
"""

import torch
from torch import Tensor
from torch.linalg import matrix_norm

from dln.context import EvalContext
from dln.registry import register_comparative_metric


class UnequalShapes(ValueError):
    """A metric that pairs the weights of two networks met layers of different shapes."""


@register_comparative_metric("param_distance")
def param_distance(ctx_a: EvalContext, ctx_b: EvalContext) -> Tensor:
    """||theta_a - theta_b||_2, theta all weights: [R]."""
    return torch.linalg.vector_norm(torch.stack(_distances(ctx_a, ctx_b)), dim=0)


@register_comparative_metric("param_cosine_sim")
def param_cosine_sim(ctx_a: EvalContext, ctx_b: EvalContext) -> Tensor:
    """<theta_a, theta_b> / (||theta_a|| ||theta_b||): [R]; 0 where one of them is 0."""
    _require_equal_shapes(ctx_a, ctx_b)
    theta_a, theta_b = (torch.cat([W.flatten(1) for W in ctx.weights], 1) for ctx in (ctx_a, ctx_b))
    return torch.cosine_similarity(theta_a, theta_b, dim=1)


@register_comparative_metric("layer_distances")
def layer_distances(ctx_a: EvalContext, ctx_b: EvalContext) -> dict[str, Tensor]:
    """layer_distance_{l} = ||W_l of a - W_l of b||_F."""
    return {f"layer_distance_{i}": value for i, value in enumerate(_distances(ctx_a, ctx_b))}


@register_comparative_metric("frobenius_distance")
def frobenius_distance(ctx_a: EvalContext, ctx_b: EvalContext) -> Tensor:
    """||E_a - E_b||_F: [R]; the hidden layers may differ in width and number."""
    return matrix_norm(ctx_a.product - ctx_b.product)


def _distances(ctx_a: EvalContext, ctx_b: EvalContext) -> list[Tensor]:
    """||W_l of a - W_l of b||_F of every layer: [R] each."""
    _require_equal_shapes(ctx_a, ctx_b)
    return [matrix_norm(A - B) for A, B in zip(ctx_a.weights, ctx_b.weights, strict=True)]


def _require_equal_shapes(ctx_a: EvalContext, ctx_b: EvalContext) -> None:
    a, b = ([tuple(W.shape[1:]) for W in ctx.weights] for ctx in (ctx_a, ctx_b))
    if a != b:
        raise UnequalShapes(f"the networks' layers must have equal shapes, got {a} and {b}")
