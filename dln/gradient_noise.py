"""Metrics: size of the gradient and covariance of its noise over the test set.

g_i is the gradient of one sample's loss, g their mean, Sigma the population covariance of
n_i = g_i - g. For MSELoss these are closed forms in o x d matrices: with D = E - A and
a = 2/o, g_i of layer k is a (Q_k^T D x_i)(P_k x_i)^T, so that no cost depends on the width but the
products'. Every other criterion goes through automatic differentiation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dln import autograd_forms
from dln.context import EvalContext
from dln.params import require_int
from dln.registry import register_metric


@register_metric("grad_norm_squared")
def grad_norm_squared(ctx: EvalContext) -> Tensor:
    """||g||^2: [R]."""
    if _is_mse(ctx):
        return _mse_terms(ctx).grad_norm_squared
    return _autograd(ctx, 1, with_hessian=False)[0]


@register_metric("trace_gradient_covariance")
def trace_gradient_covariance(ctx: EvalContext, chunks: int = 1) -> Tensor:
    """Tr Sigma = 1/N sum_i ||n_i||^2: [R]."""
    chunks = require_int("chunks", chunks, 1)
    if _is_mse(ctx):
        return _mse_trace(ctx, chunks)
    return _autograd(ctx, chunks, with_hessian=False)[1]


@register_metric("trace_hessian_covariance")
def trace_hessian_covariance(ctx: EvalContext, chunks: int = 1) -> Tensor:
    """Tr(H Sigma) = 1/N sum_i n_i^T H n_i, H of the whole test set: [R]."""
    chunks = require_int("chunks", chunks, 1)
    if _is_mse(ctx):
        return _mse_hessian_trace(ctx, chunks)
    return _autograd(ctx, chunks, with_hessian=True)[2]


@register_metric("gradient_stats")
def gradient_stats(ctx: EvalContext, chunks: int = 1) -> dict[str, Tensor]:
    """grad_norm_squared and trace_gradient_covariance."""
    return {
        "grad_norm_squared": grad_norm_squared(ctx),
        "trace_gradient_covariance": trace_gradient_covariance(ctx, chunks),
    }


@register_metric("trace_covariances")
def trace_covariances(ctx: EvalContext, chunks: int = 1) -> dict[str, Tensor]:
    """grad_norm_squared, trace_gradient_covariance and trace_hessian_covariance."""
    # The last first: by automatic differentiation it leaves the others' values behind.
    last = trace_hessian_covariance(ctx, chunks)
    return {**gradient_stats(ctx, chunks), "trace_hessian_covariance": last}


def _is_mse(ctx: EvalContext) -> bool:
    return ctx.criterion.name == "MSELoss"


def _autograd(ctx: EvalContext, chunks: int, *, with_hessian: bool) -> tuple[Tensor, ...]:
    """Statistics of `autograd_forms`, computed once per record with or without the Hessian."""
    full = ctx.shared("noise_statistics", dict)
    if True not in full and with_hessian not in full:
        full[with_hessian] = autograd_forms.noise_statistics(ctx, chunks, with_hessian=with_hessian)
    return full[True] if True in full else full[False]


@dataclass(frozen=True)
class _MseTerms:
    """o x d sized matrices that the closed forms are made of; k runs over the L layers."""

    a: float  # 2 / o
    D: Tensor  # E - A, [R, o, d]
    J: Tensor  # D S: a J = d loss / dE, [R, o, d]
    GQ: Tensor  # Q_k Q_k^T, [R, L, o, o]
    GP: Tensor  # P_k^T P_k, [R, L, d, d]
    gradients: Tensor  # Q_k Q_k^T J P_k^T P_k, [R, L, o, d]

    @property
    def grad_norm_squared(self) -> Tensor:
        """grad_k = a Q_k^T J P_k^T, so ||grad_k||^2 = a^2 <GQ_k J GP_k, J>."""
        return self.a**2 * (self.gradients * self.J[:, None]).sum((-3, -2, -1))


def _mse_terms(ctx: EvalContext) -> _MseTerms:
    def compute() -> _MseTerms:
        layers = range(ctx.n_layers)
        GQ = torch.stack([Q @ Q.mT for Q in map(ctx.after, layers)], 1)
        GP = torch.stack([P.mT @ P for P in map(ctx.before, layers)], 1)
        J = ctx.error @ ctx.samples.gram
        return _MseTerms(2 / len(J[0]), ctx.error, J, GQ, GP, GQ @ J[:, None] @ GP)

    return ctx.shared("mse_terms", compute)


def _mse_trace(ctx: EvalContext, chunks: int) -> Tensor:
    """mean ||g_i||^2 - ||g||^2, ||g_i||^2 = a^2 sum_k (x_i^T D^T GQ_k D x_i)(x_i^T GP_k x_i)."""
    t = _mse_terms(ctx)
    D = t.D[:, None]
    of_samples = t.a**2 * ctx.samples.mean_product(D.mT @ t.GQ @ D, t.GP, chunks)
    # Not negative; rounding may be, where all samples have one gradient.
    return (of_samples - t.grad_norm_squared).clamp_min(0)


def _mse_hessian_trace(ctx: EvalContext, chunks: int) -> Tensor:
    """1/N sum_i g_i^T H g_i - g^T H g from the second derivative along a direction V.

    V^T H V = a [ tr(E' S E'^T) + <E'', J> ] with E' = sum_k Q_k V_k P_k and
    E'' = 2 sum_{k<m} Q_m V_m B_km V_k P_k, B_km = W_{m-1} ... W_{k+1}. For V = g_i, whose layers
    are a (Q_k^T D x_i)(P_k x_i)^T, and Z_km = P_m^T B_km Q_k^T this is a^3 times
    sum_{k,l} (x_i^T D^T GQ_k GQ_l D x_i)(x_i^T GP_k S GP_l x_i)
    + 2 sum_{k<m} (x_i^T Z_km D x_i)(x_i^T D^T GQ_m J GP_k x_i).
    """
    t = _mse_terms(ctx)
    S, D, J = ctx.samples.gram, t.D, t.J
    left, right = [], []
    gradient = t.gradients.sum(1)  # E' of g, but for the factor a
    of_mean = ((gradient @ S) * gradient).sum((-2, -1))
    for k, m, Z in _crossings(ctx):
        GQ, GP = t.GQ[:, m], t.GP[:, k]
        left.append(2 * Z @ D)
        right.append(D.mT @ GQ @ J @ GP)
        of_mean += 2 * ((GQ @ J @ Z @ J @ GP) * J).sum((-2, -1))
    for k in range(ctx.n_layers):
        for m in range(k, ctx.n_layers):
            left.append((1 if k == m else 2) * D.mT @ t.GQ[:, k] @ t.GQ[:, m] @ D)
            right.append(t.GP[:, k] @ S @ t.GP[:, m])
    of_samples = ctx.samples.mean_product(torch.stack(left, 1), torch.stack(right, 1), chunks)
    return t.a**3 * (of_samples - of_mean)


def _crossings(ctx: EvalContext) -> Iterator[tuple[int, int, Tensor]]:
    """k, m, Z_km = P_m^T W_{m-1} ... W_{k+1} Q_k^T for k < m: [R, d, o], by thin products."""
    for k in range(ctx.n_layers - 1):
        column = ctx.after(k).mT  # [R, n_{k+1}, o]
        for m in range(k + 1, ctx.n_layers):
            yield k, m, ctx.before(m).mT @ column
            column = ctx.weights[m] @ column
