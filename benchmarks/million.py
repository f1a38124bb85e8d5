"""Time and memory of a store of a million runs: plan, write, resume, compact, merge, read, report.

    python benchmarks/million.py [--runs 1000000] [--points 250] [--folder DIR]

Prints one table; exits with 1 when a limit is missed. The runs are made up and go through
SweepWriter, in 64 units. Every stage is a process of its own, whose peak memory is given above that
of its imports, and whole. All stages run at a quarter of the size first: from that comes the memory
that one more stored row takes. The stores take 4 kB of disk a run of 250 points, and are deleted.
"""

import argparse
import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "packages")]

from analysis import over_seeds  # noqa: E402
from analysis.report.page import write_report  # noqa: E402
from plugins import driver  # noqa: E402
from plugins.config_files import ConfigFile, write_config  # noqa: E402
from plugins.experiment import CONF, import_family  # noqa: E402
from plugins.fold import compact  # noqa: E402
from plugins.load import scan_sweep  # noqa: E402
from plugins.merge import merge  # noqa: E402
from plugins.overrides import translate_override  # noqa: E402
from plugins.plan import drop_done  # noqa: E402
from plugins.result import RunResult  # noqa: E402
from plugins.store import SweepWriter  # noqa: E402
from plugins.winners import DONE, stored_runs  # noqa: E402

UNITS = 64
SCALES = 4  # values of the key that runs are grouped by
BLOCK = 1_000  # runs whose curves are drawn at once
MORE = 2_000  # runs of a later sweep
MB = 1e6
PROVENANCE = {"experiment": "toy/trivial", "host": "h", "job": None, "code": "c", "versions": "{}"}
FILE = ConfigFile({"experiment": "toy/trivial"}, ("model.scale", "seed"), 1)


_LINE = "{:34}{:>8}{:>8}{:>8}{:>9}{:>9}{:>7}{:>7}{:>6}"


@dataclass(frozen=True)
class Stage:
    """What one process does to a store, on how many rows, and its limits at a million runs."""

    name: str
    run: Callable
    store: Path
    arguments: tuple
    rows: int
    seconds: float | None = None
    peak: float | None = None  # bytes
    slope: float | None = None  # bytes of the peak, a row

    def measure(self) -> tuple[float, float, int, int]:
        """Seconds, seconds of processors, peak bytes above the imports, and whole."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measured, self.run, (self.store, *self.arguments)).result()


def stages(folder: Path, runs: int, points: int) -> list[Stage]:
    """The stages in order; stores a and b have `runs` runs each, half of them the same."""
    a, b, both = folder / "a", folder / "b", folder / "both"
    few = {"peak": 800 * MB, "slope": 150}
    last = {"seconds": 10, "peak": 800 * MB}
    return [
        Stage("plan", plan, folder / "none", (runs,), runs, 1e-5 * runs, 2_000 * MB),
        Stage("write", write, a, (0, runs, points), runs),
        Stage("write another store", write, b, (runs // 2, runs, points), runs),
        Stage("resume: which ids are stored", resume, a, (runs,), runs, seconds=3),
        Stage("merge the two, half in common", merge_into, both, (a, b, runs), 2 * runs, **few),
        Stage("compact", compact, a, (), runs, **few),
        Stage("compact again: nothing to do", compact, a, (), runs),
        Stage(f"write {MORE} more", write, a, (runs, MORE, points, 1), MORE),
        Stage("compact these", compact, a, (), runs, peak=800 * MB),
        Stage("mean, sd per step of 4 groups", aggregate, a, (runs + MORE, points), runs, **last),
        Stage("load all but the curves", load_scalars, a, (runs + MORE,), runs),
        Stage("report", report, a, (), runs),
    ]


def plan(store: Path, runs: int) -> None:
    import_family("toy")
    axes = [f"model.scale=1..{1 + SCALES}", f"seed=0..{runs // SCALES}"]
    request = driver.Request([translate_override(axis) for axis in axes], store, "", units=UNITS)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweep = driver.plan_sweep(
            request, lambda lines: compose("toy/trivial", lines), lambda key: False
        )
    assert sweep.plan.planned == runs


def write(store: Path, first: int, runs: int, points: int, units: int = UNITS) -> None:
    """Runs first, first + 1, ... by the writers of several units, one after the other."""
    write_config(store, FILE)
    steps, now, block = np.arange(points), datetime.now(UTC), None
    config_id = FILE.config_id
    bounds = np.linspace(first, first + runs, units + 1).astype(int).tolist()
    for low, high in itertools.pairwise(bounds):
        with SweepWriter(store, "20260101T000000.0Z-0", PROVENANCE) as writer:
            for index in range(low, high):
                if index // BLOCK != block:
                    block = index // BLOCK
                    curves = losses(block, points)
                loss = curves[index % BLOCK]
                result = RunResult({"final_loss": float(loss[-1])}, {"step": steps, "loss": loss})
                keys = {"model.scale": float(1 + index % SCALES), "seed": index // SCALES}
                name = run_id(index)
                writer.append(index, name, config_id, keys, result, now, now, 1e-3)


def losses(block: int, points: int) -> np.ndarray:
    """[BLOCK, points] float32 of a block of runs, the same in every store: exp(-t) + 0.1 noise."""
    noise = np.random.default_rng(block).normal(size=(BLOCK, points))
    return (expected_loss(points) + 0.1 * noise).astype(np.float32)


def expected_loss(points: int) -> np.ndarray:
    return np.exp(-np.arange(points) / points)


def run_id(index: int) -> str:
    return hashlib.blake2b(str(index).encode(), digest_size=8).hexdigest()


def resume(store: Path, runs: int) -> float:
    """Seconds, without those that it takes to make up the plan's ids."""
    frame = pl.DataFrame({"run_id": [run_id(index) for index in range(runs + MORE)]})
    start = time.perf_counter()
    left = drop_done(frame, stored_runs(store).filter(pl.col("status").is_in(DONE)))
    assert len(left) == MORE
    return time.perf_counter() - start


