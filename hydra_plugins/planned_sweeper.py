"""The Hydra Sweeper that plans a sweep, launches what its store lacks and reports the outcome."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException


@dataclass
class PlannedSweeperConf:
    """How a sweep is carried out; never part of a run's config."""

    _target_: str = "hydra_plugins.planned_sweeper.PlannedSweeper"
    params: dict[str, Any] = field(default_factory=dict)  # axes of an experiment file
    zip: list[list[str]] = field(default_factory=list)  # groups of axes that vary together
    rerun: list[str] = field(default_factory=list)  # k=v: matching runs are computed again
    dry_run: bool = False
    fail_fast: bool = False
    detach: bool = False  # SLURM: submit and return
    wait_timeout_min: float | None = None  # SLURM: stop waiting after so many minutes; jobs go on
    units: int | None = None  # jobs; null: by the launcher
    workers: int | None = None  # jobs as processes on this machine, without Hydra's launcher
    max_stack: int | None = None  # replicas in a stack; null: the experiment's stack_width
    unit: str | None = None  # set for a job: "<plan file>:<unit>"


ConfigStore.instance().store(group="hydra/sweeper", name="planned", node=PlannedSweeperConf)


class PlannedSweeper(Sweeper):
    def __init__(self, **settings: Any):
        del settings["unit"]
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Ends in SystemExit with the status that `sweep.py --help` lists."""
        # Imported here: Hydra imports this module at every start, also for --help.
        from plugins import driver, execution, processes
        from plugins.exits import bad_input, finish
        from plugins.runner import cores
        from plugins.submission import MOST_JOBS, NothingSubmitted, unit_seconds

        settings = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v
            for k, v in self.settings.items()
        }
        dry_run, detach = settings.pop("dry_run"), settings.pop("detach")
        wait_minutes, workers = settings.pop("wait_timeout_min"), settings.pop("workers")
        name = self.config.hydra.runtime.choices["hydra/launcher"]
        slurm = self.config.hydra.launcher._target_.endswith(".SlurmLauncher")
        in_process = name == "basic" and workers is None
        local = in_process or name in ("submitit_local", "joblib")
        if not any(
            line.startswith("hydra.sweeper.zip=") for line in self.config.hydra.overrides.hydra
        ):
            settings["file_zip"] = settings.pop("zip")
        if workers is not None:
            settings["units"] = workers
        elif settings["units"] is None and in_process:
            settings["units"] = 1
        elif settings["units"] is None and local:
            settings["units"] = cores()
        if slurm:
            settings["most_units"] = MOST_JOBS
            settings["unit_seconds"] = unit_seconds(self.config.hydra.launcher.timeout_min)
        request = driver.Request(
            overrides=arguments,
            store=Path(self.config.hydra.sweep.dir),
            command=shlex.join(["python", *sys.orig_argv[1:]]),
            **settings,
        )
        try:
            if in_process and (settings["units"] or 1) > 1:
                raise ValueError(
                    f"--jobs={settings['units']} needs a launcher that submits to a cluster, as "
                    f"hydra/launcher=slurm; on this machine: --workers={settings['units']}"
                )
            if not slurm and (detach or wait_minutes is not None):
                flag = "--detach" if detach else "hydra.sweeper.wait_timeout_min"
                raise ValueError(f"{flag} needs a launcher that submits to SLURM, not {name}")
            jobs = self.config.hydra.launcher
            if slurm and jobs.nodes * jobs.tasks_per_node > 1:
                raise ValueError(
                    f"hydra.launcher.nodes={jobs.nodes}, tasks_per_node={jobs.tasks_per_node}: "
                    "each task would compute the whole unit; --jobs uses more nodes"
                )
            sweep = driver.plan_sweep(
                request, self._compose, self._is_group, self.hydra_context.config_loader
            )
            notes = driver.notes(sweep)
        except (ValueError, ImportError, OSError, HydraException, OmegaConfBaseException) as error:
            bad_input(error)
        parallel = 1 if in_process else request.units or cores()
        if slurm:
            parallel = self.config.hydra.launcher.array_parallelism
        print(driver.describe(sweep, parallel))
        for note in notes:
            print(note)
        if dry_run:
            raise SystemExit(0)
        if workers is not None and workers > processes.waiting():
            bad_input(
                ValueError(f"hydra.sweeper.workers={workers} must come from --workers {workers}")
            )

        def launch(jobs: list[list[str]]) -> Sequence[JobReturn]:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=self.config,
            )
            # Logs of a new command stand beside those of the last.
            logs = [int(p.name) for p in request.store.glob("logs/*") if p.name.isdecimal()]
            return launcher.launch(jobs, initial_job_idx=max(logs, default=-1) + 1)

        def launch_and_check(jobs: list[list[str]]) -> None:
            for job in launch(jobs):
                _ = job.return_value  # raises what ended the job

        def launch_in(jobs: list[list[str]], folder: Path) -> None:
            self.config.hydra.launcher.submitit_folder = str(folder / "%j")
            launch(jobs)

        try:
            if workers is not None:
                report = execution.execute_in_processes(sweep)
            elif slurm:
                folder = Path(self.config.hydra.launcher.submitit_folder.partition("%j")[0])
                seconds = None if wait_minutes is None else 60 * wait_minutes
                report = execution.execute_with_slurm(
                    sweep, launch_in, folder, detach=detach, wait_seconds=seconds
                )
            else:
                report = execution.execute(
                    sweep, launch_and_check, local=local, in_process=in_process
                )
        except ValueError as error:
            bad_input(error)
        except NothingSubmitted as error:
            print(f"error: nothing could be submitted: {error}", file=sys.stderr)
            raise SystemExit(3) from error
        finish(report, driver.next_command, detached=detach)

    def _compose(self, overrides: list[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            del config["hydra"]
        return config

    def _is_group(self, key: str) -> bool:
        loader = self.hydra_context.config_loader
        return bool(loader.get_group_options(key, results_filter=ObjectType.CONFIG))
