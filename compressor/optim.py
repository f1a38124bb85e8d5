"""Updates of a stack of W, each with a learning rate of its own."""

import math

import torch
from torch import Tensor

from compressor.config import TrainingConfig
from plugins.lm.schedules import warmup_cosine

WARMUP = 0.1  # of all updates
BETAS, EPS = (0.9, 0.999), 1e-8


def lr_factor(step: int, n_steps: int, schedule: str) -> float:
    """Of update `step`, 0-based: linear to 1 in the warm-up, then half a cosine to 0; or 1."""
    if schedule == "constant":
        return 1.0
    return warmup_cosine(step, n_steps, round(WARMUP * n_steps))


def clip(gradient: Tensor, largest: float | None) -> tuple[Tensor, Tensor]:
    """The gradients [R, k, D] with norms of at most `largest`, and the norms [R] before."""
    norm = torch.linalg.vector_norm(gradient, dim=(-2, -1))
    if largest is None:
        return gradient, norm
    return gradient * (largest / (norm + 1e-6)).clamp_max(1.0)[:, None, None], norm


class Optimizer:
    """torch.optim.AdamW without decay, or SGD, of W [R, k, D]; lr [R] is given with each update."""

    def __init__(self, cfg: TrainingConfig, W: Tensor):
        self.is_adam = cfg.optimizer == "adamw"
        self.m, self.v = torch.zeros_like(W), torch.zeros_like(W)
        self.n_updates = 0

    def update(self, W: Tensor, gradient: Tensor, lr: Tensor) -> None:
        """In place."""
        lr = lr[:, None, None]
        if not self.is_adam:
            W.sub_(lr * gradient)
            return
        self.n_updates += 1
        beta1, beta2 = BETAS
        self.m.lerp_(gradient, 1 - beta1)
        self.v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = math.sqrt(1 - beta2**self.n_updates)
        step = self.m / self.v.sqrt().div_(root).add_(EPS)
        W.sub_(step * (lr / (1 - beta1**self.n_updates)))

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on."""
        self.m, self.v = self.m[index], self.v[index]
