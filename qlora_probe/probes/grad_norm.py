"""Size of the gradient before it is clipped, whole and by kind of module."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from plugins.fields import at_least
from qlora_probe.model import kind_of
from qlora_probe.registry import register_callback
from qlora_probe.theory.scales import clip_coefficient
from qlora_probe.trainer import Trainer


@register_callback("grad_norm")
@dataclass
class GradNorm:
    """Curves grad_norm, before clipping, and clip_coef, which the gradient is multiplied by.

    Scalar clip_fraction: share of the updates measured whose gradient was made smaller. Table
    grad_norms: norm over all A, or all B, of a kind of module (q, k, v, ...). As long as B is 0,
    the gradient of A is, too.
    """

    every: int = 1  # updates, >= 1

    def __post_init__(self):
        at_least(self, "every", 1)

    def grad(self, trainer: Trainer) -> None:
        squares: dict[tuple[str, str], torch.Tensor | float] = defaultdict(float)
        for name, adapter in trainer.lm.adapters.items():
            kind = kind_of(name)
            for matrix in ("A", "B"):
                squares[kind, matrix] += getattr(adapter, matrix).grad.double().square().sum()
        trainer.add_rows(
            "grad_norms",
            step=trainer.step,
            kind=[kind for kind, _ in squares],
            matrix=[matrix for _, matrix in squares],
            norm=torch.stack(list(squares.values())).sqrt().tolist(),
        )

    def clipped(self, trainer: Trainer) -> None:
        norm = trainer.grad_norm
        coefficient = float(clip_coefficient(norm, trainer.cfg.optim.clip))
        trainer.log(grad_norm=norm, clip_coef=coefficient)

    def train_end(self, trainer: Trainer) -> None:
        found = [point["clip_coef"] for point in trainer.curves.values() if "clip_coef" in point]
        trainer.scalars["clip_fraction"] = sum(c < 1 for c in found) / len(found)
