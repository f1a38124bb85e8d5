"""A tiny store for tests: run i has the curve i, i+1, i+2, the scalar i and two table rows.

As a script, `python store_rows.py ROLE STORE ...` is a process for the tests to start and kill.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from plugins.config_files import ConfigFile, write_config
from plugins.fold import compact, fold_small
from plugins.load import load_sweep, load_table
from plugins.parts import PartVanished, list_parts
from plugins.result import RunResult
from plugins.store import SweepWriter

CONFIG = ConfigFile({"experiment": "toy/run", "width": 3}, ("seed",), 1)
STEPS = [  # all that changes a store's disk, but for files being filled
    (os, "mkdir"),
    (os, "rename"),
    (os, "fsync"),
    (os, "unlink"),
    (os, "rmdir"),
    (pq.ParquetWriter, "write_table"),
]
PROVENANCE = {"experiment": "toy/run", "host": "h", "job": None, "code": "abc", "versions": "v"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run_id(i: int) -> str:
    return f"{i:016x}"


def result(i: int, value: float | None = None) -> RunResult:
    value = i if value is None else value
    return RunResult(
        scalars={"final": float(value)},
        curves={"step": [0, 1, 2], "loss": np.arange(3, dtype=np.float32) + value},
        tables={"notes": {"number": [0, 1], "note": [f"{value} a", f"{value} b"]}},
    )


def append(writer: SweepWriter, i: int, outcome=None, minute: float = 0, config=CONFIG, **values):
    """Run i of `config`; it finishes `minute` minutes after noon."""
    writer.append(
        index=i,
        run_id=run_id(i),
        config_id=config.config_id,
        values={"seed": i, **values} if config is CONFIG else values,
        outcome=result(i) if outcome is None else outcome,
        started=NOON + timedelta(minutes=minute),
        finished=NOON + timedelta(minutes=minute),
        seconds=0.0,
    )


def write_runs(store: Path, runs: Iterable[int], plan: str = "p", each: bool = False, **options):
    """Runs in one part, or with `each` in one part each (none folded)."""
    write_config(store, options.get("config", CONFIG))
    writer = SweepWriter(store, plan, PROVENANCE, flush_seconds=1e9)
    for i in runs:
        append(writer, i, **options)
        if each:
            writer.flush()
    writer.flush()


def assert_holds(store: Path, runs: Iterable[int]) -> None:
    """Exactly these runs, each once, with their values and table rows."""
    runs = sorted(runs)
    rows = load_sweep(store).sort("seed")
    assert rows["seed"].to_list() == runs
    assert rows["final"].to_list() == runs
    assert rows["loss"].to_list() == [[i, i + 1, i + 2] for i in runs]
    notes = load_table(store, name="notes").sort("run_id", "number") if runs else []
    expected = [(run_id(i), k, f"{i} {'ab'[k]}") for i in runs for k in (0, 1)]
    assert (notes.rows() if runs else []) == expected


def dot_entries(store: Path) -> list[str]:
    return [path.name for path in (store / "parts").glob(".*")]


def write_some(store: Path, first: int, count: int) -> None:
    with SweepWriter(store, "p", PROVENANCE, flush_seconds=0) as writer:
        for i in range(first, first + count):
            append(writer, i)


def fold_forever(store: Path) -> None:
    """Compact without the lock, as fast as possible."""
    print("ready", flush=True)
    while True:
        try:
            fold_small(store, list_parts(store))
        except PartVanished:
            continue


def compact_until(store: Path, step: int) -> None:
    """Exits at the step-th change of the disk."""
    steps = itertools.count()

    def exits(function):
        def call(*args, **kwargs):
            if next(steps) == step:
                os._exit(9)
            return function(*args, **kwargs)

        return call

    for owner, name in STEPS:
        setattr(owner, name, exits(getattr(owner, name)))
    compact(store)


def read_until(store: Path, count: int) -> None:
    """Fails when the number of runs or table rows ever falls, or a value is wrong."""
    runs = notes = 0
    end = time.monotonic() + 60
    while runs < count:
        assert time.monotonic() < end, f"{runs} of {count} runs after a minute"
        frame = load_sweep(store)
        assert len(frame) >= runs, f"{runs} runs fell to {len(frame)}"
        if frame.is_empty():
            continue
        runs = len(frame)
        assert frame["run_id"].is_unique().all()
        assert frame["final"].to_list() == frame["seed"].to_list()
        table = load_table(store, name="notes")
        assert table.select("run_id", "number").is_unique().all()
        assert len(table) >= max(notes, 2 * runs), f"{notes} table rows fell to {len(table)}"
        notes = len(table)


ROLES = (write_some, fold_forever, compact_until, read_until)

if __name__ == "__main__":
    role, folder, *numbers = sys.argv[1:]
    {f.__name__: f for f in ROLES}[role](Path(folder), *map(int, numbers))
