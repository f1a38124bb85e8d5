"""Cost of the machinery: planning, a trivial run, loading, start-up.

    python benchmarks/machinery.py [--runs 100000]

Prints one line per figure. The family is the tests' toy, whose runs cost next to nothing.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "packages")]

from hydra import compose, initialize_config_dir  # noqa: E402

from plugins import api, driver  # noqa: E402
from plugins.config_files import ConfigFile, write_config  # noqa: E402
from plugins.experiment import CONF, import_family  # noqa: E402
from plugins.load import load_sweep  # noqa: E402
from plugins.overrides import translate_override  # noqa: E402
from plugins.result import RunResult  # noqa: E402
from plugins.store import SweepWriter  # noqa: E402

PROVENANCE = {"experiment": "toy/trivial", "host": "h", "job": None, "code": None, "versions": "{}"}


def report(what: str, value: str) -> None:
    print(f"{what:<64} {value}", flush=True)


def planning(n: int) -> None:
    shapes = {
        "one axis": [f"seed=0..{n}"],
        "3 x 5 x n/15": ["model.scale=1,2,3", "model.width=1,2,3,4,5", f"seed=0..{n // 15}"],
        "an interpolated key, n/5 seeds": ["model.width=1,2,3,4,5", f"seed=0..{n // 5}"],
    }
    import_family("toy")
    for name, overrides in shapes.items():
        with TemporaryDirectory() as store, initialize_config_dir(str(CONF), version_base="1.3"):
            request = driver.Request([translate_override(o) for o in overrides], Path(store), "")
            start = time.perf_counter()
            sweep = driver.plan_sweep(
                request, lambda lines: compose("toy/trivial", lines), lambda key: False
            )
            seconds = time.perf_counter() - start
        planned = sweep.plan.planned
        report(f"planning {planned} runs, {name}", f"{seconds / planned * 1e3:.4f} ms a run")


def trivial_runs(n: int) -> None:
    with TemporaryDirectory() as store:
        for experiment in ("toy/trivial", "toy/single"):
            start = time.perf_counter()
            done = api.sweep(experiment, [f"seed=0..{n}"], output=Path(store) / experiment)
            seconds = time.perf_counter() - start
            assert done.ok == n
            kind = "in a stack" if experiment == "toy/trivial" else "alone"
            report(f"{n} trivial runs {kind}, plan to rows", f"{seconds / n * 1e3:.4f} ms a run")


def loading(n: int, points: int) -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(points)
    with TemporaryDirectory() as folder:
        store = Path(folder)
        file = ConfigFile({"experiment": "toy/trivial"}, ("seed",), 1)
        write_config(store, file)
        start = time.perf_counter()
        with SweepWriter(store, "20260101T000000.0Z-0", PROVENANCE) as writer:
            for seed in range(n):
                loss = rng.random(points, dtype=np.float32)
                result = RunResult({"final_loss": float(loss[-1])}, {"step": steps, "loss": loss})
                run_id = f"{seed:016x}"
                now = datetime.now(UTC)
                writer.append(seed, run_id, file.config_id, {"seed": seed}, result, now, now, 0.1)
        written = time.perf_counter() - start
        report(f"write {n} runs x {points} points", f"{written / n * 1e6:.1f} us a run")
        start = time.perf_counter()
        frame = load_sweep(store)
        seconds = time.perf_counter() - start
        assert len(frame) == n
        report(f"load_sweep {n} x {points}", f"{seconds:.2f} s")
        code = (  # not ru_maxrss: a child starts with its parent's
            "from plugins.load import load_sweep\n"
            "def peak():\n"
            "    lines = open('/proc/self/status').read().splitlines()\n"
            "    return next(line.split()[1] for line in lines if line.startswith('VmHWM'))\n"
            "before = peak()\n"
            f"load_sweep({str(store)!r})\n"
            "print(before, peak())\n"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        before, after = (int(kib) / 1024 for kib in out.stdout.split())
        report(f"load_sweep {n} x {points}, peak memory above the imports",
               f"{after - before:.0f} MiB ({after:.0f} with them)")  # fmt: skip


def start_up() -> None:
    for args in (["--cfg", "job"], ["--dry-run"]):
        times = []
        for _ in range(5):
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            with TemporaryDirectory() as folder:
                subprocess.run(
                    [sys.executable, str(ROOT / "sweep.py"), "-cn=dln/gph", *args],
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    check=True,
                )
            wall = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append((wall, after.ru_utime - usage.ru_utime))
        wall, user = sorted(times)[2]
        report(f"sweep.py -cn=dln/gph {' '.join(args)}, median of 5",
               f"{wall:.2f} s ({user:.2f} s user)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000, help="runs planned")
    arguments = parser.parse_args()
    planning(arguments.runs)
    trivial_runs(2_000)
    trivial_runs(20_000)
    loading(10_000, 250)
    start_up()


if __name__ == "__main__":
    main()
