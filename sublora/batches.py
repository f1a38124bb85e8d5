"""Random windows of the training stream, and gradients over them that the ranks share."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from plugins.lm.ranks import ALONE, World
from sublora.config import TrainConfig
from sublora.dataset import Dataset
from sublora.streams import stream


class Diverged(Exception):
    """A loss is not finite."""


class Batches:
    """What a batch of a purpose is, the seed decides; and what each rank drops out of it."""

    def __init__(self, cfg: TrainConfig, data: Dataset, device: torch.device, world: World = ALONE):
        self._train, self._seed, self._block = cfg.train, cfg.seed, cfg.model.block
        self._data, self._device, self._world = data, device, world
        tokens = cfg.train.tokens_per_step
        self.n_windows = tokens // cfg.model.block if tokens else cfg.train.batch

    def gradients(
        self,
        logits_of: Callable[[Tensor], Tensor],
        parameters: Sequence[Tensor],
        purpose: str,
        step: int,
    ) -> tuple[float, list[Tensor]]:
        """The mean loss, nats a token, and its gradients, over all ranks; 0 for a parameter that
        the loss does not depend on. Raises Diverged."""
        rng = stream(self._seed, purpose, step)
        starts = rng.integers(len(self._data.train) - self._block, size=self.n_windows)
        mine = starts[self._world.rank :: self._world.size]
        dropout = stream(self._seed, purpose, "dropout", step, self._world.rank)
        torch.manual_seed(int(dropout.integers(2**62)))
        sums = torch.zeros(1 + sum(p.numel() for p in parameters), device=self._device)
        for at in range(0, len(mine), self._train.batch):
            part = mine[at : at + self._train.batch]
            is_bf16 = self._train.amp == "bf16"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
                loss = self._loss(logits_of, part) * (len(part) / self.n_windows)
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            sums += torch.cat([loss.detach()[None].float(), *(g.flatten() for g in found)])
        loss, *gradients = self._world.sum(sums).split([1, *(p.numel() for p in parameters)])
        if not math.isfinite(loss.item()):
            raise Diverged(f"the loss of step {step + 1} is {loss.item()}")
        shaped = [g.view_as(p) for g, p in zip(gradients, parameters, strict=True)]
        return loss.item(), shaped

    def _loss(self, logits_of: Callable[[Tensor], Tensor], starts: np.ndarray) -> Tensor:
        windows = starts[:, None] + np.arange(self._block + 1)
        ids = torch.from_numpy(self._data.train[windows].astype(np.int64)).to(self._device)
        logits = logits_of(ids[:, :-1])[..., : self._data.vocab_size]
        return cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
