"""What SLURM says of jobs, asked through its own commands."""

import os
import re
import subprocess
from collections.abc import Collection
from functools import cache

_PATIENCE = 60  # seconds that a command gets: a busy controller answers late
_PURGED = "Invalid job id specified"  # of squeue, when it knows none of the ids


class SlurmUnreachable(RuntimeError):
    """A command of SLURM is missing or its controller gave no answer."""


def own_job() -> str | None:
    """The SLURM job that submitit started this process in, as squeue writes it: "12", "12_3"."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":  # we share somebody's allocation, if any
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def leave_allocation() -> None:
    """Forget the job that we run in ourselves: sbatch would hand its limits on to our jobs."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        if name != "SLURM_CONF":
            del os.environ[name]


def queue(jobs: Collection[str]) -> dict[str, str]:
    """Job -> state ("RUNNING", "PENDING (Resources)", ...) of those of `jobs` that have not ended.

    Raises SlurmUnreachable.
    """
    arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    try:
        lines = _answer("squeue", "-h", "-r", "-j", arrays, "-o", "%i %T %r").splitlines()
    except SlurmUnreachable as error:
        if _PURGED in str(error):  # said of a single id; several unknown ones are an empty list
            return {}
        raise
    found = (line.split(maxsplit=2) for line in lines)
    states = {
        job: state if reason == "None" else f"{state} ({reason})" for job, state, reason in found
    }
    return {job: states[job] for job in jobs if job in states}


def end_state(job: str) -> str:
    """How a job that squeue no longer lists ended: "COMPLETED", "CANCELLED", "TIMEOUT", ...

    The controller forgets it after MinJobAge, the accounting (if there is any) never; else UNKNOWN.
    """
    try:
        shown = re.search(r"JobState=(\w+)", _answer("scontrol", "show", "job", job))
        if shown:
            return shown[1]
    except SlurmUnreachable:
        pass
    try:
        lines = _answer("sacct", "-n", "-X", "-P", "-j", job, "-o", "State").split()
    except SlurmUnreachable:
        lines = []
    return lines[0] if lines else "UNKNOWN"


def cluster_name() -> str:
    """Raises SlurmUnreachable."""
    return settings()["ClusterName"]


@cache
def settings() -> dict[str, str]:
    """The cluster's configuration: ClusterName, MaxArraySize, ... Raises SlurmUnreachable."""
    lines = _answer("scontrol", "show", "config").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _answer(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SlurmUnreachable(f"this machine has no {command[0]}, a command of SLURM") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmUnreachable(f"{command[0]}: {error}") from error
    if done.returncode:
        raise SlurmUnreachable(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout
