"""Callbacks: changes of the batch size and the learning rate while a run trains.

A factory's params come from the config; what it returns is called as (step, trainer) before the
update `step`, in list order. A callback that changes the batch size lists in `schedule` what it
sets at which step, so that planning can refuse what cannot be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dln.params import require_int, require_number
from dln.registry import register_callback

Callback = Callable[[int, Any], None]  # (step, Trainer)


@dataclass(frozen=True)
class BatchSizeSchedule:
    """Sets the batch size at given steps; null is the full batch."""

    schedule: Mapping[int, int | None]

    def __call__(self, step: int, trainer: Any) -> None:
        if step in self.schedule:
            trainer.set_batch_size(self.schedule[step])


@register_callback("switch_batch_size")
def switch_batch_size(at_step: int, batch_size: int | None) -> Callback:
    """From update `at_step` on, batches of `batch_size`; at_step >= 0, batch_size >= 1 or null."""
    at_step = require_int("at_step", at_step, 0)
    return BatchSizeSchedule({at_step: _batch_size("batch_size", batch_size)})


@register_callback("multi_switch_batch_size")
def multi_switch_batch_size(schedule: Mapping[int, int | None]) -> Callback:
    """From update s on, batches of schedule[s]."""
    if not isinstance(schedule, Mapping):
        raise ValueError(f"schedule must be a mapping of step to batch size, got {schedule!r}")
    return BatchSizeSchedule(
        {_step(key): _batch_size(f"schedule[{key}]", size) for key, size in schedule.items()}
    )


@register_callback("lr_decay")
def lr_decay(decay_every: int, factor: float) -> Callback:
    """At s > 0 with s % decay_every = 0: lr *= factor."""
    decay_every = require_int("decay_every", decay_every, 1)
    factor = require_number("factor", factor, 0, exclusive=True)

    def decay(step: int, trainer: Any) -> None:
        if step > 0 and step % decay_every == 0:
            trainer.scale_lr(factor)

    return decay


def _batch_size(name: str, value: Any) -> int | None:
    return None if value is None else require_int(name, value, 1)


def _step(key: Any) -> int:
    """Keys of a mapping may come as text (JSON has no others)."""
    if isinstance(key, str) and key.isdecimal():
        key = int(key)
    return require_int("a step of schedule", key, 0)
