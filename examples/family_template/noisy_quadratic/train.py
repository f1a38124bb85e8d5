"""The experiment on a stack of runs; a single run is a stack of one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from noisy_quadratic import metrics as metrics  # registers them
from noisy_quadratic import registry
from noisy_quadratic.config import TrainConfig
from noisy_quadratic.metrics import State
from noisy_quadratic.theory import eigenvalues
from plugins.registry import split_spec
from plugins.result import Curves, RunResult


def run_stack(
    cfg: TrainConfig, replicas: Mapping[str, Sequence], workdirs: Sequence[Path]
) -> list[RunResult]:
    """One result per workdir; result r is that of the run alone with the r-th replica values.

    `replicas` maps those of the replica keys that vary in the stack to one value per run. Every
    run has a generator of its own, so no run depends on its neighbours. A run whose loss is no
    longer finite has diverged and keeps the records before.
    """
    R = len(workdirs)
    seeds = replicas.get("seed", [cfg.seed] * R)
    lr = np.array(replicas.get("lr", [cfg.lr] * R))[:, None]
    generators = [np.random.default_rng(seed) for seed in seeds]
    named = {split_spec(spec)[0]: registry.metrics.resolve(spec) for spec in cfg.metrics}
    h = eigenvalues(cfg.dim, cfg.alpha)
    w = np.stack([g.standard_normal(cfg.dim) for g in generators])  # [R, dim]
    curves = [Curves() for _ in range(R)]
    alive = np.ones(R, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(cfg.steps + 1):
            if step % cfg.every == 0 or step == cfg.steps:
                state = State(w, h)
                values = {"loss": state.mode_losses.sum(1)}
                alive &= np.isfinite(values["loss"])
                values |= {name: metric(state) for name, metric in named.items()}
                for r in np.flatnonzero(alive):
                    curves[r].log(step, {name: value[r] for name, value in values.items()})
            gradient = h * w
            if cfg.batch_size is not None:  # of covariance diag(h) / batch_size
                noise = np.stack([g.standard_normal(cfg.dim) for g in generators])
                gradient += np.sqrt(h / cfg.batch_size) * noise
            w = w - lr * gradient
    return [_result(curve.as_dict(), bool(ok)) for curve, ok in zip(curves, alive, strict=True)]


def _result(curves: dict[str, list], is_finite: bool) -> RunResult:
    final = {"final_loss": float(curves["loss"][-1])}
    return RunResult(final, curves, status="ok" if is_finite else "diverged")
