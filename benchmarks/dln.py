"""Speed of the family dln: training against a plain PyTorch loop, and a sweep from argv to rows.

    python benchmarks/dln.py [--quick] [--widths 10 50 100] [--batches 1 5 50 null]
                             [--grid] [--pipeline] [--gpu] [--stack-widths]

Prints tables: training, the whole pipeline and the GPU, or only those named; --stack-widths shows
whether `dln.stacking.stack_width` picks well. About nine minutes on two idle cores; --quick one.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import geometric_mean, median
from tempfile import TemporaryDirectory

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, where `dln` is this file

from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from benchmarks.plain_loop import EVERY, Curves, plain  # noqa: E402
from dln.config import TrainConfig, layer_shapes, n_params  # noqa: E402
from dln.stacking import stack_width  # noqa: E402
from dln.train import run_stack  # noqa: E402
from plugins.experiment import CONF, import_family  # noqa: E402
from plugins.instances import instantiate  # noqa: E402

TOLERANCE = 5e-4  # relative, between our curves and the plain loop's, both trained in float32
STUDY_BATCHES = ("1", "2", "5", "10", "50")
STUDY_RUNS = 3 * 2 * 4 * 10_000  # per width and batch size: gamma, noise, model and batch seeds
STUDY_STEPS = 10_000
MANY = 10_000  # replicas in one stack on a GPU, at the largest width

Prepared = Callable[[], Curves]  # trains; the curves are those of batch seed 0


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    steps: int  # of a training at least
    seconds: float  # of a training at least
    rounds: int  # trainings of each kind; their median counts
    sweep: tuple[int, int]  # runs and steps of the pipeline's sweep


FULL = Effort(steps=1000, seconds=1.0, rounds=3, sweep=(2000, 2000))
QUICK = Effort(steps=120, seconds=0.06, rounds=1, sweep=(200, 400))


def gph(*overrides: str) -> TrainConfig:
    """The experiment dln/gph as the command line would compose it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("dln/gph", list(overrides))
    return instantiate(OmegaConf.to_container(config, resolve=True), TrainConfig)


def cell(width: int, batch: str, *overrides: str) -> TrainConfig:
    return gph(f"model.hidden_dim={width}", f"training.batch_size={batch}", *overrides)


