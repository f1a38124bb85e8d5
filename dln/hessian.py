"""Metric: the spectrum of the full Hessian of the test loss."""

import torch
from torch import Tensor

from dln import autograd_forms
from dln.context import EvalContext
from dln.params import require_int
from dln.registry import register_metric

_BYTES_AT_ONCE = 2**28


@register_metric("hessian_spectrum")
def hessian_spectrum(ctx: EvalContext, max_params: int = 4096) -> Tensor:
    """Eigenvalues of the P x P Hessian of the test loss, ascending: [R, P].

    ValueError when the network has more than `max_params` weights: the matrix takes 8 P^2 bytes.
    """
    P = sum(W[0].numel() for W in ctx.weights)
    if require_int("max_params", max_params, 1) < P:
        raise ValueError(
            f"hessian_spectrum: the network has P = {P} weights, more than "
            f"max_params = {max_params}; its Hessian would take 8 P^2 = {8 * P**2} bytes"
        )
    form = mse_hessians if ctx.criterion.name == "MSELoss" else autograd_forms.hessians
    at_once = max(1, _BYTES_AT_ONCE // (8 * P**2))
    starts = range(0, len(ctx.inputs), at_once)
    parts = (ctx.replicas(start, start + at_once) for start in starts)
    return torch.cat([torch.linalg.eigvalsh(form(part)) for part in parts])


def mse_hessians(ctx: EvalContext) -> Tensor:
    """Hessian of the mean squared error, all weights as one vector (W_0 first, row-major).

    [R, P, P]. Block k <= m: a kron(Q_k^T Q_m, P_k S P_m^T) and, for k < m, plus
    a B[q, i] C[p, j] at (W_k[i, j]; W_m[p, q]), with S = X^T X / N, B = W_{m-1} ... W_{k+1},
    C = Q_m^T D S P_k^T, D = E - A and a = 2/o.
    """
    scale = 2 / ctx.targets.shape[-1]
    gram = ctx.samples.gram
    slope = ctx.error @ gram
    sizes = [W[0].numel() for W in ctx.weights]
    edges = torch.tensor([0, *sizes]).cumsum(0).tolist()
    H = ctx.inputs.new_empty(len(ctx.inputs), edges[-1], edges[-1])
    for m in range(ctx.n_layers):
        for k in range(m + 1):
            left = ctx.after(k).mT @ ctx.after(m)
            right = ctx.before(k) @ gram @ ctx.before(m).mT
            block = torch.einsum("rip,rjq->rijpq", left, right)
            if k < m:
                C = ctx.after(m).mT @ slope @ ctx.before(k).mT
                block = block + torch.einsum("rqi,rpj->rijpq", ctx.between(k, m), C)
            block = scale * block.reshape(len(H), sizes[k], sizes[m])
            H[:, edges[k] : edges[k + 1], edges[m] : edges[m + 1]] = block
            H[:, edges[m] : edges[m + 1], edges[k] : edges[k + 1]] = block.mT
    return H
