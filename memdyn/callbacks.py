"""Callbacks: changes of the training while it goes on.

A factory's params come from the config; what it returns is called as (step, trainer) before the
update `step`, 0-based, in list order. It depends on the step alone: a run that resumes calls it
again only for the updates that follow.
"""

import math
from collections.abc import Callable
from typing import Any

from memdyn.registry import register_callback

Callback = Callable[[int, Any], None]  # (step, Trainer)


@register_callback("lr_decay")
def lr_decay(every: int, factor: float) -> Callback:
    """The learning rate times factor^(step // every); every >= 1, factor finite and > 0."""
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be an integer >= 1, got {every!r}")
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise ValueError(f"factor must be finite and > 0, got {factor}")

    def decay(step: int, trainer: Any) -> None:
        trainer.scale_lr(factor ** (step // every))

    return decay
