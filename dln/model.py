"""Stacked deep linear networks: initial weights, outputs, and the hand-written backward pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dln.config import ModelConfig, layer_shapes
from dln.streams import Stream

Factors = list[tuple[Tensor, Tensor]]


def init_weights(
    model: ModelConfig,
    seeds: Sequence[int],
    gammas: Sequence[float],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """W_0 .. W_{L-1}, each [R, n_{l+1}, n_l]: N(0, hidden_dim^-gamma), from stream `dln/init`.

    Standard normals, drawn input to output from one stream, times hidden_dim^(-gamma / 2): the
    same seed at another gamma is the same draw, scaled.
    """
    stream = Stream("dln/init", seeds, device)
    exponents = -torch.tensor(gammas, dtype=torch.float64, device=device) / 2
    scale = torch.pow(float(model.hidden_dim), exponents)[:, None, None]
    weights, first = [], 0
    for rows, cols in layer_shapes(model):
        normals = stream.normals(first, rows * cols).reshape(-1, rows, cols)
        weights.append((normals * scale).to(dtype))
        first += rows * cols
    return weights


def forward(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Outputs of [*, N, d]: [*, N, o]."""
    for W in weights:
        inputs = inputs @ W.mT
    return inputs


def gradient_factors(
    weights: Sequence[Tensor], inputs: Tensor, slope: Callable[[Tensor], Tensor]
) -> Factors:
    """Thin factors (left [R, B, n_{l+1}], right [R, B, n_l]) with d loss / dW_l = left^T right.

    inputs [R, B, d]; slope(outputs [R, B, o]) = d loss / d outputs. No weight is changed here, and
    no factor shares memory with a weight, so an optimizer may update in place in any order. (A
    source whose inputs are the identity must keep this: P_1 = W_0 would follow the update.)
    """
    activations = [inputs]  # rows: samples; activations[l] = (P_l x)^T
    for W in weights:
        activations.append(torch.bmm(activations[-1], W.mT))
    left = slope(activations.pop())
    factors: Factors = []
    for W in reversed(weights):
        factors.append((left, activations.pop()))
        if activations:
            left = torch.bmm(left, W)
    return factors[::-1]
