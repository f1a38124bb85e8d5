"""The language model of a run, its optimizer and its learning rate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from memdyn.config import TrainConfig, tiny
from plugins.lm.corpora import Document
from plugins.lm.models import LM, load_lm, load_tokenizer

WARMUP = 10  # steps


def make_tokenizer(cfg: TrainConfig, documents: Sequence[Document]) -> Any:
    model = cfg.model
    return load_tokenizer(
        model.source,
        path=model.path,
        revision=model.revision,
        tiny=tiny(model, cfg.data.length, cfg.dropout),
        documents=documents,
    )


def make_model(cfg: TrainConfig, device: torch.device) -> LM:
    """In eval mode, every dropout at cfg.dropout."""
    model = cfg.model
    lm = load_lm(
        model.source,
        path=model.path,
        revision=model.revision,
        tiny=tiny(model, cfg.data.length, cfg.dropout),
        seed=cfg.seed,
        dtype=model.dtype,
        device=str(device),
    )
    longest = getattr(lm.model.config, "max_position_embeddings", None)
    if longest and cfg.data.length > longest:
        raise ValueError(f"data.length={cfg.data.length}: {model.path} takes at most {longest}")
    if len(lm.blocks) < 2:
        raise ValueError(f"model.path={model.path} has 1 block; 2 or more are measured")
    for module in lm.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = cfg.dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):  # Llama's, a number
            module.attention_dropout = cfg.dropout
    return lm


def make_optimizer(cfg: TrainConfig, model: nn.Module) -> torch.optim.AdamW:
    is_tiny = cfg.model.source == "tiny"
    lr = cfg.lr or (2e-3 if is_tiny else 5e-5)
    betas = cfg.betas or ((0.9, 0.95) if is_tiny else (0.9, 0.999))
    return torch.optim.AdamW(
        model.parameters(), lr=lr, betas=tuple(betas), weight_decay=cfg.weight_decay, fused=True
    )


def batch_size(cfg: TrainConfig) -> int:
    """Passages of an update."""
    return cfg.batch_size or (5 if cfg.model.source == "tiny" else 4)


def lr_factor(step: int, n_steps: int, lr_schedule: str) -> float:
    """Of update `step`, 0-based: (step + 1) / WARMUP at first, then 1, or linear to 0."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 1.0 if lr_schedule == "constant" else (n_steps - step) / (n_steps - WARMUP)
