"""Training of the adapters, update by update, with probes looking on."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from plugins.lm.tables import append_rows
from qlora_probe import hooks
from qlora_probe.config import TrainConfig, min_8bit_size
from qlora_probe.data import IGNORED, Tokens, collate, in_batches, order, updates
from qlora_probe.model import Adapted, token_losses
from qlora_probe.optim import learning_rate, make_optimizer


class Diverged(Exception):
    """The training loss, or that of the held-out text, is not finite any more."""


class Trainer:
    """One training, and what it and its probes have measured.

    Its state after an update decides everything that follows: the order of the examples comes from
    (cfg.seed, epoch), dropout from (cfg.seed, update, part).
    """

    def __init__(
        self,
        cfg: TrainConfig,
        lm: Adapted,
        train: Sequence[Tokens],
        held_out: Sequence[Tokens],
        probes: Sequence[Any] = (),
    ):
        self.cfg, self.lm, self.model, self.parameters = cfg, lm, lm.model, lm.parameters
        self.train_tokens, self.held_out, self.probes = train, held_out, probes
        size = cfg.train.batch * cfg.train.accum
        self.n_steps = updates(len(train), size, cfg.train.epochs)
        self._order = list(order(len(train), size, cfg.train.epochs, cfg.seed))
        self.eval_steps = set(np.linspace(0, self.n_steps, cfg.eval.n + 2).round().astype(int))
        self.optimizer = make_optimizer(cfg.optim, self.parameters, min_8bit_size(cfg))
        self.step = 0  # updates done
        self.curves: dict[int, dict[str, float]] = {}
        self.tables: dict[str, dict[str, list]] = {}
        self.scalars: dict[str, Any] = {}
        self.probe_seconds: Counter[int] = Counter()  # spent in probes, by their place in the list
        # of the update in progress, for probes
        self.parts: list[tuple[torch.Tensor, torch.Tensor]] = []  # ids, labels of each part
        self.part = 0  # whose backward pass was the last
        self.grad_norm = math.nan  # before clipping

    def log(self, **values: float) -> None:
        """Points of curves after `step` updates; at a gradient, those before its own update."""
        self.curves.setdefault(self.step, {}).update(values)

    def add_rows(self, table: str, **columns: Any) -> None:
        """Rows of a table; a scalar holds for all of them."""
        append_rows(self.tables.setdefault(table, {}), columns)

    def run(self, save: Callable[[], None], on_progress: Callable[[float], None]) -> None:
        """The updates that are left; `save` every cfg.train.save_every of them. Raises Diverged."""
        if self.step == 0:
            self._evaluate()
        while self.step < self.n_steps:
            self._update([self.train_tokens[i] for i in self._order[self.step]])
            if self.step in self.eval_steps:
                self._evaluate()
            if self.step % self.cfg.train.save_every == 0:
                save()
            on_progress(self.step / self.n_steps)

    def loss_of(self, parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Mean -ln p over all target tokens of the parts; no gradient mode is set here."""
        losses = torch.cat([token_losses(self.model, *part) for part in parts])
        return losses.mean()

    def _update(self, sequences: Sequence[Tokens]) -> None:
        cfg = self.cfg
        if self.step in cfg.train.reset_state_at:
            self.optimizer.state.clear()
        lr = learning_rate(self.step, self.n_steps, cfg.optim.lr, cfg.train.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        size = cfg.train.batch
        self.parts = [collate(sequences[i : i + size]) for i in range(0, len(sequences), size)]
        # Of the whole batch: 16 x 1, 4 x 4 and 1 x 16 sequences have the same gradient.
        n_targets = sum((labels != IGNORED).sum().item() for _, labels in self.parts)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for part, (ids, labels) in enumerate(self.parts):
            self.part = part
            with torch.random.fork_rng():
                torch.manual_seed(self._dropout_seed())
                share = token_losses(self.model, ids, labels).sum() / n_targets
            share.backward()
            loss += share.item()
            hooks.call(self.probes, "micro_grad", self)
        self.log(train_loss=loss, lr=lr)
        if not math.isfinite(loss):
            raise Diverged
        hooks.call(self.probes, "grad", self)
        self.grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, cfg.optim.clip).item()
        hooks.call(self.probes, "clipped", self)
        self.optimizer.step()
        hooks.call(self.probes, "stepped", self)
        self.step += 1

    def _dropout_seed(self) -> int:
        key = np.random.SeedSequence([self.cfg.seed, self.step, self.part])
        return int(key.generate_state(1)[0])

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Held-out loss in nats a target token, dropout off."""
        batches = [collate(batch) for batch in in_batches(self.held_out)]
        with hooks.looking(self.model):
            loss = self.loss_of(batches).item()
        self.log(eval_loss=loss)
        if not math.isfinite(loss):  # after the last update nothing else would tell
            raise Diverged
        hooks.call(self.probes, "eval", self)

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [p.detach().clone() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "curves": self.curves,
            "tables": self.tables,
            "scalars": self.scalars,
            "probe_seconds": dict(self.probe_seconds),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.curves = state["step"], state["curves"]
        self.tables, self.scalars = state["tables"], state["scalars"]
        self.probe_seconds = Counter(state["probe_seconds"])
