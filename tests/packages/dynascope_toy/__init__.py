"""A third-party family for the tests: runs that cost next to nothing, without torch."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import II

from plugins.experiment import BaseConfig, Experiment, register_experiment


@dataclass
class Model:
    width: int = 3
    scale: float = 1.0

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")


@dataclass
class Trivial(BaseConfig):
    experiment: str = "toy/trivial"
    model: Model = field(default_factory=Model)
    seed: int = 0
    steps: int = 3
    sleep: float = 0.0  # seconds a run takes
    bad_seeds: list[int] = field(default_factory=list)  # these runs raise
    diverging_seeds: list[int] = field(default_factory=list)
    label: str = II("model.width")
    params: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    added_later: int = field(default=7, metadata={"neutral": 7})


for name, entry in (
    ("trivial", {"run_stack": "dynascope_toy.train:run_stack"}),
    ("single", {"run": "dynascope_toy.train:run"}),
):
    register_experiment(
        Experiment(
            f"toy/{name}",
            Trivial,
            check="dynascope_toy.train:check",
            replica_keys=frozenset({"seed", "model.scale", "sleep"}),
            **entry,
        )
    )
