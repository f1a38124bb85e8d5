"""Stacked deep linear networks: initial weights, outputs, and the hand-written backward pass."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dln.config import ModelConfig, layer_shapes
from dln.streams import Stream

Factors = list[tuple[Tensor, Tensor]]


def init_weights(
    model: ModelConfig,
    seeds: Sequence[int],
    gammas: Sequence[float],
    rotation: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """W_0 .. W_{L-1}, each [R, n_{l+1}, n_l], from stream `dln/init`.

    normal: N(0, hidden_dim^-gamma), as standard normals, drawn input to output from one stream,
    times hidden_dim^(-gamma / 2): the same seed at another gamma is the same draw, scaled.
    aligned: W_l = c B_{l+1} B_l^T, c = hidden_dim^(-gamma / 2), with B_0 = B_L = O^T the teacher's
    modes (`rotation` O, [R, d, d]) and the other B_l random orthonormal columns [h, d]: balanced,
    and E = c^L I (Saxe, McClelland & Ganguli 2014).
    """
    device = rotation.device
    stream = Stream("dln/init", seeds, device)
    exponents = -torch.tensor(gammas, dtype=torch.float64, device=device) / 2
    scale = torch.pow(float(model.hidden_dim), exponents)[:, None, None]
    if model.init == "aligned":
        bases = [rotation.mT, *_hidden_bases(model, stream), rotation.mT]
        return [(scale * after @ before.mT).to(dtype) for before, after in pairwise(bases)]
    weights, first = [], 0
    for rows, cols in layer_shapes(model):
        normals = stream.normals(first, rows * cols).reshape(-1, rows, cols)
        weights.append((normals * scale).to(dtype))
        first += rows * cols
    return weights


def _hidden_bases(model: ModelConfig, stream: Stream) -> list[Tensor]:
    """Orthonormal columns [R, h, d] for every hidden layer, random."""
    h, d = model.hidden_dim, model.in_dim
    normals = stream.normals(0, model.num_hidden * h * d)
    Q, _ = torch.linalg.qr(normals.reshape(len(normals), model.num_hidden, h, d))
    return list(Q.unbind(1))


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
    no factor shares memory with a weight, so an optimizer may update in place in any order. (With
    the identity as inputs P_1 = W_0, but a copy: an alias would follow the update.)
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
