"""Trainings that take a fraction of a second: synthetic states, and very small language models."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from compressor.config import (
    DataConfig,
    EvalConfig,
    LMConfig,
    ModelConfig,
    TrainConfig,
    TrainingConfig,
)
from compressor.train import run_stack
from plugins.lm.ranks import World
from plugins.lm.tokenizers import raw_bytes
from plugins.result import RunResult

SECTIONS = {
    "lm": (LMConfig, {"source": "synthetic", "dim": 12, "rows": 500}),
    "data": (DataConfig, {}),
    "model": (ModelConfig, {"d_compressed": 3}),
    "train": (TrainingConfig, {"batch": 64, "max_epochs": 4}),
    "eval": (EvalConfig, {"log_modes": 4}),
}


def config(**changes: Any) -> TrainConfig:
    """Synthetic states of 12 dimensions; sections are changed by dicts."""
    sections = {
        name: schema(**default | changes.pop(name, {}))
        for name, (schema, default) in SECTIONS.items()
    }
    return TrainConfig(device="cpu", **sections, **changes)


def on_model(folder: Path, **changes: Any) -> TrainConfig:
    """States of a saved model on 20 sequences of at most 24 tokens."""
    lm = {"source": "hf", "path": str(folder), "dim": None, "rows": 4096}
    data = {"n_seq": 20, "max_len": 24}
    changes["lm"] = lm | changes.get("lm", {})
    changes["data"] = data | changes.get("data", {})
    return config(**changes)


def run(
    cfg: TrainConfig, folder: Path, replicas: Mapping[str, Sequence] | None = None, **more: Any
) -> list[RunResult]:
    """All runs of a stack, each in a workdir of its own as in a store."""
    n = len(next(iter(replicas.values()))) if replicas else 1
    return run_stack(cfg, replicas or {}, [folder / "work" / str(i) for i in range(n)], **more)


def numbers(result: RunResult) -> dict[str, Any]:
    """All but times."""
    scalars = {k: v for k, v in result.scalars.items() if not k.startswith("seconds_")}
    return {**scalars, **{f"curve {name}": curve for name, curve in result.curves.items()}}


def final(result: RunResult) -> torch.Tensor:
    """W of the best checkpoint."""
    return torch.load(result.artifacts[0], weights_only=True)["W"]


def save_gpt2(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """3 blocks, 16 dimensions, 256 bytes; random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
    config = GPT2Config(vocab_size=256, eos_token_id=0, **sizes | changes, initializer_range=0.3)
    return _save(folder, GPT2LMHeadModel, config, seed)


def save_llama(folder: Path) -> Path:
    """2 blocks, 16 dimensions, 256 bytes; random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        eos_token_id=0,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return _save(folder, LlamaForCausalLM, config, 0)


def _save(folder: Path, model: Any, config: Any, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = model(config)
        for name, parameter in built.named_parameters():  # a norm that does something
            if "ln_" in name or "norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    built.save_pretrained(folder)
    raw_bytes().save_pretrained(folder)
    return folder


def fail(world: World, rank: int) -> None:
    """Run by ranks, as the functions below; the others wait for one that has failed."""
    if world.rank == rank:
        raise ValueError(f"what rank {rank} says")
    world.sum(torch.ones(1))


def die(world: World, rank: int) -> None:
    """The other ranks wait for one that was killed."""
    if world.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    world.sum(torch.ones(1))


def report_half(world: World) -> None:
    world.report(0.5)
    time.sleep(0.5)
