"""What a run costs beside its training, and what results cost to read: ours and what others use.

    pip install -e '.[bench]'
    python benchmarks/framework.py [--quick] [--overhead] [--results] [--runs 1000 100000]

Prints two tables, or the one named: the overhead of a trivial run against Hydra's launchers, and
results into a frame against signac and JSON files. Nine minutes of processor time; --quick half a
minute.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "tests" / "packages"  # the toy family, as if it were installed
sys.path[:0] = [str(ROOT), str(PACKAGES)]

from benchmarks.keepers import CURVE, KEEPERS, KEYS, POINTS, SCALARS, Keeper, Results  # noqa: E402
from plugins import api  # noqa: E402
from plugins.load import scan_sweep  # noqa: E402

JOBS = 2  # processes, where a launcher has several


@dataclass(frozen=True)
class Effort:
    """How long to measure; two numbers of runs give the start-up and the cost per run."""

    ours: tuple[int, int]
    hydra: tuple[int, int]
    submitit: tuple[int, int]
    results: tuple[int, ...]  # numbers of runs in the second table
    rounds: int  # contenders take turns; their medians count


FULL = Effort((2_000, 20_000), (20, 120), (4, 20), (1_000, 100_000), rounds=3)
QUICK = Effort((200, 2_000), (2, 8), (1, 2), (200,), rounds=1)


def fresh(function: Callable, *args: Any) -> Any:
    """`function(*args)` in a new process: nothing is cached, this file's imports are done."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@dataclass(frozen=True)
class Launcher:
    """A way to carry out runs that return at once."""

    name: str
    seconds: Callable[[int, Path], float]  # of n runs whose results go into an empty folder
    results: Callable[[Path], int]  # how many are there
    runs: tuple[int, int]  # two sizes: their difference is the cost per run without the start-up


def command(line: Sequence[str], folder: Path, env: Mapping[str, str]) -> float:
    """Seconds of a whole Python process, from its start to its end."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - start


def by_command(experiment: str, *flags: str) -> Callable[[int, Path], float]:
    """Ours: `python sweep.py`."""

    def seconds(n: int, folder: Path) -> float:
        sweep = [f"-cn={experiment}", f"seed=0..{n}", "--output=store", *flags]
        return command([str(ROOT / "sweep.py"), *sweep], folder, {"PYTHONPATH": str(PACKAGES)})

    return seconds


def in_process(experiment: str) -> Callable[[int, Path], float]:
    """Ours: `api.sweep`."""
    return lambda n, folder: fresh(_sweep_here, experiment, n, folder / "store")


def _sweep_here(experiment: str, n: int, store: Path) -> float:
    start = time.perf_counter()
    api.sweep(experiment, [f"seed=0..{n}"], output=store)
    return time.perf_counter() - start


def by_hydra(*overrides: str) -> Callable[[int, Path], float]:
    """A Hydra application with --multirun; -P, or it would see the files of this folder."""

    def seconds(n: int, folder: Path) -> float:
        app = ["-P", str(ROOT / "benchmarks" / "hydra_app.py")]
        return command(
            [*app, "-m", f"seed=range({n})", "hydra.sweep.dir=out", *overrides], folder, {}
        )

    return seconds


def rows(folder: Path) -> int:
    return scan_sweep(folder / "store").select(pl.len()).collect().item()


def result_files(folder: Path) -> int:
    return sum(1 for _ in folder.glob("out/*/result.json"))


def launchers(effort: Effort) -> list[Launcher]:
    hydra = [
        ("basic", [], effort.hydra),
        (
            "basic, no logs, no .hydra/",
            ["hydra.output_subdir=null", "hydra/job_logging=disabled"],
            effort.hydra,
        ),
        (
            f"joblib, {JOBS} jobs",
            ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={JOBS}"],
            effort.hydra,
        ),
        ("submitit_local", ["hydra/launcher=submitit_local"], effort.submitit),
    ]
    found = [
        Launcher(f"Hydra, {name}", by_hydra(*overrides), result_files, sizes)
        for name, overrides, sizes in hydra
    ]
    for experiment, kind in (("toy/trivial", "stacked"), ("toy/single", "one by one")):
        for how, seconds in (
            ("sweep.py", by_command(experiment)),
            (f"sweep.py --workers {JOBS}", by_command(experiment, f"--workers={JOBS}")),
            ("in process", in_process(experiment)),
        ):
            found.append(Launcher(f"ours, {kind}, {how}", seconds, rows, effort.ours))
    return found


def measure_launch(launcher: Launcher, n: int) -> float:
    with TemporaryDirectory() as folder:
        seconds = launcher.seconds(n, Path(folder))
        done = launcher.results(Path(folder))
        if done != n:
            raise SystemExit(f"{launcher.name}: {done} results of {n} runs")
    return seconds


def overhead(contenders: Sequence[Launcher], rounds: int) -> None:
    """The first is the one that the others are compared with."""
    print(
        "\nOverhead of a run that returns at once: seconds of the whole process, to the last"
        f"\nresult on disc, median of {rounds}. Start-up and the cost of a further run: from two"
        "\nnumbers of runs. Ratios: a further run of the first line, to a run and a further run"
        "\nof this one.\n\n"
        f"{'':<38}|   runs      s   ms/run   ratio | start-up   ms/run   ratio"
    )
    cases = [(launcher, n) for launcher in contenders for n in launcher.runs]
    times = [[measure_launch(launcher, n) for launcher, n in cases] for _ in range(rounds)]
    medians = iter(map(median, zip(*times, strict=True)))
    base = None
    for launcher, short, long in zip(contenders, medians, medians, strict=True):
        few, many = launcher.runs
        whole, further = 1e3 * long / many, 1e3 * (long - short) / (many - few)
        base = base or further
        start_up = short - few * further / 1e3
        print(
            f"{launcher.name:<38}| {many:6,} {long:6.2f} {whole:8.3f} {base / whole:7.1f} |"
            f" {start_up:6.2f} s {further:8.4f} {base / further:7.1f}"
        )


def time_writing(keeper: Keeper, folder: Path, n: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    results = Results(n)
    start = time.perf_counter()
    keeper.write(folder, results)
    return time.perf_counter() - start


def time_loading(keeper: Keeper, folder: Path, n: int, columns: Sequence[str]) -> float:
    start = time.perf_counter()
    frame = keeper.load(folder, columns)
    seconds = time.perf_counter() - start
    Results(n).check(frame)
    return seconds


def bytes_on_disc(folder: Path) -> int:
    """Blocks of files and folders; reads every file, so that the page cache holds it."""
    total = 0
    for path in [folder, *folder.rglob("*")]:
        total += 512 * path.stat().st_blocks
        if path.is_file():
            path.read_bytes()
    return total


def into_frame(contenders: Sequence[Keeper], n: int, rounds: int) -> None:
    writings = rounds if n <= 10_000 else 1
    print(
        f"\n{n:,} runs x {POINTS} points, {len(KEYS)} keys, {len(SCALARS)} scalars. A new process"
        " loads the keys and scalars\nof all runs, or the keys and one curve, into a polars frame:"
        f" median of {rounds}, of writing {writings}.\nRatios: to the first line, per run.\n\n"
        f"{'':<19}|         |     write      |  disc |"
        "        scalars        |       one curve\n"
        f"{'':<19}|    runs |      s  us/run | B/run |"
        "      s us/run   ratio |      s us/run   ratio"
    )
    loads = [(*KEYS, *SCALARS), (*KEYS, CURVE)]
    with TemporaryDirectory() as root:
        cases = [
            (keeper, Path(root) / str(i), min(n, keeper.most or n))
            for i, keeper in enumerate(contenders)
        ]
        writes = [[fresh(time_writing, *case) for case in cases] for _ in range(writings)]
        os.sync()  # or the disc is still busy while loading is measured
        weights = [bytes_on_disc(folder) for _, folder, _ in cases]
        reads = [
            [fresh(time_loading, *case, columns) for case in cases for columns in loads]
            for _ in range(rounds)
        ]
    writes, reads = (map(median, zip(*times, strict=True)) for times in (writes, reads))
    base = None
    for (keeper, _, size), write, weight in zip(cases, writes, weights, strict=True):
        found = [next(reads) for _ in loads]
        base = base or [seconds / n for seconds in found]
        cells = [
            f"{seconds:6.3f} {seconds / size * 1e6:6.1f} {seconds / size / first:7.1f}"
            for seconds, first in zip(found, base, strict=True)
        ]
        print(
            f"{keeper.name:<19}| {size:7,} | {write:6.2f} {write / size * 1e6:7.1f} |"
            f" {weight / size:5.0f} | {' | '.join(cells)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="rough figures within a minute")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--results", action="store_true")
    parser.add_argument("--runs", nargs="+", type=int, help="sizes of the second table")
    asked = parser.parse_args()
    effort = QUICK if asked.quick else FULL
    packages = ("hydra-core", "hydra-joblib-launcher", "submitit", "polars", "signac", "orjson")
    print(
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f"; {len(os.sched_getaffinity(0))} cores.\n"
        "Contenders take turns. The page cache is warm: every file was read once before."
    )
    if asked.overhead or not asked.results:
        overhead(launchers(effort), effort.rounds)
    if asked.results or not asked.overhead:
        for n in asked.runs or effort.results:
            into_frame(KEEPERS, n, effort.rounds)


if __name__ == "__main__":
    main()
