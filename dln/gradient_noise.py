"""Metrics: size of the gradient and covariance of its noise over the test set.

g_i is the gradient of one sample's loss, g their mean, Sigma the population covariance of
n_i = g_i - g. For MSELoss these are closed forms in o x d matrices: with
a = 2/o, g_i of layer k is -a (Q_k^T r_i)(P_k x_i)^T, so that no cost depends on the width but the
products. Every other criterion goes through automatic differentiation.
"""

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
    n: int  # samples
    GQ: Tensor  # Q_k Q_k^T, [R, L, o, o]
    GP: Tensor  # P_k^T P_k, [R, L, d, d]
    M: Tensor  # sum_i r_i x_i^T, [R, o, d]
    gradients: Tensor  # Q_k Q_k^T M P_k^T P_k, [R, L, o, d]

    @property
    def grad_norm_squared(self) -> Tensor:
        """grad_k = -(a/N) Q_k^T M P_k^T, so ||grad_k||^2 = (a/N)^2 <GQ_k M GP_k, M>."""
        inner = (self.gradients * self.M[:, None]).sum((-3, -2, -1))
        return (self.a / self.n) ** 2 * inner


def _mse_terms(ctx: EvalContext) -> _MseTerms:
    def compute() -> _MseTerms:
        layers = range(ctx.n_layers)
        GQ = torch.stack([Q @ Q.mT for Q in map(ctx.after, layers)], 1)
        GP = torch.stack([P.mT @ P for P in map(ctx.before, layers)], 1)
        M = ctx.residual.mT @ ctx.inputs
        o, n = ctx.targets.shape[-1], ctx.targets.shape[-2]
        return _MseTerms(2 / o, n, GQ, GP, M, GQ @ M[:, None] @ GP)

    return ctx.shared("mse_terms", compute)


def _mse_trace(ctx: EvalContext, chunks: int) -> Tensor:
    """mean ||g_i||^2 - ||g||^2, ||g_i||^2 = a^2 sum_k (r_i^T GQ_k r_i)(x_i^T GP_k x_i)."""
    terms = _mse_terms(ctx)
    total = torch.zeros_like(terms.grad_norm_squared)
    for r, x in _chunks(ctx, chunks):
        quadratic_r = torch.einsum("rno,rkop,rnp->rnk", r, terms.GQ, r)
        quadratic_x = torch.einsum("rnd,rkde,rne->rnk", x, terms.GP, x)
        total += (quadratic_r * quadratic_x).sum((-2, -1))
    # Not negative; rounding may be, where all samples have one gradient.
    return (terms.a**2 * total / terms.n - terms.grad_norm_squared).clamp_min(0)


def _mse_hessian_trace(ctx: EvalContext, chunks: int) -> Tensor:
    """1/N sum_i g_i^T H g_i - g^T H g from the second derivative along a direction V.

    V^T H V = (a/N) [ sum_j ||E' x_j||^2 - <E'', M> ] with E' = sum_k Q_k V_k P_k and
    E'' = 2 sum_{k<m} Q_m V_m B_km V_k P_k, B_km = W_{m-1} ... W_{k+1}. For V = g_i, with
    q_k = GQ_k r_i, p_k = GP_k x_i, Z_km = P_m^T B_km Q_k^T and S = X^T X / N:
    g_i^T H g_i = a^3 [ sum_{k,l} (q_k q_l)(p_k^T S p_l)
                        - (2/N) sum_{k<m} (x_i^T Z_km r_i)(q_m^T M p_k) ].
    """
    t = _mse_terms(ctx)
    S = ctx.inputs.mT @ ctx.inputs / t.n
    pairs = [(k, m) for m in range(ctx.n_layers) for k in range(m)]
    Z = _crossings(ctx)
    per_sample = torch.zeros_like(t.grad_norm_squared)
    for r, x in _chunks(ctx, chunks):
        q = torch.einsum("rkop,rnp->rnko", t.GQ, r)
        p = torch.einsum("rkde,rne->rnkd", t.GP, x)
        outer = (q @ q.mT) * (p @ S[:, None] @ p.mT)  # [R, n, L, L]
        per_sample += outer.sum((-3, -2, -1))
        qMp = q @ t.M[:, None] @ p.mT  # q_m^T M p_k at [m, k]
        for k, m in pairs:
            xZr = ((x @ Z[k, m]) * r).sum(-1)
            per_sample -= (2 / t.n) * (xZr * qMp[..., m, k]).sum(-1)
    E1 = t.gradients.sum(1)  # g's E', but for the factor -a/N
    of_mean = t.a * ((E1 @ S) * E1).sum((-2, -1))
    for k, m in pairs:
        second = t.GQ[:, m] @ t.M @ Z[k, m] @ t.M @ t.GP[:, k]
        of_mean = of_mean - 2 * (t.a / t.n) * (second * t.M).sum((-2, -1))
    return t.a**3 * per_sample / t.n - (t.a / t.n) ** 2 * of_mean


def _crossings(ctx: EvalContext) -> dict[tuple[int, int], Tensor]:
    """Z_km = P_m^T W_{m-1} ... W_{k+1} Q_k^T for k < m: [R, d, o], by thin products."""
    Z = {}
    for k in range(ctx.n_layers - 1):
        column = ctx.after(k).mT  # [R, n_{k+1}, o]
        for m in range(k + 1, ctx.n_layers):
            Z[k, m] = ctx.before(m).mT @ column
            column = ctx.weights[m] @ column
    return Z


def _chunks(ctx: EvalContext, chunks: int) -> list[tuple[Tensor, Tensor]]:
    """(residuals, inputs) of consecutive samples, at most `chunks` parts."""
    parts = zip(ctx.residual.chunk(chunks, 1), ctx.inputs.chunk(chunks, 1), strict=True)
    return list(parts)
