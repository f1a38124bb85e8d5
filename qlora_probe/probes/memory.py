"""Memory of a training step: what is kept for the backward pass, and what a GPU needs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from qlora_probe.data import collate
from qlora_probe.model import token_losses
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("memory")
class Memory:
    """Scalars saved_bytes, saved_bytes_checkpointed: what autograd keeps of one forward pass of
    the first sequences, a part of a batch, as it is and with every block computed again in the
    backward pass (Chen et al. 2016). The training itself does not checkpoint.

    On CUDA also peak_cuda_bytes: the most that was allocated from the first update to the last
    held-out loss.
    """

    def train_start(self, trainer: Trainer) -> None:
        _forget_peak(trainer)

    def eval(self, trainer: Trainer) -> None:
        if trainer.step:
            if trainer.lm.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(trainer.lm.device)
                known = trainer.scalars.get("peak_cuda_bytes", 0)  # of an interrupted process
                trainer.scalars["peak_cuda_bytes"] = max(known, peak)
            return
        model = trainer.model
        batch = collate(trainer.train_tokens[: trainer.cfg.train.batch])
        mode = model.training
        model.train()
        with torch.enable_grad(), torch.random.fork_rng():
            forward = partial(token_losses, model, *batch)
            trainer.scalars["saved_bytes"] = saved_bytes(forward, model)
            again = saved_bytes(forward, model, trainer.lm.blocks)
            trainer.scalars["saved_bytes_checkpointed"] = again
        model.train(mode)
        _forget_peak(trainer)


def saved_bytes(
    forward: Callable[[], Tensor], model: nn.Module, again: Sequence[nn.Module] = ()
) -> int:
    """Bytes of the storages that autograd keeps for the backward pass of forward(), each once.

    Those of the model's parameters and buffers do not count: they are there anyway. again: modules
    that are computed again in the backward pass; all their inputs count.
    """
    owned = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that keeps itself would never be freed

    with saved_tensors_hooks(keep, lambda tensor: tensor), checkpointed(again) as inputs:
        output = forward()
    for tensor in inputs:
        keep(tensor)
    del output  # not before: a storage that is freed gives its address to another
    return sum(found.values())


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside, the blocks keep only their inputs for the backward pass, which the list yielded
    gets; gradients are the same."""
    inputs: list[Tensor] = []

    def forward(block_forward: Callable, *args: Any, **kwargs: Any) -> Any:
        inputs.extend(x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x))
        return checkpoint(block_forward, *args, use_reentrant=False, **kwargs)

    for block in blocks:
        block.forward = partial(forward, block.forward)
    try:
        yield inputs
    finally:
        for block in blocks:
            del block.forward  # the class's own is seen again


def _forget_peak(trainer: Trainer) -> None:
    if trainer.lm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.lm.device)
