"""Training of coordinates that stand on their levels (quantization-aware training)."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from sublora.batches import Batches
from sublora.quantize import nearest
from sublora.subspace import SubspaceModule

LR, MOMENTUM = 5e-5, 0.9


def train_quantized(
    module: SubspaceModule,
    batches: Batches,
    w: NDArray,
    levels: NDArray,
    which: NDArray,
    n_steps: int,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[NDArray, NDArray]:
    """w [d] and levels [codebooks, K] after SGD; coordinate i is on codebook which[i].

    Forward with every coordinate at its nearest level; w gets the gradient as if it were there
    itself (straight through; Bengio et al. 2013), a level the sum over its members. Raises
    Diverged.
    """
    device = module.w.device
    weights = torch.tensor(w, device=device, requires_grad=True)
    table = torch.tensor(levels, dtype=torch.float32, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weights, table], lr=LR, momentum=MOMENTUM)
    where = torch.from_numpy(which).to(device)
    module.train()
    for step in range(n_steps):
        symbols = torch.from_numpy(symbols_of(weights, table, which)).to(device)

        def logits_of(ids: torch.Tensor, symbols: torch.Tensor = symbols) -> torch.Tensor:
            on_levels = table[where, symbols] + (weights - weights.detach())
            return functional_call(module, {"w": on_levels}, (ids,))

        _, gradients = batches.gradients(logits_of, [weights, table], "qat", step)
        weights.grad, table.grad = gradients
        optimizer.step()
        on_progress((step + 1) / n_steps)
    return weights.detach().cpu().numpy(), table.detach().cpu().numpy()


def symbols_of(weights: torch.Tensor, table: torch.Tensor, which: NDArray) -> NDArray:
    """Nearest level of each coordinate in its codebook, int64 [d]."""
    w, levels = weights.detach().cpu().numpy(), table.detach().cpu().numpy()
    symbols = np.zeros(len(w), np.int64)
    for i, codebook in enumerate(levels):
        symbols[which == i] = nearest(w[which == i], codebook)
    return symbols
