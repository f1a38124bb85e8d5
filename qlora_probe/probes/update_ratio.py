"""Size of an update: of the adapters, and of the weights that they stand for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.fields import at_least
from qlora_probe.lowrank import difference_norm
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("update_ratio")
@dataclass
class UpdateRatio:
    """Curves update_ratio, update_ratio_a, update_ratio_b: ||d theta|| / ||theta|| over all
    adapters, all A, all B, theta before the update; nan where it is 0, as B at first.

    Curve delta_w: ||s (B' A' - B A)||_F over all modules, what the update changes in the weights;
    delta_w_ratio: that over ||W0||_F. Scalar first_update_norm: delta_w of the first update, by
    which ranks and policies of alpha can be compared before the training differs.
    """

    every: int = 1  # updates, >= 1

    def __post_init__(self):
        at_least(self, "every", 1)

    def train_start(self, trainer: Trainer) -> None:
        adapters = trainer.lm.adapters.values()
        self.W0_norm = math.hypot(*(a.base_weight().norm().item() for a in adapters))

    def clipped(self, trainer: Trainer) -> None:
        self.before = [p.detach().clone() for p in trainer.parameters]

    def stepped(self, trainer: Trainer) -> None:
        now, before = [p.detach() for p in trainer.parameters], self.before
        moved = [p - old for p, old in zip(now, before, strict=True)]
        delta_w = math.hypot(
            *(
                difference_norm(B1, A1, B0, A0, adapter.scale).item()
                for adapter, A1, B1, A0, B0 in zip(
                    trainer.lm.adapters.values(), now[::2], now[1::2], before[::2], before[1::2],
                    strict=True,
                )
            )
        )  # fmt: skip
        del self.before
        trainer.log(
            update_ratio=_ratio(moved, before),
            update_ratio_a=_ratio(moved[::2], before[::2]),
            update_ratio_b=_ratio(moved[1::2], before[1::2]),
            delta_w=delta_w,
            delta_w_ratio=delta_w / self.W0_norm,
        )
        if trainer.step == 0:
            trainer.scalars["first_update_norm"] = delta_w


def _ratio(moved: list[Tensor], before: list[Tensor]) -> float:
    whole, part = (torch.cat([p.flatten() for p in x]).double().norm() for x in (before, moved))
    return (part / whole).item() if whole else math.nan
