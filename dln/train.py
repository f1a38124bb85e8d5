"""Training of a stack of deep linear networks; a single run is a stack of one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dln.callbacks
import dln.optimizers  # noqa: F401  (both register)
from dln import registry
from dln.config import REPLICA_KEYS, TrainConfig, n_params
from dln.context import EvalContext
from dln.criteria import Criterion, get_criterion
from dln.data import make_dataset
from dln.loader import Batch, make_loader
from dln.metrics import evaluate, resolve_metrics
from dln.model import Factors, gradient_factors, init_weights
from dln.records import Recorder, record_steps
from plugins.result import RunResult

CHECK_EVERY = 100  # steps between two looks for divergence off the record grid
EXPLOSION = 1e12  # diverged: test_loss > EXPLOSION * (1 + its value at step 0)


def run_stack(
    cfg: TrainConfig,
    replicas: Mapping[str, Sequence],
    workdirs: Sequence[Path],
    on_progress: Callable[[float], None] | None = None,
) -> list[RunResult]:
    """One result per workdir; result i is that of the run alone with the i-th replica values.

    `replicas` maps replica keys to one value per run; empty for cfg's own values. Equal to the run
    alone to 1e-5 in float32, 1e-12 in float64 (relative, 1000 steps below the stability limit).
    `on_progress` gets the fraction of steps done, at records. No file is written.
    """
    return Trainer(cfg, _replica_columns(cfg, replicas, len(workdirs))).run(on_progress)


def sample_gradient(criterion: Criterion) -> Callable[[list[Tensor], Batch], Factors]:
    """The gradient from a batch's samples: (weights, batch) -> factors of each layer."""

    def gradient(weights: list[Tensor], batch: Batch) -> Factors:
        return gradient_factors(
            weights, batch.inputs, lambda outputs: criterion.gradient(outputs, batch.targets)
        )

    return gradient