def merge_into(output: Path, a: Path, b: Path, runs: int) -> None:
    report = merge([a, b], output, keep="error")
    assert (report.runs, report.overlapping) == (runs + runs // 2, runs - runs // 2)


def aggregate(store: Path, runs: int, points: int) -> None:
    rows = scan_sweep(store).filter(pl.col("final_loss").is_finite())
    curves = over_seeds(rows, "loss", by="model.scale").curves
    assert curves["n"].sum() == runs * points
    error = curves["mean"].to_numpy() - np.tile(expected_loss(points), SCALES)
    assert np.abs(error).max() < 6 * 0.1 / np.sqrt(runs / SCALES)  # standard errors
    assert abs(curves["sd"].mean() - 0.1) < 1e-3


def load_scalars(store: Path, runs: int) -> None:
    rows = scan_sweep(store)
    curves = [name for name, kind in rows.collect_schema().items() if isinstance(kind, pl.List)]
    assert len(rows.drop(curves).collect()) == runs


def report(store: Path) -> None:
    page = store.parent / f"{store.name}.html"
    write_report(store, page, lambda what: None)
    assert 'class="sortable"' in page.read_text()


def _measured(run: Callable, arguments: tuple) -> tuple[float, float, int, int]:
    before, start, processors = _peak(), time.perf_counter(), time.process_time()
    seconds = run(*arguments)
    wall, processors = time.perf_counter() - start, time.process_time() - processors
    return wall if seconds is None else seconds, processors, _peak() - before, _peak()


def _peak() -> int:
    """Bytes; not ru_maxrss, with which a child starts at its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _disk(store: Path) -> tuple[int, str]:
    """Files of a store, and their MB."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return len(files), f"{sum(path.stat().st_size for path in files) / MB:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--points", type=int, default=250, help="of a run's curve")
    parser.add_argument("--folder", type=Path, help="where the stores go (default: the system's)")
    arguments = parser.parse_args()
    runs = arguments.runs // UNITS * UNITS
    missed = 0
    with TemporaryDirectory(dir=arguments.folder) as folder:
        quarter = stages(Path(folder, "quarter"), runs // 4, arguments.points)
        whole = stages(Path(folder, "whole"), runs, arguments.points)
        at_full = runs >= 1_000_000  # below, what is constant weighs too much
        peaks = [stage.measure()[2] for stage in quarter]
        print(f"{runs} runs of {arguments.points} points, {os.cpu_count()} cores; ! misses a limit")
        print(
            _LINE.format("", "s", "cpu s", "us/row", "MB more", "MB whole", "B/row", "files", "MB")
        )
        for stage, fewer, peak_of_fewer in zip(whole, quarter, peaks, strict=True):
            seconds, processors, above, peak = stage.measure()
            more = stage.rows - fewer.rows
            slope = (above - peak_of_fewer) / more if more else None
            results = ((seconds, stage.seconds), (peak, stage.peak), (slope, stage.slope))
            misses = [
                "!" if limit and at_full and value > limit else "" for value, limit in results
            ]
            missed += misses.count("!")
            print(
                _LINE.format(
                    stage.name,
                    f"{misses[0]}{seconds:.2f}",
                    f"{processors:.2f}",
                    f"{seconds / stage.rows * 1e6:.2f}",
                    f"{above / MB:.0f}",
                    f"{misses[1]}{peak / MB:.0f}",
                    "" if slope is None else f"{misses[2]}{slope:.0f}",
                    *_disk(stage.store),
                ),
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
