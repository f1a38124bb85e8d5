"""Computing an experiment's runs in this process: its functions, and the threads they get."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plugins.experiment import Experiment, get_experiment, import_plugins, load_function
from plugins.parts import CannotPublish
from plugins.result import RunResult

Outcome = RunResult | BaseException


def prepare(experiment: str) -> Experiment:
    """The experiment, its family and the third parties' plugins of it imported."""
    found = get_experiment(experiment)
    import_plugins(experiment.split("/")[0])
    return found


def runner(experiment: Experiment) -> Callable[..., list[Outcome]]:
    """The function (cfg, replicas, workdirs, on_progress) -> results of the stack's runs, or the
    exception that ended it, once per run.

    A scheduler's interruption (submitit raises UncompletedJobError inside the training loop), or a
    store that could not be written meanwhile, is no failure of the run and goes through.
    """
    function = load_function(experiment.run_stack or experiment.run)
    reports = "on_progress" in inspect.signature(function).parameters

    def compute(
        cfg: Any,
        replicas: Mapping[str, Sequence],
        workdirs: Sequence[Path],
        on_progress: Callable[[float], None],
    ) -> list[Outcome]:
        extra = {"on_progress": on_progress} if reports else {}
        try:
            if experiment.run:
                results = [function(cfg, workdirs[0], **extra)]
            else:
                results = function(cfg, replicas, workdirs, **extra)
            if len(results) != len(workdirs):
                raise ValueError(f"run_stack gave {len(results)} results, not {len(workdirs)}")
            for result in results:
                if not isinstance(result, RunResult):
                    raise TypeError(f"a run returned {type(result).__name__}, not RunResult")
            return results
        except Exception as error:
            if is_uncompleted(error) or isinstance(error, CannotPublish):
                raise
            return [error] * len(workdirs)

    return compute


def is_uncompleted(error: BaseException) -> bool:
    """Whether submitit raised it, in its signal handler: the job ends here and is not requeued."""
    submitit = sys.modules.get("submitit.core.utils")
    return submitit is not None and isinstance(error, submitit.UncompletedJobError)


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(threads: int | None, units: int) -> None:
    """Threads of this process's numerics; null: the job's cores, shared by the units of a machine.

    Takes effect in torch whether it is loaded already or later.
    """
    slurm = os.environ.get("SLURM_CPUS_PER_TASK")
    n = threads or (int(slurm) if slurm else max(1, cores() // units))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
