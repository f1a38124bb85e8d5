"""Gradient noise and Hessian by automatic differentiation: any criterion, and the tests' oracle.

One replica at a time, all weights as one vector theta (W_0 first, row-major).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap

from dln.context import EvalContext
from dln.model import forward

LossOf = Callable[[Tensor, Tensor, Tensor], Tensor]  # (theta, inputs, targets) -> loss


def flatten_weights(weights: list[Tensor]) -> Tensor:
    """theta [P] of W_l [n_{l+1}, n_l]."""
    return torch.cat([W.flatten() for W in weights])


def loss_of_theta(ctx: EvalContext) -> LossOf:
    """The loss as a function of theta [P] and of samples [n, d], [n, o]."""
    shapes = [W.shape[1:] for W in ctx.weights]
    sizes = [shape.numel() for shape in shapes]

    def loss(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        parts = theta.split(sizes)
        weights = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return ctx.criterion(forward(weights, inputs), targets)

    return loss


def per_sample_gradients(loss: LossOf, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """g_i of each sample: [n, P]."""
    of_one = grad(lambda theta, x, y: loss(theta, x[None], y[None]))
    return vmap(of_one, (None, 0, 0))(theta, inputs, targets)


def noise_statistics(ctx: EvalContext, chunks: int, *, with_hessian: bool) -> tuple[Tensor, ...]:
    """||g||^2, Tr Sigma and, asked for, Tr(H Sigma): each [R].

    H is that of the whole test set; `chunks` bounds how many samples' gradients are held at once.
    """
    loss = loss_of_theta(ctx)
    rows = []
    for r in range(len(ctx.inputs)):
        theta = flatten_weights([W[r] for W in ctx.weights])
        x, y = ctx.inputs[r], ctx.targets[r]
        g_of = grad(lambda theta, x=x, y=y: loss(theta, x, y))
        g = g_of(theta)
        product = vmap(lambda v, g_of=g_of, theta=theta: jvp(g_of, (theta,), (v,))[1])
        trace, hessian_trace = torch.zeros_like(theta[0]), torch.zeros_like(theta[0])
        for x_part, y_part in zip(x.chunk(chunks), y.chunk(chunks), strict=True):
            noise = per_sample_gradients(loss, theta, x_part, y_part) - g
            trace += noise.square().sum()
            if with_hessian:
                hessian_trace += (noise * product(noise)).sum()
        row = [g.square().sum(), trace / len(x)]
        rows.append(torch.stack([*row, hessian_trace / len(x)] if with_hessian else row))
    return torch.stack(rows).unbind(-1)


def hessians(ctx: EvalContext) -> Tensor:
    """Hessian of the test loss: [R, P, P]."""
    loss = loss_of_theta(ctx)
    return torch.stack(
        [
            hessian(loss)(flatten_weights([W[r] for W in ctx.weights]), x, y)
            for r, (x, y) in enumerate(zip(ctx.inputs, ctx.targets, strict=True))
        ]
    )
