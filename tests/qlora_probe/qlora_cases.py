"""A training that takes a second: a very small Llama that reads bytes, saved in a folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from plugins.lm.tokenizers import raw_bytes
from qlora_probe.config import (
    DataConfig,
    EvalConfig,
    LoopConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from qlora_probe.data import encode_all
from qlora_probe.examples import load_examples, n_with_held_out, split
from qlora_probe.model import TINY_TEMPLATE, Adapted, adapted, make_tokenizer
from qlora_probe.trainer import Trainer

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}


def save_llama(folder: Path) -> Path:
    """Random weights; 256 bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=256, eos_token_id=0, **SIZES))
    model.save_pretrained(folder)
    tokenizer = raw_bytes()
    tokenizer.chat_template = TINY_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def small(folder: Path, **changes: Any) -> TrainConfig:
    """Six updates of 2 x 2 sequences, every learning rate large; top-level keys changed."""
    cfg = TrainConfig(
        device="cpu",
        model=ModelConfig(source="hf", path=str(folder)),
        optim=OptimConfig(lr=5e-3, min_8bit_size=1),
        lora=LoraConfig(r=4, alpha=4, dropout=0.1),
        train=LoopConfig(batch=2, accum=2, save_every=2),
        data=DataConfig(n_examples=24),
        eval=EvalConfig(n=1, suite=None),
    )
    return replace(cfg, **changes)


@contextmanager
def model(cfg: TrainConfig) -> Iterator[Adapted]:
    """With new adapters, B = 0."""
    with adapted(cfg, make_tokenizer(cfg), torch.device("cpu")) as lm:
        yield lm


@contextmanager
def training(cfg: TrainConfig, probes: Sequence[Any] = ()) -> Iterator[Trainer]:
    """At its start; probes are called as in a run, but for train_start and train_end."""
    with model(cfg) as lm:
        examples = load_examples("synthetic", None, n_with_held_out(cfg.data.n_examples), 0)
        train, held_out = (encode_all(lm.tokenizer, part, cfg.data) for part in split(examples, 0))
        yield Trainer(cfg, lm, train, held_out, probes)


def finish(trainer: Trainer) -> Trainer:
    trainer.run(lambda: None, lambda fraction: None)
    return trainer
