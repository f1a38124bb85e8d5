"""Checks across the fields of a config at planning time: bad input ends before any job starts."""

import os
from collections.abc import Mapping, Sequence

from plugins.lm.models import check_source
from plugins.registry import UnknownName, check_specs
from sublora import callbacks as callbacks
from sublora import registry
from sublora.adapters import slots_of
from sublora.allocation import parse_allocation
from sublora.certify import check_n
from sublora.config import TrainConfig
from sublora.dataset import check_meta
from sublora.markov import VOCAB
from sublora.prepare import N_MARKOV
from sublora.projectors import check_shape  # registers the kinds
from sublora.subspace import allot


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "a run starts its own ranks: python sweep.py ... processes=N, without torchrun or "
            "accelerate launch (WORLD_SIZE is set)"
        )
    mode = parse_allocation(cfg.allocation.name).mode
    try:
        registry.matrices.resolve(cfg.subspace.projector)
    except UnknownName as error:
        raise UnknownName(f"subspace.projector={cfg.subspace.projector}: {error}") from None
    if mode != "uniform":
        for key, value in (("subspace.d", cfg.subspace.d), ("model.lora_r", cfg.model.lora_r)):
            if not value:
                raise ValueError(
                    f"{key}=0 needs allocation.name=uniform, got {cfg.allocation.name}"
                )
    elif cfg.quant.codebooks == "ab":
        raise ValueError("quant.codebooks=ab needs allocation.name=fixed_<share> or learned")
    vocab, counts = VOCAB, {"documents": N_MARKOV}
    if cfg.data.dir is not None:
        meta = check_meta(cfg.data.dir)
        vocab, counts = meta["vocab_size"], meta.get("counts", {}).get("train", {})
        if missing := {"documents", "empty_documents", "tokens"} - counts.keys():
            names = ", ".join(sorted(missing))
            raise ValueError(f"data.dir={cfg.data.dir}: meta.json counts no {names} of train")
    if cfg.data.dir is not None or cfg.bound.level == "document":
        check_n(cfg.bound, _n_units(cfg.bound.level, counts, cfg.model.block), "data.dir")
    tokens, block = cfg.train.tokens_per_step, cfg.model.block
    if tokens is not None and tokens % block:
        raise ValueError(
            f"train.tokens_per_step={tokens} must be a multiple of model.block={block}"
        )
    if cfg.model.source == "gpt":
        if cfg.model.n_embd % cfg.model.n_head:
            raise ValueError(
                f"model.n_head={cfg.model.n_head} must divide model.n_embd={cfg.model.n_embd}"
            )
        if cfg.subspace.d:
            slots = slots_of(cfg.model, vocab)
            for group in allot(slots, cfg.subspace.d, cfg.allocation).groups:
                check_shape(cfg.subspace.projector, group.rows, group.cols, group.name)
    if cfg.model.source == "hf":
        check_source("hf", cfg.model.path, None)
    elif cfg.model.path is not None:
        raise ValueError(f"model.path={cfg.model.path} goes with model.source=hf, and only with it")
    if cfg.bound.delta_i == "predictable" and cfg.bound.level != "token":
        raise ValueError(
            f"bound.delta_i=predictable needs bound.level=token, got {cfg.bound.level}"
        )
    check_specs("callbacks", cfg.callbacks, registry.callbacks)
    for spec in cfg.callbacks:
        registry.callbacks.resolve(spec)()


def _n_units(level: str, counts: Mapping[str, int], block: int) -> int:
    """m, by the counts of meta.json."""
    if level == "sequence":
        ends = counts["documents"] + counts["empty_documents"]
        return (counts["tokens"] + ends - 1) // block
    return counts[{"document": "documents", "token": "tokens"}[level]]
