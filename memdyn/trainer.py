"""Fine-tuning on the trained passages, epoch by epoch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from memdyn import registry
from memdyn.config import TrainConfig
from memdyn.model import batch_size, lr_factor, make_optimizer
from plugins.lm.models import LM


class Diverged(Exception):
    """The loss is not finite any more."""

    def __init__(self, epoch: int, step: int):
        super().__init__(f"the loss is not finite in epoch {epoch}, update {step}")
        self.epoch, self.step = epoch, step


class Trainer:
    """One training: model, optimizer, and how far it is.

    Its state at the end of an epoch decides everything that follows: the order of the passages and
    the dropout of an epoch come from (cfg.seed, epoch), the learning rate from the step.
    """

    def __init__(self, cfg: TrainConfig, lm: LM, ids: Tensor, epochs: int):
        """ids [N, T] int64, on the CPU; `epochs` in all, for the linear learning rate."""
        self.cfg, self.lm, self.model, self.ids = cfg, lm, lm.model, ids
        self.optimizer = make_optimizer(cfg, lm.model)
        self.epoch = self.step = 0
        self._lr = self.optimizer.param_groups[0]["lr"]
        self._n_steps = epochs * math.ceil(len(ids) / batch_size(cfg))
        self._callbacks = [registry.callbacks.resolve(spec)() for spec in cfg.callbacks]

    @property
    def lr(self) -> float:
        """Of the last update; before the first one the config's."""
        return self.optimizer.param_groups[0]["lr"]

    def scale_lr(self, factor: float) -> None:
        """The learning rate of the next update, times factor."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def train_epoch(self) -> float:
        """One pass over the passages. Returns the mean loss of its updates, in nats a token.

        Raises Diverged.
        """
        seed = np.random.SeedSequence([self.cfg.seed, self.epoch])
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.ids)))
        losses = []
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(seed.generate_state(1)[0]))
            for rows in order.split(batch_size(self.cfg)):
                losses.append(self._update(self.ids[rows]))
                if not math.isfinite(losses[-1]):
                    raise Diverged(self.epoch + 1, self.step)
                self.step += 1
        self.model.eval()
        self.epoch += 1
        return sum(losses) / len(losses)

    def _update(self, ids: Tensor) -> float:
        factor = lr_factor(self.step, self._n_steps, self.cfg.lr_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr * factor
        for callback in self._callbacks:
            callback(self.step, self)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for part in ids.split(self.cfg.micro_batch or len(ids)):
            # Parts weigh as many as their tokens: the gradient is that of the whole batch.
            share = token_losses(self.model, part).sum() / (len(ids) * (ids.shape[1] - 1))
            share.backward()
            loss += share.item()
        if math.isfinite(loss):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return loss

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]


def token_losses(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """-ln p of tokens 2 .. T in nats: ids [B, T] -> [B, T - 1] float32, on the model's device."""
    ids = ids.to(next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(ids), -1)
