"""Runs of two seconds: a network of width 16 on three hundred documents of the Markov chain."""

from pathlib import Path
from typing import Any

import torch

from plugins.lm.ranks import World
from plugins.result import RunResult
from sublora.config import (
    AllocationConfig,
    BoundConfig,
    DataConfig,
    ModelConfig,
    QuantConfig,
    SubspaceConfig,
    TrainConfig,
    TrainingConfig,
)
from sublora.model import dataset_of, make_module
from sublora.subspace import SubspaceModule
from sublora.train import run as run_one
from sublora.trainer import Trainer

SECTIONS = {
    "subspace": (SubspaceConfig, {"d": 60}),
    "allocation": (AllocationConfig, {}),
    "model": (ModelConfig, {"n_layer": 2, "n_head": 2, "n_embd": 16, "block": 16}),
    "train": (TrainingConfig, {"steps": 20, "warmup": 2, "batch": 8}),
    "quant": (QuantConfig, {"levels": 5, "qat_steps": 0}),
    "bound": (BoundConfig, {"n": 100, "stride": 6}),
    "data": (DataConfig, {}),
}
VARIANTS = {  # one of each way to allocate coordinates and to code them
    "uniform": {},
    "fixed": {"allocation": {"name": "fixed_0.3"}, "quant": {"codebooks": "ab", "qat_steps": 3}},
    "learned": {"allocation": {"name": "learned"}, "quant": {"coder": "static"}},
}


def config(folder: Path, **changes: Any) -> TrainConfig:
    """A run on the data set of a folder; sections are changed by dicts."""
    changes["data"] = {"dir": str(folder)} | changes.get("data", {})
    sections = {
        name: schema(**default | changes.pop(name, {}))
        for name, (schema, default) in SECTIONS.items()
    }
    return TrainConfig(device="cpu", **sections, **changes)


def overrides(folder: Path, *more: str) -> list[str]:
    """The same run as arguments of the command line."""
    lines = [
        f"{section}.{key}={value}"
        for section, (_, values) in SECTIONS.items()
        for key, value in values.items()
    ]
    return [*lines, f"data.dir={folder}", *more]


def run(cfg: TrainConfig, folder: Path, **more: Any) -> RunResult:
    """In a workdir as a store has it."""
    return run_one(cfg, folder / "work" / "0", **more)


def module_of(cfg: TrainConfig) -> SubspaceModule:
    return make_module(cfg, dataset_of(cfg).vocab_size)


def set_random(module: SubspaceModule, scale: float = 1.0) -> None:
    """Coordinates, and gates, that are anywhere."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in module.parameters() if p.requires_grad):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def numbers(result: RunResult) -> dict[str, Any]:
    """All but times."""
    scalars = {k: v for k, v in result.scalars.items() if not k.startswith("seconds_")}
    return scalars | {"curves": result.curves, "tables": result.tables}


def file(result: RunResult, name: str) -> Path:
    [found] = [path for path in result.artifacts if path.name == name]
    return found


def count_windows(world: World, cfg: TrainConfig) -> list[list[int]]:
    """Run by ranks: of each, the windows it read in two updates, and the pieces in a record."""
    module = module_of(cfg)
    read = torch.zeros(2, world.size)

    def count(net, ids):
        read[0 if net.training else 1, world.rank] += len(ids[0])

    module.register_forward_pre_hook(count)
    trainer = Trainer(cfg, module, dataset_of(cfg), world)
    trainer.run(lambda: None, lambda fraction: None)
    return world.sum(read).long().tolist()