def with_steps(cfg: TrainConfig, steps: int) -> TrainConfig:
    """`steps` a multiple of EVERY: records at 0, EVERY, ..., steps."""
    return replace(cfg, max_steps=steps, num_evaluations=steps // EVERY)


def ours(cfg: TrainConfig, replicas: int | None = None) -> Prepared:
    """One stack, by default as wide as a sweep's, that makes its data, weights and batches."""
    replicas = replicas or stack_width(cfg)
    seeds = {"training.batch_seed": range(replicas)}
    return lambda: run_stack(cfg, seeds, [Path()] * replicas)[0].curves


def seconds(train: Prepared) -> float:
    start = time.perf_counter()
    train()
    return time.perf_counter() - start


def enough_steps(
    make: Callable[[TrainConfig], Prepared], cfg: TrainConfig, effort: Effort
) -> tuple[int, Curves]:
    """A multiple of EVERY, effort.steps at least, that takes about effort.seconds; its curves."""
    steps = effort.steps
    while True:
        train = make(with_steps(cfg, steps))
        start = time.perf_counter()
        curves = train()
        took = time.perf_counter() - start
        if took >= 0.9 * effort.seconds:
            return steps, curves
        factor = min(1.1 * effort.seconds / took, 10)
        steps = EVERY * math.ceil(steps * factor / EVERY)


@dataclass(frozen=True)
class Crew:
    """Processes, one per core and each with one torch thread, that start their work together."""

    pool: ProcessPoolExecutor
    cores: int

    def seconds(self, make: Callable[..., Prepared], shares: Sequence[tuple]) -> float:
        """From the first start to the last end of a share per core; `make` is not timed."""
        spans = [self.pool.submit(_train_with_crew, make, share) for share in shares]
        starts, ends = zip(*(span.result() for span in spans), strict=True)
        return max(ends) - min(starts)


@contextmanager
def ready_crew(cores: int) -> Iterator[Crew]:
    context = get_context("spawn")
    barrier = context.Barrier(cores)
    with ProcessPoolExecutor(cores, context, _join_crew, (barrier,)) as pool:
        crew = Crew(pool, cores)
        tiny = with_steps(gph("device=cpu", "training.batch_size=5"), EVERY)
        for make in (ours, plain):  # first calls of torch are slow
            crew.seconds(make, [(tiny,)] * cores)
        yield crew


def _join_crew(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)


def _train_with_crew(make: Callable[..., Prepared], share: tuple) -> tuple[float, float]:
    train = make(*share)
    _barrier.wait(timeout=300)  # one share per process: who waits here takes no second one
    start = time.perf_counter()
    train()
    return start, time.perf_counter()


@dataclass(frozen=True)
class Cell:
    """Replica-steps per second per core."""

    width: int
    batch: str
    ours: float  # one process, the other cores idle
    plain: float
    ours_crew: float  # every core busy
    plain_crew: float
    deviation: float  # of our curves from the plain loop's

    @property
    def ratio(self) -> float:
        return self.ours / self.plain

    @property
    def ratio_crew(self) -> float:
        return self.ours_crew / self.plain_crew


def measure(cfg: TrainConfig, effort: Effort, crew: Crew) -> Cell:
    stack = stack_width(cfg)
    n_ours, our_curves = enough_steps(ours, cfg, effort)
    n_plain, plain_curves = enough_steps(plain, cfg, effort)
    stacked, single = with_steps(cfg, n_ours), with_steps(cfg, n_plain)
    our_training, plain_training = ours(stacked), plain(single)
    times = [
        (
            seconds(our_training),
            seconds(plain_training),
            crew.seconds(ours, [(stacked,)] * crew.cores),
            crew.seconds(plain, [(single,)] * crew.cores),
        )
        for _ in range(effort.rounds)
    ]
    t_ours, t_plain, t_ours_crew, t_plain_crew = map(median, zip(*times, strict=True))
    return Cell(
        cfg.model.hidden_dim,
        str(cfg.training.batch_size or "null"),
        stack * n_ours / t_ours,
        n_plain / t_plain,
        stack * n_ours / t_ours_crew,
        n_plain / t_plain_crew,
        deviation(our_curves, plain_curves),
    )


def deviation(curves: Curves, reference: Curves) -> float:
    """Largest difference on the records both have, relative to the reference.

    To it and a millionth of its largest value: where a loss has fallen that far, float32 rounds.
    """
    worst = []
    for name, values in reference.items():
        n = min(len(values), len(curves[name]))
        a, b = (np.asarray(column[:n], dtype=np.float64) for column in (curves[name], values))
        worst.append(np.max(np.abs(a - b) / (np.abs(b) + 1e-6 * np.abs(b).max())))
    return float(np.max(worst))  # nan where one is, which Python's max may pass over


def grid(widths: Sequence[int], batches: Sequence[str], effort: Effort, crew: Crew) -> None:
    peak = matmul_peak()
    print(f"one thread multiplies float32 matrices at {peak / 1e9:.0f} GFLOP/s")
    for metrics in ("", "gradient_stats"):
        print(f"\nReplica-steps per second per core, metrics: {metrics or 'none'}")
        print("                  |        one process         |      every core busy       |")
        print(
            "width batch stack |      ours     plain  ratio |      ours     plain  ratio |"
            + ("" if metrics else " GFLOP/s of peak")
        )
        cells = []
        for width in widths:
            for batch in batches:
                cfg = cell(width, batch, f"metrics=[{metrics}]", "device=cpu")
                found = measure(cfg, effort, crew)
                cells.append(found)
                flops = found.ours * step_flops(cfg)
                arithmetic = "" if metrics else f" {flops / 1e9:7.2f} {flops / peak:7.1%}"
                print(
                    f"{width:5} {batch:>5} {stack_width(cfg):5} |"
                    f" {found.ours:9.0f} {found.plain:9.0f} {found.ratio:6.1f} |"
                    f" {found.ours_crew:9.0f} {found.plain_crew:9.0f} {found.ratio_crew:6.1f} |"
                    + arithmetic,
                    flush=True,
                )
                if not found.deviation <= TOLERANCE:
                    raise SystemExit(
                        f"width {width}, batch {batch}: our curves differ from the plain loop's "
                        f"by {found.deviation:.1e}, more than {TOLERANCE:.0e}"
                    )
        summarise(cells)


def summarise(cells: Sequence[Cell]) -> None:
    for name, ratio in (
        ("one process", lambda found: found.ratio),
        ("every core busy", lambda found: found.ratio_crew),
    ):
        least = min(cells, key=ratio)
        print(
            f"ours / plain, {name}: geometric mean {geometric_mean(map(ratio, cells)):.1f}, "
            f"smallest {ratio(least):.1f} (width {least.width}, batch {least.batch})"
        )
    rates = {(found.width, found.batch): found.ours for found in cells}
    for batch in ("50", "null"):
        against = [
            f"{rate / rates[width, '5']:.2f} (width {width})"
            for (width, name), rate in rates.items()
            if name == batch and (width, "5") in rates
        ]
        if against:
            print(f"ours, batch {batch} against 5: {', '.join(against)}")
    worst = max(found.deviation for found in cells)
    print(f"largest relative difference of our curves from the plain loop's: {worst:.0e}")


def step_flops(cfg: TrainConfig) -> int:
    """Arithmetic of a replica's step: 2 n_l n_{l+1} for each row of a product with W_l.

    The rows are d with moments or B < d samples; each passes forward, back (not through W_0) and
    into the update.
    """
    d = cfg.model.in_dim
    rows = min(d, cfg.training.batch_size or d)
    first = math.prod(layer_shapes(cfg.model)[0])
    return 2 * rows * (3 * n_params(cfg.model) - first)


def matmul_peak(n: int = 1024) -> float:
    """Flop per second of float32 products [n, n] [n, n], best of ten."""
    a, b, out = (torch.rand(n, n) for _ in range(3))
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b, out=out)) for _ in range(10))


