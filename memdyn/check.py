"""Checks across the fields of a config at planning time: bad input ends before any job starts."""

from collections.abc import Mapping, Sequence

from memdyn import callbacks as callbacks
from memdyn import metrics as metrics
from memdyn import registry
from memdyn.config import ModelConfig, TrainConfig, measured_positions, prompt_length
from plugins.lm.corpora import check_corpus
from plugins.lm.models import check_source
from plugins.registry import check_specs

_TINY_KEYS = ("layers", "width", "vocab", "init_range")


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see."""
    check_source(cfg.model.source, cfg.model.path, cfg.model.revision)
    if cfg.model.source != "tiny":
        for key in _TINY_KEYS:
            if getattr(cfg.model, key) != getattr(ModelConfig, key):
                raise ValueError(
                    f"model.{key}={getattr(cfg.model, key)} needs model.source=tiny, "
                    f"got {cfg.model.source}"
                )
    check_corpus(cfg.data.corpus, cfg.data.path, cfg.data.variant)
    length, prompt = cfg.data.length, prompt_length(cfg)
    if not 0 < prompt < length:
        raise ValueError(
            f"prompt_fraction={cfg.prompt_fraction} of data.length={length} tokens leaves "
            f"{prompt} for the prompt, {length - prompt} to reproduce; both must be >= 1"
        )
    n = 2 * cfg.data.n_passages * len(measured_positions(cfg))
    if cfg.k_neighbors >= n:
        raise ValueError(
            f"k_neighbors={cfg.k_neighbors} must be below the {n} token states of "
            f"2 x data.n_passages={cfg.data.n_passages} passages "
            f"(data.length={length}, skip_positions={cfg.skip_positions}, "
            f"position_stride={cfg.position_stride})"
        )
    if not cfg.metrics:
        raise ValueError("metrics must name at least one, got []")
    check_specs("metrics", cfg.metrics, registry.metrics)
    check_specs("callbacks", cfg.callbacks, registry.callbacks)
    for spec in cfg.callbacks:
        registry.callbacks.resolve(spec)()
