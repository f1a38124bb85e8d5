"""Schema of the experiment `noisy_quadratic/train`: its keys, their types, defaults and checks."""

from dataclasses import dataclass, field
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite


@dataclass
class TrainConfig(BaseConfig):
    """One descent on L(w) = 1/2 sum_i h_i w_i^2 with eigenvalues h_i = i^-alpha, i = 1 .. dim."""

    experiment: str = "noisy_quadratic/train"
    dim: int = 10  # weights, >= 1
    alpha: float = 1.0  # decay of the eigenvalues, finite, >= 0
    lr: float = 0.1  # learning rate, finite, > 0; above 2 / h_1 = 2 the descent diverges
    batch_size: int | None = None  # samples a gradient is the mean of, >= 1; null: no noise
    seed: int = 0  # initial weights and noise, >= 0
    steps: int = 100  # updates, >= 1
    every: int = 1  # updates between records, >= 1; the last is always one
    metrics: list[Any] = field(default_factory=list)  # name or {name: {param: value}}

    def __post_init__(self):
        super().__post_init__()
        for name in ("dim", "steps", "every"):
            at_least(self, name, 1)
        at_least(self, "seed", 0)
        finite(self, "alpha")
        finite(self, "lr", positive=True)
        if self.batch_size is not None:
            at_least(self, "batch_size", 1)


register_experiment(
    Experiment(
        name="noisy_quadratic/train",
        schema=TrainConfig,
        run_stack="noisy_quadratic.train:run_stack",
        check="noisy_quadratic.check:check",
        replica_keys=frozenset({"seed", "lr"}),
    )
)