def pipeline(effort: Effort, crew: Crew) -> None:
    runs, steps = effort.sweep
    lines = ["training.batch_size=5", "model.hidden_dim=10", f"max_steps={steps}", "device=cpu"]
    cfg = gph(*lines)
    seeds = range(runs)
    shares = [(cfg, seeds[core :: crew.cores]) for core in range(crew.cores)]
    whole, trainer = [], []
    for _ in range(effort.rounds):
        whole.append(seconds(lambda: sweep([*lines, f"training.batch_seed=0..{runs}"], crew.cores)))
        trainer.append(crew.seconds(stacks, shares))
    whole, trainer = median(whole), median(trainer)
    print(f"\nA sweep from argv to rows: {runs} runs x {steps} steps, {crew.cores} workers")
    print(f"  sweep.py -cn=gph {' '.join(lines)} training.batch_seed=0..{runs}")
    print(f"  whole           {runs / whole:8.1f} runs/s {whole:8.2f} s")
    print(f"  trainer's own   {runs / trainer:8.1f} runs/s {trainer:8.2f} s (processes ready)")
    print(f"  trainer's share {trainer / whole:8.1%}", flush=True)


def sweep(overrides: Sequence[str], workers: int) -> None:
    """A sweep in a process of its own, into a store that is thrown away."""
    with TemporaryDirectory() as store:
        subprocess.run(
            [sys.executable, str(ROOT / "sweep.py"), "-cn=gph", *overrides,
             f"--workers={workers}", f"--output={store}/out"],
            cwd=store, capture_output=True, check=True,
        )  # fmt: skip


def stacks(cfg: TrainConfig, seeds: Sequence[int]) -> Prepared:
    """The runs of a worker in near-equal stacks of at most stack_width, as a plan packs them."""
    parts = np.array_split(seeds, math.ceil(len(seeds) / stack_width(cfg)))

    def train() -> Curves:
        for part in parts:
            results = run_stack(cfg, {"training.batch_seed": part.tolist()}, [Path()] * len(part))
        return results[0].curves

    return train


def stack_widths(widths: Sequence[int], effort: Effort) -> None:
    print("\nReplica-steps per second of one process by stack width; the rule's own is marked *")
    print("width batch   replicas      rate  of the rule's")
    for width in widths:
        for batch in ("5", "null"):
            cfg = cell(width, batch, "device=cpu")
            rule = stack_width(cfg)
            sizes = [4**k for k in range(10) if 4**k < rule] + [rule, 2 * rule, 4 * rule]
            rates = rates_by_width(cfg, sizes, effort)
            for size, rate in rates.items():
                mark = "*" if size == rule else " "
                print(
                    f"{width:5} {batch:>5} {size:9}{mark} {rate:9.0f} {rate / rates[rule]:9.2f}",
                    flush=True,
                )


