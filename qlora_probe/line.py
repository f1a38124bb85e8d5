"""The loss between two settings of the adapters."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qlora_probe.hooks import looking
from qlora_probe.model import Adapted, token_losses


@torch.no_grad()
def losses_on_line(
    lm: Adapted,
    batches: Sequence[tuple[Tensor, Tensor]],
    start: Sequence[Tensor],
    end: Sequence[Tensor],
    at: Sequence[float],
) -> list[float]:
    """Mean -ln p over the target tokens of the batches at start + a (end - start), a in `at`.

    batches: ids, labels each; start, end: values of lm.parameters, in their order. At a = 0 and 1
    it is exactly the loss of start and of end. Dropout is off; the parameters come back. A and B
    are what is interpolated, so the weights s B A move along a parabola; two adapters from
    different starts differ in A, too, and by more than their products do.
    """
    kept = [p.clone() for p in lm.parameters]
    try:
        with looking(lm.model):
            return [_loss_at(lm, batches, start, end, a) for a in at]
    finally:
        _set(lm, kept)


def _loss_at(
    lm: Adapted,
    batches: Sequence[tuple[Tensor, Tensor]],
    start: Sequence[Tensor],
    end: Sequence[Tensor],
    a: float,
) -> float:
    # Unlike the formula, lerp meets both ends exactly.
    _set(lm, [torch.lerp(x, y, float(a)) for x, y in zip(start, end, strict=True)])
    return torch.cat([token_losses(lm.model, *batch) for batch in batches]).mean().item()


def _set(lm: Adapted, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(lm.parameters, values, strict=True):
        parameter.copy_(value)
