"""Callbacks: objects that are told what is recorded of each run, and how it ends.

Of the methods record(run, step, values) and end(run, scalars, files) a callback has any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run of a stack."""

    run_id: str
    config: Mapping[str, Any]  # complete, as plain values


class Wandb:
    """Logs records, final scalars and the best checkpoint to Weights & Biases.

    project, entity: where; name: of the run (default: its run_id); mode: online, offline, or null
    for what WANDB_MODE says. The run's id there is its run_id, so an attempt that goes on after an
    interruption goes on there, too. Raises ValueError without the package.
    """

    def __init__(
        self,
        project: str = "dynascope",
        name: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
    ):
        if find_spec("wandb") is None:
            raise ValueError("callbacks: wandb needs the package: pip install wandb")
        self._settings = {"project": project, "entity": entity, "mode": mode}
        self._name, self._runs = name, {}

    def record(self, run: Run, step: int, values: Mapping[str, Any]) -> None:
        self._run(run).log({k: v for k, v in values.items() if not isinstance(v, list)}, step=step)

    def end(self, run: Run, scalars: Mapping[str, Any], files: Sequence[Path]) -> None:
        import wandb

        logged = self._run(run)
        logged.summary.update(dict(scalars))
        artifact = wandb.Artifact(f"model-{run.run_id}", "model")
        for file in files:
            artifact.add_file(str(file))
        logged.log_artifact(artifact)
        logged.finish()
        del self._runs[run.run_id]

    def _run(self, run: Run) -> Any:
        import wandb

        if run.run_id not in self._runs:
            self._runs[run.run_id] = wandb.init(
                id=run.run_id,
                name=self._name or run.run_id,
                config=dict(run.config),
                resume="allow",
                reinit="create_new",  # the runs of a stack are open at the same time
                settings=wandb.Settings(silent=True),
                **self._settings,
            )
        return self._runs[run.run_id]


def call(callbacks: Sequence[Any], hook: str, *arguments: Any) -> None:
    """The method `hook` of those that have it."""
    for callback in callbacks:
        if method := getattr(callback, hook, None):
            method(*arguments)
