"""What the toy experiments compute: a curve that depends on the run's config alone."""

import time

import numpy as np

from plugins.result import RunResult


def check(cfg, replicas):
    if cfg.steps > 100 and cfg.model.width > 10:
        raise ValueError("steps > 100 needs model.width <= 10")


def run(cfg, workdir):
    if cfg.sleep:
        time.sleep(cfg.sleep)
    if cfg.seed in cfg.bad_seeds:
        raise RuntimeError(f"seed {cfg.seed} is bad")
    steps = np.arange(cfg.steps)
    loss = (cfg.model.scale * cfg.model.width / (1 + steps + cfg.seed)).astype(np.float32)
    diverged = cfg.seed in cfg.diverging_seeds
    return RunResult(
        {"final_loss": float(loss[-1])},
        {"step": steps, "loss": loss},
        status="diverged" if diverged else "ok",
    )


def run_stack(cfg, replicas, workdirs, on_progress):
    results = []
    for i, workdir in enumerate(workdirs):
        for key, values in replicas.items():
            owner, name = (cfg.model, key[6:]) if key.startswith("model.") else (cfg, key)
            setattr(owner, name, values[i])
        results.append(run(cfg, workdir))
        on_progress((i + 1) / len(workdirs))
    return results
