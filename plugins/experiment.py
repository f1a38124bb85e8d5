"""Experiments: a schema, what runs it, and how runs of it may be stacked."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from plugins.registry import UnknownName, did_you_mean

CONF = Path(__file__).resolve().parent.parent / "conf"


@dataclass
class BaseConfig:
    """The keys that every experiment has."""

    experiment: str = MISSING  # "<family>/<name>" of the registered experiment
    objective: Any = None  # scalar(s) a stock sweeper such as optuna optimises; execution key
    device: str = "auto"  # auto (cuda when present, else cpu), cpu, cuda, cuda:N; execution key
    threads: int | None = None  # torch threads of a worker; null: cores / units; execution key

    def __post_init__(self):
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be >= 1, got {self.threads}")


@dataclass(frozen=True)
class Experiment:
    """What the planner and the worker need to know of one experiment.

    Functions are "module:name" strings, so that planning stays light. An experiment has `run` or
    `run_stack`: with `run_stack` a single run is a stack of one.
    """

    name: str  # "dln/train"
    schema: type  # dataclass extending BaseConfig
    run: str | None = None  # run(cfg, workdir) -> RunResult
    run_stack: str | None = None  # run_stack(cfg, replicas, workdirs) -> list[RunResult]
    check: str | None = None  # check(cfg, replicas) -> None: ValueError across fields, per stack
    replica_keys: frozenset[str] = frozenset()  # fnmatch patterns: may differ inside a stack
    stack_width: str | None = None  # stack_width(cfg) -> most replicas worth stacking
    execution_keys: frozenset[str] = field(
        default_factory=lambda: frozenset({"device", "threads", "objective"})
    )  # patterns: how, not what; outside the run_id
    version: int = 1  # raised when equal configs give other numbers

    def __post_init__(self):
        if (self.run is None) == (self.run_stack is None):
            raise ValueError(f"{self.name}: an experiment has either run or run_stack")


_EXPERIMENTS: dict[str, Experiment] = {}


def register_experiment(experiment: Experiment) -> None:
    """Make the experiment known, and its schema as config `<family>/schema/<name>`."""
    family, name = experiment.name.split("/")
    _EXPERIMENTS[experiment.name] = experiment
    ConfigStore.instance().store(
        group=f"{family}/schema", name=name, node=experiment.schema, package="_global_"
    )


def get_experiment(name: str) -> Experiment:
    """The registered experiment; imports its family. Raises UnknownName."""
    import_family(name.split("/")[0])
    if name not in _EXPERIMENTS:
        raise UnknownName(f"there is no experiment {name!r}{did_you_mean(name, _EXPERIMENTS)}")
    return _EXPERIMENTS[name]


def experiments(family: str) -> list[Experiment]:
    """The registered experiments of a family, which is imported."""
    import_family(family)
    return [e for name, e in _EXPERIMENTS.items() if name.split("/")[0] == family]


def load_function(path: str) -> Callable:
    """The function named "module:name"."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Family:
    """A package of experiments and the folder of their config files."""

    package: str
    conf: Path  # holds <family>/*.yaml
    entry: EntryPoint | None = None  # of an installed third party


def families() -> dict[str, Family]:
    """The folders of conf/ that are packages, and third parties' (`dynascope.families`).

    A third party's config files lie in the folder `conf` of its package.
    """
    found = {
        folder.name: Family(folder.name, CONF)
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and (CONF.parent / folder.name / "__init__.py").is_file()
    }
    for entry in entry_points(group="dynascope.families"):
        spec = importlib.util.find_spec(entry.value)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(_broken(entry, "is no package"))
        conf = Path(spec.submodule_search_locations[0]) / "conf"
        found[entry.name] = Family(entry.value, conf, entry)
    return found


def import_family(family: str) -> None:
    """Register a family's experiments. Raises UnknownName, or ImportError naming the package."""
    known = families()
    if family not in known:
        raise UnknownName(f"there is no family {family!r}{did_you_mean(family, known)}")
    if known[family].entry:
        _import_entry(known[family].entry)
    else:
        importlib.import_module(known[family].package)


def import_plugins(family: str) -> None:
    """Import the installed third-party plugins of a family (entry points `dynascope.plugins`)."""
    for entry in entry_points(group="dynascope.plugins"):
        if entry.name == family:
            _import_entry(entry)


def _import_entry(entry: EntryPoint) -> None:
    try:
        importlib.import_module(entry.value)
    except Exception as error:
        what = f"does not import: {error!r}; mend it or uninstall it"
        raise ImportError(_broken(entry, what)) from error


def _broken(entry: EntryPoint, what: str) -> str:
    return (
        f"the installed distribution {entry.dist.name!r} declares {entry.group} "
        f"{entry.name} = {entry.value}, which {what}"
    )
