"""The loop: stacks of networks trained step by step and recorded; diverged replicas leave."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from dln.config import n_params
from dln.context import EvalContext
from dln.records import Recorder, record_steps
from dln.trainer import Trainer
from plugins.result import RunResult

CHECK_EVERY = 100  # steps between two looks for divergence off the record grid
EXPLOSION = 1e12  # diverged: test_loss > EXPLOSION * (1 + its value at step 0)

Between = Callable[..., dict[str, Tensor]]  # columns from the contexts of all trainers


@torch.no_grad()
def train_in_lockstep(
    trainers: Mapping[str, Trainer],
    on_progress: Callable[[float], None] | None = None,
    between: Between | None = None,
) -> list[RunResult]:
    """Train to the last step, or until every replica has diverged; one result per replica.

    trainers: the networks of a run by the suffix of their columns; one data set, record grid and
    number of replicas. The divergence of one network ends its run. `between` measures a record's
    contexts together. `on_progress` gets the fraction of steps done, at records. The scalar
    seconds_metric_<name> is a replica's share of the time of a metric.
    """
    return _Lockstep(trainers, between).run(on_progress)


class _Lockstep:
    def __init__(self, trainers: Mapping[str, Trainer], between: Between | None):
        self._trainers, self._between = trainers, between
        [self._dataset] = {id(t.dataset): t.dataset for t in trainers.values()}.values()
        cfg = next(iter(trainers.values())).cfg
        self._max_steps = cfg.max_steps
        self._grid = record_steps(cfg.max_steps, cfg.num_evaluations)
        replicas = len(self._dataset.which)
        self._alive = np.arange(replicas)
        self._recorder = Recorder(len(self._grid), replicas, getattr(torch, cfg.dtype))
        self._diverged_at: dict[int, int] = {}
        self._loss_limits: dict[str, Tensor] = {}  # [R] of each network, set at step 0
        self._seconds: dict[str, np.ndarray] = {}  # [R] spent in each metric

    def run(self, on_progress: Callable[[float], None] | None) -> list[RunResult]:
        trainers, grid = self._trainers.values(), set(self._grid)
        for step in range(self._max_steps):
            for trainer in trainers:
                trainer.call_back(step)
            if step in grid or step % CHECK_EVERY == 0:
                self._look(step, record=step in grid)
                if not len(self._alive):
                    break
                if on_progress is not None and step in grid:
                    on_progress(step / self._max_steps)
            for trainer in trainers:
                trainer.update()
        if len(self._alive):
            self._look(self._max_steps, record=True)
        if on_progress is not None:
            on_progress(1.0)
        return [self._result(replica) for replica in range(self._recorder.replicas)]

    def _look(self, step: int, *, record: bool) -> None:
        """Take diverged replicas out, then record the others."""
        contexts = {suffix: trainer.context() for suffix, trainer in self._trainers.items()}
        losses = self._losses(contexts)
        fine = torch.ones(len(self._alive), dtype=torch.bool, device=self._dataset.which.device)
        for suffix in self._trainers:
            # No look at the weights: one that is inf or nan makes a column of E inf or nan
            # (0 * inf is nan), and so the loss.
            loss = losses[f"test_loss{suffix}"]
            limit = self._loss_limits.setdefault(suffix, EXPLOSION * (1 + loss))
            fine &= loss.isfinite() & (loss <= limit)
        if not fine.all():
            self._drop(step, fine)
            if not len(self._alive):
                return
            contexts = {suffix: trainer.context() for suffix, trainer in self._trainers.items()}
            losses = {name: loss[fine] for name, loss in losses.items()}
        if record:
            values = dict(losses)
            for suffix, trainer in self._trainers.items():
                seconds: dict[str, float] = {}
                measured = trainer.measure(contexts[suffix], seconds)
                values |= {f"{name}{suffix}": column for name, column in measured.items()}
                self._spend({f"{name}{suffix}": spent for name, spent in seconds.items()})
            if self._between is not None:
                seconds = {}
                values |= self._between(*contexts.values(), seconds=seconds)
                self._spend(seconds)
            self._recorder.add(step, self._alive, values)

    def _spend(self, seconds: Mapping[str, float]) -> None:
        """Share what metrics took among the replicas that are there."""
        for name, spent in seconds.items():
            shares = self._seconds.setdefault(name, np.zeros(self._recorder.replicas))
            shares[self._alive] += spent / len(self._alive)

    def _losses(self, contexts: Mapping[str, EvalContext]) -> dict[str, Tensor]:
        return {
            f"{name}{suffix}": loss
            for suffix, trainer in self._trainers.items()
            for name, loss in trainer.losses(contexts[suffix]).items()
        }

    def _drop(self, step: int, fine: Tensor) -> None:
        """Compact the stacks to the replicas that are fine."""
        keep = fine.nonzero()[:, 0]
        kept = keep.cpu().numpy()
        self._diverged_at |= {int(r): step for r in np.delete(self._alive, kept)}
        self._alive = self._alive[kept]
        self._loss_limits = {name: limit[keep] for name, limit in self._loss_limits.items()}
        self._dataset.keep(keep)
        for trainer in self._trainers.values():
            trainer.keep(keep)

    def _result(self, replica: int) -> RunResult:
        curves = self._recorder.curves(replica)
        scalars: dict[str, float | int] = {}
        for suffix, trainer in self._trainers.items():
            for name in (f"test_loss{suffix}", f"train_loss{suffix}"):
                if len(curves.get(name, ())):
                    scalars[f"final_{name}"] = float(curves[name][-1])
            scalars[f"n_params{suffix}"] = n_params(trainer.cfg.model)
        for name, shares in self._seconds.items():
            scalars[f"seconds_metric_{name}"] = float(shares[replica])
        if replica not in self._diverged_at:
            return RunResult(scalars=scalars, curves=curves)
        scalars["diverged_step"] = self._diverged_at[replica]
        return RunResult(scalars=scalars, curves=curves, status="diverged")
