"""Loss functions of an error f - y, with the slopes that the hand-written backward needs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.registry import UnknownName, did_you_mean


@dataclass(frozen=True)
class Criterion:
    """Mean over samples and output entries of an elementwise loss, as in torch.nn."""

    name: str
    elementwise: Callable[[Tensor], Tensor]  # loss of an error
    slope: Callable[[Tensor], Tensor]  # its derivative

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of [*, N, o] against [*, N, o]: [*]."""
        return self.elementwise(outputs - targets).mean((-2, -1))

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """d loss / d outputs: [*, N, o]."""
        error = outputs - targets
        return self.slope(error).mul_(1 / (error.shape[-2] * error.shape[-1]))


def _smooth_l1(error: Tensor) -> Tensor:  # beta = 1, where it equals Huber's loss with delta = 1
    size = error.abs()
    return torch.where(size < 1, 0.5 * error.square(), size - 0.5)


CRITERIA = {
    criterion.name: criterion
    for criterion in (
        Criterion("MSELoss", torch.square, lambda error: 2 * error),
        Criterion("L1Loss", torch.abs, torch.sign),
        Criterion("SmoothL1Loss", _smooth_l1, lambda error: error.clamp(-1, 1)),
        Criterion("HuberLoss", _smooth_l1, lambda error: error.clamp(-1, 1)),
    )
}


def get_criterion(name: str) -> Criterion:
    """The criterion called `name`; raises UnknownName."""
    if name not in CRITERIA:
        raise UnknownName(f"dln has no criterion {name!r}{did_you_mean(name, CRITERIA)}")
    return CRITERIA[name]
