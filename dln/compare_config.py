"""Schema of the experiment `dln/compare`: two deep linear networks learn one teacher in lockstep.

A field of a side is that of the common section unless it is set, and one of that section is that
of `shared`: `${...}`, resolved when a run is composed, after all overrides.
"""

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from omegaconf import II

from dln import stacking
from dln.config import REPLICA_KEYS, DataConfig, ModelConfig, TrainConfig, TrainingConfig
from plugins.experiment import BaseConfig, Experiment, register_experiment

SIDES = ("a", "b")


def _inheriting(schema: type, section: str) -> type:
    """The schema with `${section.X}` as default of each field X."""
    inherited = [
        (f.name, f.type, field(default=II(f"{section}.{f.name}"), metadata=f.metadata))
        for f in fields(schema)
    ]
    return make_dataclass(schema.__name__, inherited, bases=(schema,))


# Defaults of sections are these classes, no instances: those would check `${...}` as numbers.
_CommonModel = _inheriting(ModelConfig, "shared.model")
_CommonTraining = _inheriting(TrainingConfig, "shared.training")
_SideModel = _inheriting(ModelConfig, "model")
_SideTraining = _inheriting(TrainingConfig, "training")


@dataclass
class SharedConfig:
    """What both sides have in common, below `model` and `training`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class CompareConfig(BaseConfig):
    """Two networks, one teacher and data set."""

    experiment: str = "dln/compare"
    threads: int | None = TrainConfig.threads
    shared: SharedConfig = field(default_factory=SharedConfig)  # execution keys, as the next two:
    model: _CommonModel = _CommonModel  # they act through the sides
    training: _CommonTraining = _CommonTraining
    model_a: _SideModel = _SideModel
    model_b: _SideModel = _SideModel
    training_a: _SideTraining = _SideTraining
    training_b: _SideTraining = _SideTraining
    data: DataConfig = field(default_factory=DataConfig)
    max_steps: int = TrainConfig.max_steps
    num_evaluations: int = TrainConfig.num_evaluations
    metrics: list[Any] = field(default_factory=list)  # of each network
    metrics_a: list[Any] | None = None  # instead of `metrics`; null: those, []: none
    metrics_b: list[Any] | None = None
    comparative_metrics: list[Any] = field(default_factory=list)  # of both together
    callbacks_a: list[Any] = field(default_factory=list)
    callbacks_b: list[Any] = field(default_factory=list)
    dtype: str = TrainConfig.dtype

    def __post_init__(self):
        super().__post_init__()
        for name in SIDES:
            side(self, name)  # checks the fields that it shares with TrainConfig


def side(cfg: CompareConfig, name: str) -> TrainConfig:
    """The training of the network `name`, "a" or "b"."""
    own_metrics = getattr(cfg, f"metrics_{name}")
    return TrainConfig(
        experiment=cfg.experiment,
        device=cfg.device,
        threads=cfg.threads,
        model=getattr(cfg, f"model_{name}"),
        data=cfg.data,
        training=getattr(cfg, f"training_{name}"),
        max_steps=cfg.max_steps,
        num_evaluations=cfg.num_evaluations,
        metrics=cfg.metrics if own_metrics is None else own_metrics,
        callbacks=getattr(cfg, f"callbacks_{name}"),
        dtype=cfg.dtype,
    )


def stack_width(cfg: CompareConfig) -> int:
    """Most replicas worth stacking: half of what the larger network alone allows."""
    return max(1, min(stacking.stack_width(side(cfg, name)) for name in SIDES) // 2)


def _replica_keys() -> frozenset[str]:
    """Replica keys of the sides, and the keys through which both get them."""
    keys = {key for key in REPLICA_KEYS if key.startswith("data.")}
    for key in set(REPLICA_KEYS) - keys:
        section, name = key.split(".")
        keys |= {key, f"shared.{key}", *(f"{section}_{s}.{name}" for s in SIDES)}
    return frozenset(keys)


register_experiment(
    Experiment(
        name="dln/compare",
        schema=CompareConfig,
        run_stack="dln.compare:run_stack",
        check="dln.compare_check:check",
        stack_width="dln.compare_config:stack_width",
        replica_keys=_replica_keys(),
        execution_keys=frozenset(
            {"device", "threads", "objective", "shared.*", "model.*", "training.*"}
        ),
    )
)
