"""When a probe is called, and how it leaves the training as it was.

A probe is an object with any of these methods, each called with the trainer:

| hook | when |
|---|---|
| train_start | the adapters are at their start |
| micro_grad | after a backward pass of a part of the batch; gradients so far are summed |
| grad | the gradient of the batch, before it is clipped |
| clipped | after |
| stepped | after the update; gradients are still there |
| eval | a held-out loss has been measured |
| train_end | after the last update |

micro_grad to stepped are called at every `every`-th update (an attribute of the probe), 0-based,
and at the last one. A probe changes no parameter, no gradient and no random state: losses with and
without it are equal bit for bit.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

OF_A_STEP = ("micro_grad", "grad", "clipped", "stepped")
HOOKS = ("train_start", *OF_A_STEP, "eval", "train_end")


def call(probes: Sequence[Any], hook: str, trainer: Any) -> None:
    """The hook of every probe that has it and whose turn it is; the trainer counts the seconds."""
    for number, probe in enumerate(probes):
        method = getattr(probe, hook, None)
        if method and (hook not in OF_A_STEP or _is_due(probe, trainer)):
            start = time.perf_counter()
            method(trainer)
            trainer.probe_seconds[number] += time.perf_counter() - start


def _is_due(probe: Any, trainer: Any) -> bool:
    return trainer.step % probe.every == 0 or trainer.step == trainer.n_steps - 1


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """The model in eval mode (no dropout) inside; its mode and the random state as before after."""
    mode = model.training
    model.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        model.train(mode)
