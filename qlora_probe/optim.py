"""Optimizers of the adapters, their state, and the learning rate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qlora_probe.config import OptimConfig

BETAS = (0.9, 0.999)
EPS = 1e-8
BLOCK = 256  # elements of an 8-bit state that share a scale
MOMENTS = ("exp_avg", "exp_avg_sq", "state1", "state2")  # of torch, of bitsandbytes


def make_optimizer(
    cfg: OptimConfig, parameters: Sequence[nn.Parameter], min_8bit_size: int
) -> torch.optim.Optimizer:
    """No weight decay. The 8-bit state is that of Dettmers et al. (2022)."""
    if cfg.name == "sgd":
        return torch.optim.SGD(parameters, cfg.lr)
    options = {"lr": cfg.lr, "betas": BETAS, "eps": EPS, "weight_decay": 0.0}
    if cfg.name == "adamw":
        return torch.optim.AdamW(parameters, **options)
    from bitsandbytes import optim

    kind = optim.AdamW8bit if cfg.name == "adamw8bit" else optim.PagedAdamW8bit
    return kind(parameters, **options, min_8bit_size=min_8bit_size)


def learning_rate(step: int, n_steps: int, lr: float, warmup_ratio: float) -> float:
    """Of update `step`, 0-based: lr (t + 1) / W in the W warm-up updates, then linearly to 0.

    Not lr t / W: a first update of rate 0 learns nothing, and a run of one update nothing at all.
    """
    warmup = round(warmup_ratio * n_steps)
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr * (n_steps - step) / (n_steps - warmup)


def moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """m and v of Adam, in float32 and the parameter's shape; KeyError before the first update."""
    state = optimizer.state[parameter]
    if "exp_avg" in state:
        return state["exp_avg"].float(), state["exp_avg_sq"].float()
    return tuple(_dequantized(state, i) for i in (1, 2))


def _dequantized(state: dict[str, Any], i: int) -> Tensor:
    values = state[f"state{i}"]
    if values.dtype != torch.uint8:
        return values.float()
    from bitsandbytes.functional import dequantize_blockwise

    return dequantize_blockwise(
        values, absmax=state[f"absmax{i}"], code=state[f"qmap{i}"], blocksize=BLOCK
    )


def state_sizes(optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Bytes of all state; share of Adam's m and v that is kept in 8 bits, nan without these."""
    states = list(optimizer.state.values())
    tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
    nbytes = sum({t.data_ptr(): t.nbytes for t in tensors}.values())  # 8-bit codes are shared
    kept = [state[name] for state in states for name in MOMENTS if name in state]
    n_8bit = sum(t.numel() for t in kept if t.dtype == torch.uint8)
    return nbytes, n_8bit / (sum(t.numel() for t in kept) or torch.nan)
