"""Checks across the fields of a config at planning time: bad input ends before any job starts."""

import os
from collections.abc import Mapping, Sequence

from compressor import callbacks as callbacks
from compressor import column_arithmetic as column_arithmetic
from compressor import inits as inits
from compressor import metrics as metrics
from compressor import registry
from compressor.config import CORPUS, SYNTHETIC_DIM, TrainConfig, rank_of, shape
from compressor.extract import check_site
from compressor.spectra import parse_spectrum
from plugins.lm.corpora import check_corpus
from plugins.lm.models import check_source
from plugins.registry import check_specs

_SYNTHETIC_KEYS = {"rows": 4096, "spectrum": "power:1", "mean": 0.0}


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "a run starts its own ranks: python sweep.py ... processes=N, without torchrun or "
            "accelerate launch (WORLD_SIZE is set)"
        )
    check_states(cfg)
    ratios = replicas.get("model.ratio", [cfg.model.ratio])
    sizes = replicas.get("model.d_compressed", [cfg.model.d_compressed])
    n = max(len(ratios), len(sizes))
    dim = (shape(cfg) or (None,))[0]
    for ratio, k in zip(ratios * (n // len(ratios)), sizes * (n // len(sizes)), strict=True):
        rank = rank_of(k, ratio, dim)
        if cfg.model.nested and rank not in (None, cfg.model.nested[-1]):
            raise ValueError(f"model.nested={cfg.model.nested} must end in D' = {rank}")
    if cfg.model.nested_weights == "inverse_pca" and dim in cfg.model.nested:
        raise ValueError(
            f"model.nested_weights=inverse_pca: PCA of all {dim} dimensions has no error to divide "
            f"by; take {dim} out of model.nested, or nested_weights=equal"
        )
    if cfg.model.nested and cfg.train.objective != "mse":
        raise ValueError(f"model.nested needs train.objective=mse, got {cfg.train.objective}")
    registry.matrices.resolve(cfg.model.init)
    if (cfg.stage == "1b") != (cfg.train.init_from is not None):
        raise ValueError(
            f"train.init_from={cfg.train.init_from}: stage=1b needs the run_id (or best.pt) of a "
            "run of stage=1a, stage=1a takes none (null)"
        )
    if cfg.eval.downstream and cfg.lm.source == "synthetic":
        raise ValueError("eval.downstream=true needs a language model, lm.source is synthetic")
    check_plugins(cfg)


def check_states(cfg: TrainConfig) -> None:
    """Where the states come from."""
    lm, data = cfg.lm, cfg.data
    if lm.source == "synthetic":
        dim = lm.dim or SYNTHETIC_DIM
        parse_spectrum(lm.spectrum)(dim)
        for key in ("path", "revision"):
            if getattr(lm, key) is not None:
                raise ValueError(f"lm.{key} needs lm.source=hf, got synthetic")
        if cfg.stage == "1b":
            raise ValueError("stage=1b needs reasoning traces, lm.source is synthetic")
        return
    for key, default in _SYNTHETIC_KEYS.items():
        if getattr(lm, key) != default:
            raise ValueError(f"lm.{key} needs lm.source=synthetic, got {lm.source}")
    check_source(lm.source, lm.path, lm.revision, section="lm")
    found = shape(cfg)
    dim, n_blocks = found or (None, None)
    if found and lm.dim not in (None, dim):
        raise ValueError(f"lm.dim={lm.dim}: the states of {lm.source} have {dim} dimensions")
    check_site(lm.site, n_blocks)
    check_corpus(data.corpus or CORPUS[cfg.stage], data.path, data.variant)
    if data.skip_first > data.max_len - 2:
        raise ValueError(
            f"data.skip_first={data.skip_first} leaves no state with a next token of "
            f"data.max_len={data.max_len}"
        )


def check_plugins(cfg: TrainConfig) -> None:
    """Names and parameters of metrics and callbacks."""
    check_specs("metrics", cfg.metrics, registry.metrics)
    check_specs("callbacks", cfg.callbacks, registry.callbacks)
    for spec in cfg.callbacks:
        registry.callbacks.resolve(spec)()
