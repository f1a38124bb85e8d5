"""Giving the units of a plan to SLURM, through Hydra's stock submitit launcher."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plugins import slurm
from plugins.jobs import PlanJobs, write_jobs

MOST_JOBS = 1000  # of an array under SLURM's default MaxArraySize=1001
_UNIT_SECONDS = 20 * 60  # what a job should take: long against its start, short against a crash
_LEAST_SECONDS = 60


class NothingSubmitted(RuntimeError):
    """The launcher failed before any unit started."""


def unit_seconds(timeout_min: float) -> float:
    """What a job should take where stored runs tell how long one run does: twenty minutes, at most
    a third of its time limit (the next run may take longer), at least a minute."""
    return max(_LEAST_SECONDS, min(_UNIT_SECONDS, 60 * timeout_min / 3))


def submit(
    launch: Callable[[Sequence[Sequence[str]]], Any],
    overrides: Sequence[Sequence[str]],
    store: Path,
    plan: str,
    folder: Path,
) -> PlanJobs:
    """Launch a job per unit, and return once SLURM has all of them.

    `launch` waits for the jobs' ends, without an accounting for ever: it goes on in a thread that
    nobody waits for. The ids are read off the files that submitit makes in `folder`, which is
    this plan's alone. Raises NothingSubmitted.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class NeverAsks(SlurmInfoWatcher):
        def update(self) -> None:
            """squeue is asked instead (jobs.JobWatch): there may be no accounting."""

    SlurmJob.watcher = NeverAsks()
    slurm.leave_allocation()
    try:
        cluster = slurm.cluster_name()
    except slurm.SlurmUnreachable as error:
        raise NothingSubmitted(str(error)) from error
    thread, failure = in_background(lambda: launch(overrides))
    jobs, pickles, submitting = None, [], True
    while submitting and len(pickles) < len(overrides):
        time.sleep(0.05)
        submitting = thread.is_alive()
        pickles = [path.name for path in folder.glob("*/*_submitted.pkl")]
        if pickles and jobs is None:
            jobs = PlanJobs(plan, cluster, time.time(), _ids(pickles[0], len(overrides)))
            write_jobs(store, jobs)
    if jobs is None:
        raise NothingSubmitted(_reason(failure[0], len(overrides))) from failure[0]
    return jobs


def in_background(launch: Callable[[], Any]) -> tuple[threading.Thread, list[Exception]]:
    """A thread that nobody need wait for, started, and what ended the launch, once that has."""
    failure: list[Exception] = []

    def target() -> None:
        try:
            launch()
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, failure


def _ids(pickle: str, n: int) -> tuple[str, ...]:
    """Of the n jobs of an array, or of a single job, from the name of one's pickle."""
    array = pickle.removesuffix("_submitted.pkl").partition("_")[0]
    return (array,) if n == 1 else tuple(f"{array}_{i}" for i in range(n))


def _reason(error: Exception, n: int) -> str:
    """What sbatch said, and the cluster's limits where it said no more than that there are some."""
    text = (str(error).strip() or repr(error)).splitlines()[-1]
    settings = slurm.settings()
    most = min(int(settings["MaxArraySize"]) - 1, int(settings["MaxJobCount"]))
    if n > most or "temporarily" in text:  # too many jobs, of everybody together
        text += (
            f"; {n} jobs were asked for, and this cluster takes at most {most} of one sweep "
            f"(MaxArraySize={settings['MaxArraySize']}, MaxJobCount={settings['MaxJobCount']} of "
            "all users): use a smaller --jobs"
        )
    return text
