"""Sweeps submitted to the cluster of the environment, and what the tests ask of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from plugins.load import load_sweep

ROOT = Path(__file__).resolve().parent.parent.parent
SLURM = "hydra/launcher=slurm"
_waiting_since: dict[str, float] = {}


def start(store: Path, *args: str, **environment: str) -> subprocess.Popen:
    """`python sweep.py ARGS` with this store, in a shell of its own as far as signals go."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), *args, f"--output={store}"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    """(exit status, what it printed)"""
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def sweep(store: Path, *args: str, **environment: str) -> tuple[int, str]:
    return finish(start(store, *args, **environment))


def toy(*args: str) -> list[str]:
    """Arguments of a toy sweep on the cluster: stacks of two runs."""
    return ["-cn=toy/trivial", "hydra.sweeper.max_stack=2", SLURM, *args]


def slurm(*command: str) -> str:
    """Output of a command of SLURM."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def jobs(store: Path) -> list[str]:
    """Ids of all jobs that drivers submitted for the store, in order."""
    files = sorted(store.glob("plans/*.jobs.json"))
    return [job for file in files for job in json.loads(file.read_text())["jobs"]]


def reports(store: Path) -> list[dict]:
    found = []
    for path in store.glob("progress/*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except FileNotFoundError:  # replaced at this moment
            continue
    return found


def start_requeued_soon() -> None:
    """To be called again and again: SLURM lets a requeued job wait for two minutes, we for some
    seconds: started at once, it may meet its own end."""
    waiting = {}
    for line in slurm("squeue", "-h", "-r", "-o", "%i %r").splitlines():
        job, reason = line.split(maxsplit=1)
        if reason == "BeginTime":
            waiting[job] = _waiting_since.get(job, time.monotonic())
            if time.monotonic() - waiting[job] > 6:
                # It may start or end meanwhile.
                subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=False)
    _waiting_since.clear()
    _waiting_since.update(waiting)


def wait_until(
    holds: Callable[[], object], meanwhile: Callable[[], None] = lambda: None, seconds: float = 200
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"in vain: {slurm('squeue', '-r')}"
        meanwhile()
        time.sleep(0.2)


def finish_with_requeues(process: subprocess.Popen) -> tuple[int, str]:
    wait_until(lambda: process.poll() is not None, start_requeued_soon, 400)
    return finish(process)


def results(store: Path):
    """Everything that is a result, in run_id order."""
    frame = load_sweep(store, status=("ok", "diverged", "failed"))
    return frame.select("run_id", "status", "seed", "step", "loss", "final_loss").sort("run_id")
