"""Sweeps as real processes that can be killed, and what must hold of their store afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import polars as pl

from plugins.load import load_sweep
from plugins.parts import list_parts, retry_vanished
from plugins.winners import read_keys

ROOT = Path(__file__).resolve().parent.parent.parent


class SweepProcess:
    """`python sweep.py ARGS` of the toy family, killable."""

    def __init__(self, store: Path, *args: str, before: Sequence[str] = (sys.executable,)):
        """`before`: what runs sweep.py, if it is not this interpreter alone."""
        self.store = store
        self.known = set(store.glob("progress/*.json"))
        self.process = subprocess.Popen(
            [*before, str(ROOT / "sweep.py"), "-cn=toy/trivial", *args, f"--output={store}"],
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def strike(self, number: signal.Signals, *, with_workers: bool = False) -> bool:
        """Send a signal; whether the driver was there to be hit."""
        pids = [self.process.pid, *(descendants(self.process.pid) if with_workers else [])]
        running = self.process.poll() is None
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return running

    def finish(self) -> str:
        """Wait for the end of every process that holds the output; returns it."""
        out, _ = self.process.communicate(timeout=120)
        return out

    def worker_pids(self, n: int) -> list[int]:
        """Processes of the units, once n of them have reported."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            fresh = set(self.store.glob("progress/*.json")) - self.known
            if len(fresh) == n:
                return [json.loads(path.read_text())["pid"] for path in sorted(fresh)]
            time.sleep(0.01)
        raise AssertionError(f"no {n} units reported: {self.finish()}")


def descendants(pid: int) -> list[int]:
    """A process's children, their children, ..."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [i for child in map(int, children) for i in (child, *descendants(child))]


def is_running(pid: int) -> bool:
    """False for a zombie too: nobody may be there to bury an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run_side_by_side(action: Callable[[int], int], n: int) -> int:
    """The sum of action(0), ..., action(n - 1): sweeps that sleep need no processor."""
    with ThreadPoolExecutor(n) as pool:
        return sum(pool.map(action, range(n)))


def results(store: Path) -> pl.DataFrame:
    """Everything that is a result, in run_id order."""
    frame = load_sweep(store, status=("ok", "diverged", "failed"))
    return frame.select("run_id", "status", "seed", "step", "loss", "final_loss").sort("run_id")


def n_stored(store: Path) -> int:
    """Runs with a row, each counted once."""
    return retry_vanished(lambda: read_keys(list_parts(store))["run_id"].n_unique())


def leftovers(store: Path) -> list[str]:
    """Temporary files of whatever was killed."""
    return [
        str(path.relative_to(store))
        for path in store.rglob("*")
        if path.name.startswith((".tmp-", ".dead-")) or path.suffix == ".tmp"
    ]


def undisturbed(store: Path, *args: str) -> pl.DataFrame:
    """Rows of a sweep that nobody killed."""
    process = SweepProcess(store, *args)
    out = process.finish()
    assert process.process.returncode == 0, out
    return results(store)


def assert_completed(store: Path, args: Sequence[str], expected: pl.DataFrame) -> None:
    """The same command completes the sweep: one ok row per run, equal to `expected` but for the
    run_id (a `sleep` among the args is part of it), and nothing temporary is left."""
    process = SweepProcess(store, *args)
    out = process.finish()
    assert "failed 0, missing 0" in out
    assert process.process.returncode == 0, out
    got = results(store)
    by = ["seed", "final_loss"]
    assert got.drop("run_id").sort(by).equals(expected.drop("run_id").sort(by))
    assert got["run_id"].n_unique() == len(expected)
    assert read_keys(list_parts(store)).height == len(expected)
    assert leftovers(store) == []
