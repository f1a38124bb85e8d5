"""Noise of the gradient: from how many sequences on a larger batch is no better."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from plugins.fields import at_least
from qlora_probe.data import IGNORED
from qlora_probe.registry import register_callback
from qlora_probe.theory import scales
from qlora_probe.trainer import Trainer


@register_callback("noise_scale")
@dataclass
class NoiseScale:
    """Curves noise_g2, noise_s: a step's estimates of the squared gradient and of the trace of
    one sequence's covariance, from the gradients of the parts of its batch. Scalars noise_scale,
    S / G2 of their means, left out where G2 is not positive; noise_batch, the sequences of an
    update to compare it with. Nothing when a batch is one part.

    Each gradient is the mean over its own targets, before clipping. Dropout differs between parts
    and counts as noise.
    """

    every: int = 1  # updates, >= 1

    def __post_init__(self):
        at_least(self, "every", 1)

    def micro_grad(self, trainer: Trainer) -> None:
        if trainer.part == 0:
            self.sum, self.small, self.sizes = 0.0, [], []
        total = _gradient(trainer)
        own, self.sum = total - self.sum, total
        labels = trainer.parts[trainer.part][1]
        if targets := _targets(labels):
            share = targets / sum(_targets(labels) for _, labels in trainer.parts)
            self.small.append(_square(own) / share**2)
            self.sizes.append(len(labels))

    def grad(self, trainer: Trainer) -> None:
        B = sum(len(labels) for _, labels in trainer.parts)
        big = _square(self.sum)
        b = stats.hmean(self.sizes)
        del self.sum
        found = scales.noise_scale([np.mean(self.small)], [big], b, B)
        if found.n:
            trainer.log(noise_g2=found.G2, noise_s=found.S)
            trainer.scalars.setdefault("noise_batch", B)

    def train_end(self, trainer: Trainer) -> None:
        points = [point for point in trainer.curves.values() if "noise_g2" in point]
        G2, S = (sum(point[name] for point in points) for name in ("noise_g2", "noise_s"))
        if G2 > 0:
            trainer.scalars["noise_scale"] = S / G2


def _gradient(trainer: Trainer) -> Tensor:
    """[n], of the parts so far."""
    return torch.cat([p.grad.flatten() for p in trainer.parameters])


def _square(gradient: Tensor) -> float:
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).item() ** 2


def _targets(labels: Tensor) -> int:
    return int((labels != IGNORED).sum())
