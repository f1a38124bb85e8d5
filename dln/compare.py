"""The experiment `dln/compare` on a stack of runs: two networks, one data set, in lockstep."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import dln.comparative_metrics  # noqa: F401  (registers)
from dln import registry
from dln.compare_config import SIDES, CompareConfig, side
from dln.config import REPLICA_KEYS
from dln.data import make_dataset
from dln.lockstep import train_in_lockstep
from dln.metrics import evaluate, resolve_metrics
from dln.stacking import halving
from dln.trainer import Trainer, make_columns, resolve_device
from plugins.result import RunResult


@halving
def run_stack(
    cfg: CompareConfig,
    replicas: Mapping[str, Sequence],
    workdirs: Sequence[Path],
    on_progress: Callable[[float], None] | None = None,
) -> list[RunResult]:
    """One result per workdir, as of `dln.train.run_stack`; columns of a network end in _a or _b.

    `replicas` counts where it is a side's: values of `model`, `training` and `shared` have reached
    the sides when the runs were composed.
    """
    sides = {name: side(cfg, name) for name in SIDES}
    columns = {
        name: make_columns(own, REPLICA_KEYS, _of_side(name, replicas), len(workdirs))
        for name, own in sides.items()
    }
    of_data = columns["a"]  # the same for both
    dataset = make_dataset(
        cfg.data,
        cfg.model_a,
        of_data["data.data_seed"],
        of_data["data.noise_std"],
        resolve_device(cfg.device),
    )
    trainers = {f"_{name}": Trainer(own, columns[name], dataset) for name, own in sides.items()}
    named = resolve_metrics(cfg.comparative_metrics, registry.comparative_metrics)
    return train_in_lockstep(trainers, on_progress, partial(evaluate, named))


def _of_side(name: str, replicas: Mapping[str, Sequence]) -> dict[str, Sequence]:
    """The values of one side, under the keys of `dln/train`."""
    sections = {"data": "data", f"model_{name}": "model", f"training_{name}": "training"}
    found = {}
    for key, values in replicas.items():
        section, field = key.split(".", 1)
        if section in sections:
            found[f"{sections[section]}.{field}"] = values
    return found
