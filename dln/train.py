"""The experiment `dln/train` on a stack of runs; a single run is a stack of one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dln.config import REPLICA_KEYS, TrainConfig
from dln.data import make_dataset
from dln.lockstep import train_in_lockstep
from dln.stacking import halving
from dln.trainer import Trainer, make_columns, resolve_device
from plugins.result import RunResult


@halving
def run_stack(
    cfg: TrainConfig,
    replicas: Mapping[str, Sequence],
    workdirs: Sequence[Path],
    on_progress: Callable[[float], None] | None = None,
) -> list[RunResult]:
    """One result per workdir; result i is that of the run alone with the i-th replica values.

    `replicas` maps replica keys to one value per run; empty for cfg's own values. Equal to the run
    alone to 1e-5 in float32, 1e-12 in float64 (relative, 1000 steps below the stability limit).
    `on_progress` gets the fraction of steps done, at records. No file is written. A stack that does
    not fit into memory is trained in halves.
    """
    columns = make_columns(cfg, REPLICA_KEYS, replicas, len(workdirs))
    return train_in_lockstep({"": make_trainer(cfg, columns)}, on_progress)


def make_trainer(cfg: TrainConfig, columns: Mapping[str, Sequence]) -> Trainer:
    """The stack at its start, with a data set of its own."""
    seeds, noise_stds = columns["data.data_seed"], columns["data.noise_std"]
    device = resolve_device(cfg.device)
    return Trainer(cfg, columns, make_dataset(cfg.data, cfg.model, seeds, noise_stds, device))
