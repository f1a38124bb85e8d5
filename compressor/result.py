"""The row, the curves and the files of a compressor that is trained."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from compressor import metrics as metrics  # registers them
from compressor import registry
from compressor.config import TrainConfig
from compressor.evaluate import mse_of
from compressor.model import BEST, Best, Compressor, find_best, save_best
from compressor.nested import nested_table
from compressor.reconstruction import Context
from compressor.spectrum import second_moment
from compressor.states import States, make_states
from plugins.registry import split_spec
from plugins.result import Curves, RunResult

EIGENVALUES = "eigenvalues.npy"


def make_result(
    cfg: TrainConfig,
    states: States,
    compressor: Compressor,
    end: Mapping[str, Any],
    workdir: Path,
    more: Mapping[str, float],
    optima: dict[int, Context],
) -> RunResult:
    """The row of a run; writes its files. `optima`: those of Context, shared by a stack."""
    spectrum, k, n_train = states.spectrum, compressor.k, len(states.train)
    if n_train < k:
        print(
            f"warning: {n_train} states of the train split are fewer than D' = {k}: PCA has no "
            "error there",
            file=sys.stderr,
        )
    ctx = Context(compressor.W.double(), spectrum, states.train, states.heldout, optima)
    scalars = {
        "dim": states.dim,
        "k": k,
        "n_params": compressor.W.numel(),
        "n_tokens": n_train + len(states.heldout),
        "n_tokens_train": n_train,
        "n_tokens_heldout": len(states.heldout),
        "lm_sha256": states.lm_sha256,
        "corpus_sha256": states.corpus_sha256,
        "best_epoch": end["best_epoch"],
        "n_epochs": end["last_epoch"],
        "n_steps": end["n_steps"],
        "stopped_early": end["end"] == "stopped",
        "seconds_train": end["seconds"],
        **more,
    }
    for spec in cfg.metrics:
        value = registry.metrics.resolve(spec)(ctx)
        scalars |= value if isinstance(value, Mapping) else {split_spec(spec)[0]: value}
    scalars = {name: value for name, value in scalars.items() if _is_defined(value)}
    workdir.mkdir(parents=True, exist_ok=True)
    save_best(workdir / BEST, Best(compressor, asdict(cfg), workdir.name, scalars))
    np.save(workdir / EIGENVALUES, spectrum.eigenvalues.numpy())
    curves = Curves()
    for step, values in end["points"].items():
        curves.log(step, values)
    return RunResult(
        scalars=scalars,
        curves=curves.as_dict(),
        tables={"nested": nested_table(cfg, ctx)} if cfg.model.nested else {},
        artifacts=[workdir / BEST, workdir / EIGENVALUES],
        status="diverged" if end["end"] == "diverged" else "ok",
    )


def forgetting(
    cfg: TrainConfig, compressors: Sequence[Compressor], store: Path
) -> list[dict[str, float]]:
    """Mean squared error of each on the held-out states of stage 1a, before and after stage 1b."""
    best, _ = find_best(cfg.train.init_from, store)
    old = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), best.config))
    heldout = make_states(replace(old, device=cfg.device, processes=cfg.processes)).heldout

    def mse(mu: Tensor, W: Tensor) -> Tensor:
        return mse_of(W.double(), second_moment(heldout, mu.double()))

    before = mse(best.compressor.mu, best.compressor.W[None]).item()
    afters = mse(compressors[0].mu, torch.stack([compressor.W for compressor in compressors]))
    return [
        {
            "mse_1a_before": before,
            "mse_1a_after": after,
            "forget_1a": after / before - 1 if before else math.nan,
        }
        for after in afters.tolist()
    ]


def _is_defined(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
