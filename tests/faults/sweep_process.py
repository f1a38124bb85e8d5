"""Sweeps as real processes that can be killed, and what must hold of their store afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from plugins.load import load_sweep

ROOT = Path(__file__).resolve().parent.parent.parent


class SweepProcess:
    """`python sweep.py ARGS` of the toy family, killable."""

    def __init__(self, store: Path, *args: str):
        self.store = store
        self.known = set(store.glob("progress/*.json"))
        command = [sys.executable, str(ROOT / "sweep.py"), "-cn=toy/trivial", *args]
        self.process = subprocess.Popen(
            [*command, f"--output={store}"],
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def finish(self) -> str:
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


def results(store: Path):
    """Everything that is a result, in run_id order."""
    frame = load_sweep(store, status=("ok", "diverged", "failed"))
    return frame.select("run_id", "status", "seed", "step", "loss", "final_loss").sort("run_id")


def leftovers(store: Path) -> list[str]:
    """Temporary files of whatever was killed."""
    return [
        str(path.relative_to(store))
        for path in store.rglob("*")
        if path.name.startswith((".tmp-", ".dead-")) or path.suffix == ".tmp"
    ]


def undisturbed(store: Path, *args: str):
    """Rows of a sweep that nobody killed."""
    process = SweepProcess(store, *args)
    out = process.finish()
    assert process.process.returncode == 0, out
    return results(store)


def assert_completed(store: Path, args: Sequence[str], expected) -> None:
    """The same command completes the sweep: one ok row per run, equal to `expected` but for the
    run_id (a `sleep` among the args is part of it), and nothing temporary is left."""
    assert "failed 0, missing 0" in SweepProcess(store, *args).finish()
    got = results(store)
    by = ["seed", "final_loss"]
    assert got.drop("run_id").sort(by).equals(expected.drop("run_id").sort(by))
    assert got["run_id"].n_unique() == len(expected)
    assert leftovers(store) == []
