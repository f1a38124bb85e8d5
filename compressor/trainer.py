"""Training of a stack of W on the same states, epoch by epoch, with early stopping each."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor import evaluate, objectives
from compressor.config import TrainConfig
from compressor.nested import nested_weights
from compressor.optim import Optimizer, clip, lr_factor
from compressor.spectrum import CHUNK
from compressor.states import States
from plugins.lm.ranks import ALONE, World

Record = Callable[[int, int, Mapping[str, Any]], None]  # replica, step, values
HELD_OUT = "heldout_loss"


class Trainer:
    """W [R, kmax, D] of the replicas still in training; a W of k < kmax rows ends in rows of 0.

    A zero row has a gradient of exactly 0, so it stays. What follows an epoch is decided by
    `state`: the order of the tokens comes from (seed, epoch).
    """

    def __init__(
        self,
        cfg: TrainConfig,
        states: States,
        initial: Sequence[Tensor],
        lr: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
        world: World = ALONE,
    ):
        self.cfg, self.states, self.device, self.world = cfg, states, device, world
        self.alive = np.arange(len(initial))  # replicas in training, by their place in the stack
        self.k = torch.tensor([len(W) for W in initial], device=device)
        self.W = torch.nn.utils.rnn.pad_sequence(list(initial), batch_first=True).to(device)
        self.lr = torch.tensor(lr, dtype=torch.float64, device=device)
        self.seeds = np.asarray(seeds)
        self.optimizer = Optimizer(cfg.train, self.W)
        self.epoch = 0  # done
        self.points: list[dict[int, dict[str, Any]]] = [{} for _ in initial]  # curves, by step
        self.patience = np.zeros(len(initial), int)  # epochs without a better held-out loss
        self.best_loss = np.full(len(initial), math.inf)
        self.best_epoch = np.zeros(len(initial), int)
        self.best = [W.clone() for W in initial]  # on the CPU, without padding
        self.ends = ["" for _ in initial]  # of a replica that left: stopped, diverged
        self.last_epoch = np.zeros(len(initial), int)  # that it was in to the end
        self._k = self.k.tolist()
        self._X = _on(device, states.train)
        self._offset = states.spectrum.offset.float().to(device)
        spectrum = states.spectrum
        self._C, self._heldout_C = spectrum.C.to(device), spectrum.heldout_C.to(device)
        self._vectors = spectrum.eigenvectors.to(device)
        batch = min(cfg.train.batch, len(states.train))
        self.batch, self.epoch_steps = batch, math.ceil(len(states.train) / batch)
        self.n_steps = self.epoch_steps * cfg.train.max_epochs
        self._sizes = cfg.model.nested
        self._weights = nested_weights(cfg, states.spectrum) if self._sizes else []
        self._is_plain_mse = cfg.train.objective == "mse" and not self._sizes
        self._mse_and_gradient = self._compiled(objectives.mse_and_gradient)
        self._objective = self._compiled(self._chosen_objective())

    @property
    def step(self) -> int:
        """Updates done at the end of an epoch."""
        return self.epoch * self.epoch_steps

    def run(
        self,
        save: Callable[[], None],
        on_progress: Callable[[float], None],
        on_record: Record = lambda replica, step, values: None,
    ) -> None:
        """The epochs that are left, until every replica has stopped."""
        self._on_record = on_record
        if self.epoch == 0:
            self._record(0)
        while self.epoch < self.cfg.train.max_epochs and len(self.alive):
            self._train_epoch(on_progress)
            self.epoch += 1
            self._end_epoch(self._record(self.step))
            save()
            on_progress(self.epoch / self.cfg.train.max_epochs)

    def _train_epoch(self, on_progress: Callable[[float], None]) -> None:
        cfg, done = self.cfg, self.step
        order = self._order()
        for i in range(self.epoch_steps):
            step = done + i
            tokens = order[:, i * self.batch : (i + 1) * self.batch]
            share = tokens[:, self.world.rank :: self.world.size]
            loss, gradient = self._loss_and_gradient(share, share.shape[1] / tokens.shape[1])
            self._loss = loss
            gradient, self._norm = clip(gradient, cfg.train.clip)
            self._clipped = torch.linalg.vector_norm(gradient, dim=(-2, -1))
            self._lr = self.lr * lr_factor(step, self.n_steps, cfg.train.schedule)
            self.optimizer.update(self.W, gradient, self._lr.float())
            step += 1
            if cfg.eval.every and step % cfg.eval.every == 0 and i + 1 < self.epoch_steps:
                n = len(self.alive)
                self._record(step)
                if len(self.alive) < n:  # some diverged
                    if not len(self.alive):
                        return
                    order = self._order()
                on_progress(step / self.n_steps)

    def _order(self) -> Tensor:
        """[R, N] token indices of this epoch; [1, N] where all seeds are one."""
        unique, place = np.unique(self.seeds[self.alive], return_inverse=True)
        n = len(self.states.train)
        orders = torch.stack(
            [torch.randperm(n, generator=epoch_generator(seed, self.epoch)) for seed in unique]
        )
        return orders if len(unique) == 1 else orders[torch.from_numpy(place)]

    def _loss_and_gradient(self, tokens: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Of a batch, [R], [R, k, D]; `tokens` [R or 1, B] are this rank's share of it."""
        if not tokens.numel():  # the last batch may have fewer tokens than there are ranks
            loss, gradient = self.W.new_zeros(len(self.W)), torch.zeros_like(self.W)
        else:
            # index_select copies whole rows; indexing by [R, B] goes number by number
            rows = self._X.index_select(0, tokens.reshape(-1).to(self._X.device))
            X = rows.to(self.device).view(*tokens.shape, -1)
            loss, gradient = self._of_batch(X)
        if self.world.size == 1:
            return loss, gradient
        return self.world.sum(loss * share), self.world.sum(gradient * share)

    def _of_batch(self, X: Tensor) -> tuple[Tensor, Tensor]:
        is_bf16 = self.cfg.train.amp == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16):
            if self._is_plain_mse:
                loss, gradient = self._mse_and_gradient(X, self.W, self._offset)
                return loss.float(), gradient.float()
            W = self.W.detach().requires_grad_()
            loss = self._objective(X, W, self._offset)
            [gradient] = torch.autograd.grad(loss.sum(), W)
        return loss.detach().float(), gradient

    def _chosen_objective(self) -> objectives.Objective:
        if self._sizes:
            return partial(objectives.nested_mse, sizes=self._sizes, weights=self._weights)
        return objectives.objective(self.cfg.train.objective)

    def _compiled(self, function: Callable) -> Callable:
        choice = self.cfg.train.compile
        is_on = choice == "on" or (choice == "auto" and self.device.type == "cuda")
        return torch.compile(function) if is_on else function

    @torch.no_grad()
    def _record(self, step: int) -> np.ndarray:
        """A point of every curve; the held-out loss [R]. Replicas that diverged leave."""
        W, n = self.W.double(), self.cfg.eval.log_modes
        k, spectrum = self.k[torch.from_numpy(self.alive)], self.states.spectrum
        ks = [self._k[r] for r in self.alive]
        train, heldout = evaluate.mse_of(W, self._C), evaluate.mse_of(W, self._heldout_C)
        heldout_loss = self._heldout_loss(W, heldout)
        values = {
            "train_mse": train,
            "heldout_mse": heldout,
            "train_gap": train / _positive([spectrum.mse_pca(k) for k in ks], train) - 1,
            "heldout_gap": heldout / _positive([spectrum.mse_pca_heldout(k) for k in ks], train)
            - 1,
            "overlap": evaluate.subspace_overlap(W, k, self._vectors),
            "orth": evaluate.orth_defect(W, k),
            "idem": evaluate.idem_defect(W),
            HELD_OUT: heldout_loss,
            "mode_strength": evaluate.mode_strength(W, self._vectors, min(n, self.states.dim)),
        }
        if step:
            values |= {
                "loss": self._loss,
                "lr": self._lr,
                "grad_norm": self._norm,
                "grad_norm_clipped": self._clipped,
            }
        columns = {name: value.double().cpu().numpy() for name, value in values.items()}
        is_finite = W.isfinite().all(-1).all(-1).cpu().numpy() & np.isfinite(columns[HELD_OUT])
        for row, replica in enumerate(self.alive):
            point = {name: column[row].tolist() for name, column in columns.items()}
            if is_finite[row]:
                self.points[replica][step] = point
                self._on_record(replica, step, point)
            else:
                self.ends[replica] = "diverged"
        losses = columns[HELD_OUT]
        if not is_finite.all():
            self._keep(is_finite)
        return losses[is_finite]

    def _heldout_loss(self, W: Tensor, heldout_mse: Tensor) -> Tensor:
        """The objective on the held-out split, [R] float64."""
        if self._sizes:
            losses = [evaluate.mse_of(W[:, :size], self._heldout_C) for size in self._sizes]
            return sum(w * loss for w, loss in zip(self._weights, losses, strict=True))
        if self._is_plain_mse:
            return heldout_mse
        X, offset, total = self.states.heldout, self._offset.double(), 0.0
        for start in range(0, len(X), CHUNK):
            chunk = X[None, start : start + CHUNK].to(self.device).double()
            total = total + self._objective(chunk, W, offset) * chunk.shape[1]
        return total / len(X)

    def _end_epoch(self, heldout_loss: np.ndarray) -> None:
        train = self.cfg.train
        going_on = np.ones(len(self.alive), bool)
        self.last_epoch[self.alive] = self.epoch
        for row, replica in enumerate(self.alive):
            if heldout_loss[row] < self.best_loss[replica] - train.min_delta:
                self.best_loss[replica], self.best_epoch[replica] = heldout_loss[row], self.epoch
                self.best[replica] = self.W[row, : self._k[replica]].cpu().clone()
                self.patience[replica] = 0
                continue
            self.patience[replica] += 1
            if train.early_stopping and self.patience[replica] >= train.patience:
                self.ends[replica], going_on[row] = "stopped", False
        if not going_on.all():
            self._keep(going_on)

    def _keep(self, which: np.ndarray) -> None:
        index = torch.from_numpy(np.flatnonzero(which)).to(self.device)
        self.alive = self.alive[which]
        self.W, self.lr = self.W[index], self.lr[index]
        self.optimizer.keep(index)

    def state(self, replica: int) -> dict[str, Any]:
        """Of one replica at the end of an epoch; of one that left, without what trains."""
        state = {
            "epoch": self.epoch,
            "n_updates": self.optimizer.n_updates,
            "points": self.points[replica],
            "patience": int(self.patience[replica]),
            "best_loss": float(self.best_loss[replica]),
            "best_epoch": int(self.best_epoch[replica]),
            "best": self.best[replica],
            "end": self.ends[replica],
            "last_epoch": int(self.last_epoch[replica]),
            "n_steps": int(self.last_epoch[replica]) * self.epoch_steps,
        }
        [row] = np.flatnonzero(self.alive == replica).tolist() or [None]
        if row is not None:
            k = self._k[replica]
            tensors = {"W": self.W, "m": self.optimizer.m, "v": self.optimizer.v}
            state |= {name: tensor[row, :k].cpu().clone() for name, tensor in tensors.items()}
        return state

    def load_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Of all replicas, at the end of the same epoch."""
        [self.epoch] = {state["epoch"] for state in states}
        self.optimizer.n_updates = states[0]["n_updates"]
        for replica, state in enumerate(states):
            self.points[replica] = state["points"]
            self.patience[replica], self.best_loss[replica] = state["patience"], state["best_loss"]
            self.best_epoch[replica], self.best[replica] = state["best_epoch"], state["best"]
            self.ends[replica], self.last_epoch[replica] = state["end"], state["last_epoch"]
            if not state["end"]:
                k = self._k[replica]
                self.W[replica, :k] = state["W"].to(self.device)
                self.optimizer.m[replica, :k] = state["m"].to(self.device)
                self.optimizer.v[replica, :k] = state["v"].to(self.device)
        self._keep(np.array([not end for end in self.ends]))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """For the order of the tokens."""
    key = np.random.SeedSequence([int(seed), epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key) >> 1)


def _on(device: torch.device, X: Tensor) -> Tensor:
    """On the GPU where it takes less than half of what is free; else where it is."""
    if device.type != "cuda":
        return X
    free, _ = torch.cuda.mem_get_info(device)
    return X.to(device) if X.nbytes < free / 2 else X


def _positive(values: Sequence[float], like: Tensor) -> Tensor:
    """nan where 0: nothing is to be divided by."""
    found = torch.tensor(values, dtype=torch.float64, device=like.device)
    return torch.where(found > 0, found, math.nan)
