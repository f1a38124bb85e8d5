"""Processes that start within milliseconds, tell what they have done, and are killed.

They are forked by a server that has imported the store's modules and never used them: the threads
of polars and pyarrow would not survive the fork. What a victim does is one of the functions below.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from store_rows import PROVENANCE, append, run_id

from plugins.fold import compact, fold_small
from plugins.merge import merge
from plugins.parts import PartVanished, list_parts
from plugins.store import SweepWriter
from plugins.winners import stored_runs

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["plugins.load", "plugins.merge", "plugins.store"])
Say = Callable[[Any], None]


class Victim:
    """`role(say, *args)` in a process of its own; what it says is heard here, also of the dead."""

    def __init__(self, role: Callable[..., None], *args: Any):
        self._ear, mouth = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_play, args=(role, mouth, *args), daemon=True)
        self._process.start()
        mouth.close()
        assert self._ear.recv() == "started"

    def strike(self, number: signal.Signals) -> bool:
        """Send a signal, wait for the end; whether it was the signal that ended it."""
        with suppress(ProcessLookupError):  # it had ended
            os.kill(self._process.pid, number)
        self._process.join()
        # An exception that meets a call from polars into Python becomes a panic: status 1.
        statuses = (0, 1, 128 + number) if number == signal.SIGTERM else (0, -number)
        assert self._process.exitcode in statuses, "it failed by itself"
        return self._process.exitcode != 0

    def end(self) -> None:
        """Let it come to its end."""
        self._process.join()
        assert self._process.exitcode == 0, "it failed"

    def heard(self) -> list[Any]:
        """All that it said; waits until it has ended."""
        said = []
        with suppress(EOFError):
            while True:
                said.append(self._ear.recv())
        return said


def lifetime(start: Callable[[], Victim]) -> float:
    """Seconds that an undisturbed victim lives, the shortest of three: later ones hit nobody."""
    seconds = []
    for _ in range(3):
        victim, started = start(), time.monotonic()
        victim.end()
        seconds.append(time.monotonic() - started)
    return min(seconds)


def write(say: Say, store: Path, numbers: Sequence[int], rows_per_part: int) -> None:
    """As a worker does: append what is not stored. Says ("appended" or "published", runs)."""
    done = set(stored_runs(store)["run_id"])
    todo = (i for i in numbers if run_id(i) not in done)
    with SweepWriter(store, "p", PROVENANCE, flush_seconds=1e9) as writer:
        while batch := list(itertools.islice(todo, rows_per_part)):
            for i in batch:
                append(writer, i)
                say(("appended", [i]))
            writer.flush()
            say(("published", batch))


def fold(say: Say, store: Path) -> None:
    """Compact without the lock and without end."""
    while True:
        with suppress(PartVanished):
            fold_small(store, list_parts(store))


def tidy(say: Say, store: Path) -> None:
    compact(store)


def unite(say: Say, inputs: Sequence[Path], output: Path) -> None:
    merge(inputs, output)


def moments(seed: int, length: float, count: int) -> np.ndarray:
    """Seconds after a victim's start, spread evenly over its life and put in random order."""
    rng = np.random.default_rng(seed)
    return rng.permutation((np.arange(count) + rng.uniform(size=count)) / count * length)


def _play(role: Callable[..., None], mouth: Any, *args: Any) -> None:
    # A sweep answers SIGTERM as it does Ctrl-C: by an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    mouth.send("started")
    role(mouth.send, *args)