class Trainer:
    """State of a stack in training; what callbacks see.

    weights: W_l [R, n_{l+1}, n_l] of the replicas still in training, which `alive` numbers.
    """

    def __init__(self, cfg: TrainConfig, columns: Mapping[str, Sequence]):
        self.cfg = cfg
        self.device = resolve_device(cfg.device)
        self.dtype = getattr(torch, cfg.dtype)
        replicas = len(columns["training.lr"])
        self.alive = np.arange(replicas)
        self.weights = init_weights(
            cfg.model,
            columns["model.model_seed"],
            columns["model.gamma"],
            device=self.device,
            dtype=self.dtype,
        )
        noise_stds = columns["data.noise_std"]
        self.dataset = make_dataset(
            cfg.data, cfg.model, columns["data.data_seed"], noise_stds, self.device
        )
        self.loader = make_loader(
            cfg,
            self.dataset,
            batch_seeds=columns["training.batch_seed"],
            noise_stds=noise_stds,
            dtype=self.dtype,
        )
        lr = torch.tensor(columns["training.lr"], dtype=torch.float64, device=self.device)
        spec = {"name": cfg.training.optimizer, "params": cfg.training.optimizer_params}
        self.optimizer = registry.optimizers.resolve(spec)(self.weights, lr)
        self.criterion = get_criterion(cfg.training.criterion)
        self.gradient = sample_gradient(self.criterion)
        self._metrics = resolve_metrics(cfg.metrics)
        self._callbacks = [registry.callbacks.resolve(spec) for spec in cfg.callbacks]
        self._callbacks = [factory() for factory in self._callbacks]
        self._grid = record_steps(cfg.max_steps, cfg.num_evaluations)
        self._recorder = Recorder(len(self._grid), replicas, self.dtype)
        self._diverged_at: dict[int, int] = {}
        self._loss_limit: Tensor | None = None  # [R], set at step 0

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next one drawn on; None is the full batch."""
        self.loader.set_batch_size(batch_size)

    def scale_lr(self, factor: float) -> None:
        """Multiply every replica's learning rate from the next update on."""
        self.optimizer.scale_lr(factor)

    @torch.no_grad()
    def run(self, on_progress: Callable[[float], None] | None = None) -> list[RunResult]:
        """Train to the last step, or until every replica has diverged."""
        max_steps, grid = self.cfg.max_steps, set(self._grid)
        for step in range(max_steps):
            for callback in self._callbacks:
                callback(step, self)
            if step in grid or step % CHECK_EVERY == 0:
                self._look(step, record=step in grid)
                if not len(self.alive):
                    break
                if on_progress is not None and step in grid:
                    on_progress(step / max_steps)
            factors = self.gradient(self.weights, self.loader.next_batch())
            self.optimizer.step(self.weights, factors)
        if len(self.alive):
            self._look(max_steps, record=True)
        if on_progress is not None:
            on_progress(1.0)
        return [self._result(replica) for replica in range(self._recorder.replicas)]

    def _look(self, step: int, *, record: bool) -> None:
        """Take diverged replicas out, then record the others."""
        ctx = self._context()
        losses = self.criterion(ctx.inputs @ ctx.product.mT, ctx.targets)
        if self._loss_limit is None:
            self._loss_limit = EXPLOSION * (1 + losses)
        # No look at the weights: one that is inf or nan makes a column of E inf or nan (0 * inf is
        # nan), and so the loss.
        fine = losses.isfinite() & (losses <= self._loss_limit)
        if not fine.all():
            self._drop(step, fine)
            if not len(self.alive):
                return
            ctx, losses = self._context(), losses[fine]
        if record:
            values = {"test_loss": losses}
            if self.cfg.training.track_train_loss:
                outputs = self.dataset.train_inputs @ ctx.product.mT
                values["train_loss"] = self.criterion(outputs, self.dataset.train_targets)
            values |= evaluate(self._metrics, ctx)
            self._recorder.add(step, self.alive, values)

    def _context(self) -> EvalContext:
        weights = [W.double() for W in self.weights]
        test = (self.dataset.test_inputs, self.dataset.test_targets)
        return EvalContext(weights, *test, self.criterion)

    def _drop(self, step: int, fine: Tensor) -> None:
        """Compact the stack to the replicas that are fine."""
        keep = fine.nonzero()[:, 0]
        kept = keep.cpu().numpy()
        self._diverged_at |= {int(r): step for r in np.delete(self.alive, kept)}
        self.alive = self.alive[kept]
        self.weights = [W[keep] for W in self.weights]
        self._loss_limit = self._loss_limit[keep]
        self.dataset.keep(keep)
        self.loader.keep(keep)
        self.optimizer.keep(keep)

    def _result(self, replica: int) -> RunResult:
        curves = self._recorder.curves(replica)
        scalars: dict[str, Any] = {
            f"final_{name}": float(curves[name][-1])
            for name in ("test_loss", "train_loss")
            if len(curves.get(name, ()))
        }
        scalars["n_params"] = n_params(self.cfg.model)
        if replica not in self._diverged_at:
            return RunResult(scalars=scalars, curves=curves)
        scalars["diverged_step"] = self._diverged_at[replica]
        return RunResult(scalars=scalars, curves=curves, status="diverged")


def resolve_device(device: str) -> torch.device:
    """`auto` is cuda when present, else cpu."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _replica_columns(
    cfg: TrainConfig, replicas: Mapping[str, Sequence], n: int
) -> dict[str, list[Any]]:
    """Every replica key's n values: given ones, or n times cfg's own."""
    if unknown := set(replicas) - set(REPLICA_KEYS):
        raise ValueError(f"{sorted(unknown)} may not differ inside a stack of dln/train")
    columns = {}
    for key in REPLICA_KEYS:
        section, name = key.split(".")
        values = replicas.get(key)
        columns[key] = [getattr(getattr(cfg, section), name)] * n if values is None else [*values]
        if len(columns[key]) != n:
            raise ValueError(f"{key} has {len(columns[key])} values for {n} runs")
    return columns
