"""The loss along the way from the start of the adapters to their end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plugins.fields import at_least
from qlora_probe.data import collate, in_batches
from qlora_probe.line import losses_on_line
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("landscape")
@dataclass
class Landscape:
    """Held-out loss at points of a line, after the training.

    Direction path: theta_0 + a (theta_T - theta_0) (Goodfellow, Vinyals & Saxe 2015); a = 0 and 1
    are the first and the last eval_loss. Direction random: theta_T + (a - 1) d, through the end as
    well, where each tensor of d is normal noise of the norm that the path has in this tensor; so
    the same a is the same distance from the end. (Li et al. 2018 scale d to the norm of each
    filter of theta_T; A and B have no filters, and what matters here is the way gone.)
    """

    points: int = 21  # >= 2
    random: bool = False  # the random direction, too
    span: Sequence[float] = (-0.5, 1.5)  # of a

    def __post_init__(self):
        at_least(self, "points", 2)
        if len(self.span) != 2 or not -math.inf < self.span[0] < self.span[1] < math.inf:
            raise ValueError(f"span must be two finite numbers, rising, got {self.span}")

    def train_start(self, trainer: Trainer) -> None:
        self._start = [p.detach().clone() for p in trainer.parameters]

    def train_end(self, trainer: Trainer) -> None:
        start, end = self._start, [p.detach().clone() for p in trainer.parameters]
        starts = {"path": start}
        if self.random:
            starts["random"] = beside(start, end)
        batches = [collate(batch) for batch in in_batches(trainer.held_out)]
        at = np.linspace(*self.span, self.points).round(12)
        for direction, origin in starts.items():
            losses = losses_on_line(trainer.lm, batches, origin, end, at)
            trainer.add_rows("landscape", direction=direction, at=at, loss=losses)


def beside(start: Sequence[Tensor], end: Sequence[Tensor]) -> list[Tensor]:
    """A start in a random direction from the end, in each tensor as far as the true one is."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for x, y in zip(start, end, strict=True):
        d = torch.randn(y.shape, generator=generator).to(y)
        found.append(y - d * ((y - x).norm() / d.norm()))
    return found
