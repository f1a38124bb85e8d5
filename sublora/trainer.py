"""Training of the coordinates w, and of the gates that share them between A and B."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from plugins.lm.ranks import ALONE, World
from plugins.lm.schedules import warmup_cosine
from plugins.result import Curves
from sublora.batches import Batches, Diverged
from sublora.config import TrainConfig
from sublora.dataset import Dataset
from sublora.evaluate import Piece, losses_of
from sublora.files import Best
from sublora.subspace import SubspaceModule

GATE_LR = 0.01
TAU = 0.25, 0.01  # of the gates, at the first step and at the last soft one
BETAS, EPS, DECAY, CLIP = (0.9, 0.999), 1e-6, 1e-2, 1.0
N_RECORDS = 20  # over the training
VAL_WINDOWS = 64  # of the validation stream, evenly over it

Record = Callable[[int, Mapping[str, Any]], None]  # step, values


class Trainer:
    """AdamW on random windows of the training stream; what follows a step is decided by `state`.

    What is kept is the w of the record with the lowest validation loss, of a learned allocation
    among the records with hard gates: a bound does not ask how its w was found.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        module: SubspaceModule,
        dataset: Dataset,
        world: World = ALONE,
    ):
        self.cfg, self.module, self.data, self.world = cfg, module, dataset, world
        self.step = 0
        self.points: dict[int, dict[str, Any]] = {}  # curves, by step
        self.gates: list[dict[str, Any]] = []  # rows of the table
        self.best_loss, self.best_step = math.inf, 0
        self.best = module.w.detach().cpu().clone()
        self.n_soft = 0  # steps with soft gates
        groups = [{"params": [module.w], "base": cfg.train.lr, "weight_decay": DECAY}]
        self._trained = [module.w]
        if module.allotment.budgets:
            steps = cfg.train.steps
            self.n_soft = min(math.ceil(cfg.allocation.hard_from * steps), steps - 1)
            groups.append({"params": [module.gates], "base": GATE_LR, "weight_decay": 0.0})
            self._trained.append(module.gates)
        self.optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPS)
        self.batches = Batches(cfg, dataset, module.w.device, world)
        self._val = val_windows(dataset.val, cfg.model.block)

    def run(
        self,
        save: Callable[[], None],
        on_progress: Callable[[float], None],
        on_record: Record = lambda step, values: None,
    ) -> None:
        """The steps that are left. Raises Diverged."""
        steps = self.cfg.train.steps
        every = max(1, steps // N_RECORDS)
        self.module.train()
        if self.step == 0:
            self._record(math.nan, on_record)
        while self.step < steps:
            if self.module.allotment.budgets:
                self._set_gates()
            loss = self._update()
            self.step += 1
            if self.step % every == 0 or self.step == steps:
                self._record(loss, on_record)
            save()
            on_progress(self.step / steps)

    def _set_gates(self) -> None:
        """tau falls linearly while they are soft; then they are hard, and do not learn."""
        if self.step < self.n_soft:
            first, last = TAU
            share = self.step / max(1, self.n_soft - 1)
            self.module.tau = first + (last - first) * share
        elif self.module.k is None:
            self.module.harden()

    def _update(self) -> float:
        """One step; its loss, nats a token."""
        loss, gradients = self.batches.gradients(self.module, self._trained, "train", self.step)
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self._trained, CLIP)
        train = self.cfg.train
        factor = warmup_cosine(self.step, train.steps, train.warmup, train.min_lr / train.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        self.optimizer.step()
        return loss

    def _record(self, train_loss: float, on_record: Record) -> None:
        vocab = self.data.vocab_size
        found = losses_of(self.module, self._val, len(self._val), vocab, (), world=self.world)
        val_loss = float(np.mean(found.raw)) * math.log(2)
        point = {"val_loss": val_loss} | ({"train_loss": train_loss} if self.step else {})
        if not math.isfinite(val_loss):
            raise Diverged(f"the validation loss after step {self.step} is {val_loss}")
        self.points[self.step] = point
        on_record(self.step, point)
        if self.module.allotment.budgets:
            self.gates += gate_rows(self.module, self.step)
            if self.module.k is None:
                return
        if val_loss < self.best_loss:
            self.best_loss, self.best_step = val_loss, self.step
            self.best = self.module.w.detach().cpu().clone()

    def end(self) -> Best:
        k = self.module.k
        gates = None if k is None else k.tolist()
        config = asdict(self.cfg)
        hashes = self.data.sha256, self.module.prior_sha256()
        return Best(self.best.numpy(), None, gates, self.best_step, *hashes, config)

    def curves(self) -> dict[str, list]:
        curves = Curves()
        for step, values in self.points.items():
            curves.log(step, values)
        return curves.as_dict()

    def state(self) -> dict[str, Any]:
        k = self.module.k
        return {
            "step": self.step,
            "w": self.module.w.detach().cpu(),
            "gates": self._trained[-1].detach().cpu() if self.n_soft else None,
            "k": None if k is None else k.cpu(),
            "optimizer": self.optimizer.state_dict(),
            "points": self.points,
            "gate_rows": self.gates,
            "best": self.best,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step, self.points, self.gates = state["step"], state["points"], state["gate_rows"]
        self.best_loss, self.best_step = state["best_loss"], state["best_step"]
        self.best = state["best"]
        with torch.no_grad():
            self.module.w.copy_(state["w"])
            if self.n_soft:
                self.module.gates.copy_(state["gates"])
        if state["k"] is not None:
            self.module.harden(state["k"].tolist())
        self.optimizer.load_state_dict(state["optimizer"])


def gate_rows(module: SubspaceModule, step: int) -> list[dict[str, Any]]:
    """Of each layer, the head's number is -1: the share of B, and its coordinates if hard now."""
    values = zip(
        module.allotment.layers, module.gamma().tolist(), module.hard_k().tolist(), strict=True
    )
    return [{"step": step, "layer": layer, "gamma": gamma, "k": k} for layer, gamma, k in values]


def val_windows(ids: np.ndarray, block: int) -> list[Piece]:
    """At most VAL_WINDOWS of block + 1 tokens, evenly over the stream; what there is of a short
    one."""
    n = max(1, (len(ids) - 1) // block)
    chosen = np.unique(np.linspace(0, n - 1, VAL_WINDOWS).round().astype(int))
    pieces = [ids[i * block : (i + 1) * block + 1].astype(np.int64) for i in chosen]
    return [
        Piece(piece, np.arange(1, len(piece)), np.full(len(piece) - 1, unit))
        for unit, piece in enumerate(pieces)
    ]
