"""Training of one net on a task: updates, the average of its weights, its curve, its state."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compressor.optim import lr_factor
from compressor.trainer import epoch_generator
from compressor.trm_baselines import score
from compressor.trm_config import FitConfig
from compressor.trm_data import Task

N_RECORDS = 4  # of the held-out R^2, evenly over the updates
EVAL_BATCH = 64  # sequences


class Fit:
    """A net is called as (z, carry) -> (predictions, carry); each batch is stepped on n_sup times.

    What follows a batch is decided by `state`: the order of the sequences is that of (seed, epoch).
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        cfg: FitConfig,
        *,
        lr: float,
        n_sup: int,
        n_updates: int,
        ema: float,
    ):
        self.net, self.task, self.cfg, self.lr = net, task, cfg, lr
        self.n_sup, self.n_updates, self.ema = n_sup, n_updates, ema
        self.average = copy.deepcopy(net).requires_grad_(False)  # is evaluated
        self.optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.0, fused=True)
        self.step = 0  # updates done
        self.points: dict[int, dict[str, float]] = {}
        self.is_diverged = False
        self.seconds = 0.0
        self._device = next(net.parameters()).device
        batch = min(cfg.batch, task.n_train)
        self._epoch_batches = math.ceil(task.n_train / batch)
        self._batch = batch

    def run(self, save: Callable[[], None], on_progress: Callable[[float], None]) -> None:
        """The updates that are left, to a loss that is not finite."""
        while self.step < self.n_updates and not self.is_diverged:
            start, due = time.perf_counter(), self._next_record()
            self._train_batch()
            if self.step >= due and not self.is_diverged:
                self._record()
            self.seconds += time.perf_counter() - start
            save()
            on_progress(self.step / self.n_updates)

    def _train_batch(self) -> None:
        epoch, i = divmod(self.step // self.n_sup, self._epoch_batches)
        order = torch.randperm(self.task.n_train, generator=epoch_generator(self.cfg.seed, epoch))
        rows = order[i * self._batch : (i + 1) * self._batch]
        mask = self.task.mask[rows].to(self._device)
        z, target = (x[rows].to(self._device) for x in (self.task.inputs, self.task.targets))
        carry = None
        for _ in range(self.n_sup):
            prediction, carry = self.net(z, carry)
            loss = (prediction - target)[mask].square().mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.cfg.clip is not None:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.cfg.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * lr_factor(self.step, self.n_updates, "cosine")
            self.optimizer.step()
            self.step += 1
            update_average(self.average, self.net, self.ema, self.step)
        self._loss = loss.item()
        self.is_diverged = not math.isfinite(self._loss)

    def _next_record(self) -> int:
        """The update from which on a record is due."""
        done = self.step * N_RECORDS // self.n_updates
        return math.ceil((done + 1) * self.n_updates / N_RECORDS)

    def _record(self) -> None:
        heldout = slice(self.task.n_train, None)
        *_, last = self.predictions(heldout)
        r2 = score(self.task, last, heldout).r2
        if math.isfinite(r2):
            self.points[self.step] = {"heldout_r2": r2, "loss": self._loss}
        else:  # by the last update
            self.is_diverged = True

    @torch.no_grad()
    def predictions(self, sequences: slice) -> list[Tensor]:
        """[n, L, k] on the CPU after each of the n_sup steps, of the average."""
        steps: list[list[Tensor]] = [[] for _ in range(self.n_sup)]
        for z in self.task.inputs[sequences].split(EVAL_BATCH):
            carry, z = None, z.to(self._device)
            for found in steps:
                prediction, carry = self.average(z, carry)
                found.append(prediction.cpu())
        return [torch.cat(found) for found in steps]

    def state(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "points": self.points,
            "is_diverged": self.is_diverged,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.points = state["step"], state["points"]
        self.is_diverged, self.seconds = state["is_diverged"], state["seconds"]


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """average = d average + (1 - d) net with d = min(decay, (1 + step) / (10 + step)).

    The second limit makes it forget the initial weights, which decay^updates would keep in runs of
    some hundred updates.
    """
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - d)