def rates_by_width(cfg: TrainConfig, sizes: Sequence[int], effort: Effort) -> dict[int, float]:
    """Replica-steps per second of each stack width, measured in turns."""
    steps, trainings = {}, {}
    for size in sizes:
        steps[size], _ = enough_steps(partial(ours, replicas=size), cfg, effort)
        trainings[size] = ours(with_steps(cfg, steps[size]), size)
    rounds = [[seconds(trainings[size]) for size in sizes] for _ in range(effort.rounds)]
    medians = dict(zip(sizes, map(median, zip(*rounds, strict=True)), strict=True))
    return {size: size * steps[size] / medians[size] for size in sizes}


def gpu(widths: Sequence[int], effort: Effort) -> None:
    if not torch.cuda.is_available():
        print("\nno GPU here")
        return
    bandwidth = copy_bandwidth()
    print(f"\n{torch.cuda.get_device_name()}: a copy reads and writes {bandwidth / 1e9:.0f} GB/s")
    print(
        "Weights: each read and written once per step, the least that a step moves. Drawing: the\n"
        "share of a step beyond one with full batches, which draws nothing\n"
        "width batch replicas      rate  weights GB/s  of copy  drawing"
    )
    hours = 0.0
    for width in widths:
        rates = {}
        for batch in ("null", *STUDY_BATCHES):
            rates[batch] = print_on_gpu(width, batch, None, rates.get("null"), bandwidth, effort)
        hours += sum(STUDY_RUNS * STUDY_STEPS / rates[batch] for batch in STUDY_BATCHES) / 3600
    full = print_on_gpu(max(widths), "null", MANY, None, bandwidth, effort)
    print_on_gpu(max(widths), "5", MANY, full, bandwidth, effort)
    runs = STUDY_RUNS * len(STUDY_BATCHES) * len(widths)
    print(
        f"3 gammas x widths {', '.join(map(str, widths))} x batch sizes {', '.join(STUDY_BATCHES)} "
        f"x 2 noise levels x 4 model seeds x 10,000 batch seeds = {runs:,} runs of "
        f"{STUDY_STEPS:,} steps would take {hours:.1f} hours (by the rates without noise)"
    )


def print_on_gpu(
    width: int,
    batch: str,
    replicas: int | None,
    full: float | None,
    bandwidth: float,
    effort: Effort,
) -> float:
    """The rate of a stack of `replicas`, None: stack_width; `full` that of full batches."""
    torch.cuda.empty_cache()  # stack_width goes by the memory that is free
    cfg = cell(width, batch, "device=cuda")
    size = replicas or stack_width(cfg)
    rate = rates_by_width(cfg, [size], effort)[size]
    moved = 2 * 4 * n_params(cfg.model) * rate
    drawing = "" if full is None else f"{1 - rate / full:8.0%}"
    print(
        f"{width:5} {batch:>5} {size:8} {rate:9.0f} {moved / 1e9:13.0f} {moved / bandwidth:8.1%} "
        f"{drawing}",
        flush=True,
    )
    return rate


def copy_bandwidth(n: int = 2**28) -> float:
    """Bytes read and written per second by a copy of n float32, best of ten."""
    source, target = torch.zeros(n, device="cuda"), torch.empty(n, device="cuda")

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return 2 * 4 * n / min(seconds(copy) for _ in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="rough figures within a minute")
    parser.add_argument("--widths", nargs="+", type=int, default=[10, 50, 100])
    parser.add_argument("--batches", nargs="+", default=["1", "5", "50", "null"])
    for table in ("grid", "pipeline", "gpu", "stack-widths"):
        parser.add_argument(f"--{table}", action="store_true")
    asked = parser.parse_args()
    everything = not (asked.grid or asked.pipeline or asked.gpu or asked.stack_widths)
    effort = QUICK if asked.quick else FULL
    import_family("dln")
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores; "
        f"gph, a record every {EVERY} steps;\n"
        "a rate is replicas x steps / time of one training. Ours includes data, weights and "
        "batches, which the plain loop\nfinds ready-made; every process has one torch thread"
    )
    if everything or asked.grid or asked.pipeline:
        with ready_crew(cores) as crew:
            if everything or asked.grid:
                grid(asked.widths, asked.batches, effort, crew)
            if everything or asked.pipeline:
                pipeline(effort, crew)
    if asked.stack_widths:
        stack_widths(asked.widths, effort)
    if everything or asked.gpu:
        gpu(asked.widths, effort)


if __name__ == "__main__":
    main()
