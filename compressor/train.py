"""The experiment `compressor/train` on a stack of runs; a single run is a stack of one."""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from compressor import callbacks as callbacks
from compressor import registry
from compressor.config import REPLICA_KEYS, TrainConfig, rank_of
from compressor.downstream import downstream_costs
from compressor.model import Compressor, continued, initial_weights
from compressor.reconstruction import Context
from compressor.result import forgetting, make_result
from compressor.states import States, make_states
from compressor.trainer import Record, Trainer
from plugins.lm.callbacks import Run, call
from plugins.lm.checkpoints import Checkpoints
from plugins.lm.ranks import ALONE, World, launch
from plugins.result import RunResult

STAGE_1B_LR = 0.3  # of train.lr
SAVE_SECONDS = 20.0  # between checkpoints of a stack
_TRAINING = 0.5  # of the progress, where the language model follows
_NAMED = 8  # most runs of a stack that are named on the terminal


def run_stack(
    cfg: TrainConfig,
    replicas: Mapping[str, Sequence],
    workdirs: Sequence[Path],
    on_progress: Callable[[float], None] | None = None,
) -> list[RunResult]:
    """One result per workdir; result i is that of the run alone with the i-th replica values.

    Equal to the run alone to 1e-5. Resumed from the workdirs' last checkpoints; on the CPU a run
    alone then ends with the numbers of an uninterrupted one, bit for bit. Files: best.pt,
    eigenvalues.npy. Raises ValueError for states, a checkpoint or a D' that do not fit, OSError for
    a model or a corpus that cannot be read.
    """
    runs = _configs(cfg, replicas, workdirs)
    on_progress = on_progress or (lambda fraction: None)
    share = _TRAINING if cfg.eval.downstream else 1.0
    start = time.perf_counter()
    states = make_states(cfg)
    initial = [_initial(run, states, workdir) for run, workdir in zip(runs, workdirs, strict=True)]
    seconds_states = time.perf_counter() - start
    listed = [registry.callbacks.resolve(spec)() for spec in cfg.callbacks]
    infos = [Run(w.name, asdict(run)) for run, w in zip(runs, workdirs, strict=True)]

    def training(fraction: float) -> None:
        on_progress(share * fraction)

    def costing(fraction: float) -> None:
        on_progress(share + (1 - share) * fraction)

    def record(i: int, step: int, values: Mapping[str, Any]) -> None:
        call(listed, "record", infos[i], step, values)

    if cfg.processes > 1:
        ends = launch(train, (runs, initial, workdirs), cfg.processes, training)
        for i, end in enumerate(ends):
            for step, values in end["points"].items():
                record(i, step, values)
    else:
        ends = train(ALONE, runs, initial, workdirs, states, training, record)
    compressors = [Compressor(end["best"], states.spectrum.offset.float()) for end in ends]
    more = [{"seconds_states": seconds_states} for _ in runs]
    if cfg.eval.downstream:
        costs = downstream_costs(cfg, states, compressors, costing)
        more = [one | cost for one, cost in zip(more, costs, strict=True)]
    if cfg.stage == "1b":
        forgotten = forgetting(cfg, compressors, workdirs[0].parent.parent)
        more = [one | values for one, values in zip(more, forgotten, strict=True)]
    optima: dict[int, Context] = {}
    found = [
        make_result(run, states, compressor, end, workdir, one, optima)
        for run, compressor, end, workdir, one in zip(
            runs, compressors, ends, workdirs, more, strict=True
        )
    ]
    for info, result in zip(infos, found, strict=True):
        call(listed, "end", info, result.scalars, result.artifacts)
    if cfg.stage == "1a" and len(found) <= _NAMED:
        for workdir, W in zip(workdirs, initial, strict=True):
            keys = f"train.init_from={workdir.name} model.d_compressed={len(W)} model.ratio=none"
            print(f"stage 1b from here: stage=1b {keys}", file=sys.stderr)
    return found


def train(
    world: World,
    runs: Sequence[TrainConfig],
    initial: Sequence[torch.Tensor],
    workdirs: Sequence[Path],
    states: States | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_record: Record = lambda i, step, values: None,
) -> list[dict[str, Any]]:
    """How each run ended: the state of its trainer, with seconds. Every rank has the same."""
    cfg = runs[0]
    states, on_progress = states or make_states(cfg), on_progress or world.report
    device = world.device(cfg.device)
    files = [
        Checkpoints(workdir, "epoch", "last", _origin(cfg, states, W))
        for workdir, W in zip(workdirs, initial, strict=True)
    ]
    saved = [checkpoints.load() for checkpoints in files]
    ends: list[dict[str, Any]] = [{}] * len(runs)
    epochs = [state["epoch"] if state else 0 for state in saved]
    for epoch in sorted(set(epochs)):  # replicas that were stopped together go on together
        group = [i for i, at in enumerate(epochs) if at == epoch]
        trainer = Trainer(
            cfg,
            states,
            [initial[i] for i in group],
            [_lr(runs[i]) for i in group],
            [runs[i].train.seed for i in group],
            device,
            world,
        )
        seconds = 0.0
        if epoch:
            trainer.load_states([saved[i] for i in group])
            seconds = max(saved[i]["seconds"] for i in group)
            print(f"goes on after epoch {epoch}", file=sys.stderr)
        elif world.rank == 0:
            print(
                f"{len(states.train)} states to train on: {trainer.epoch_steps} updates an epoch, "
                f"at most {trainer.n_steps}",
                file=sys.stderr,
            )
        start = time.perf_counter() - seconds
        last = time.perf_counter()

        def save(trainer: Trainer = trainer, group: list[int] = group, start: float = start):
            nonlocal last
            if world.rank or time.perf_counter() - last < SAVE_SECONDS:
                return
            for place, i in enumerate(group):
                spent = time.perf_counter() - start
                files[i].save(trainer.epoch, trainer.state(place) | {"seconds": spent})
            last = time.perf_counter()

        def record(place: int, step: int, values: Mapping[str, Any], group: list[int] = group):
            on_record(group[place], step, values)

        trainer.run(save, on_progress, record)
        spent = time.perf_counter() - start
        for place, i in enumerate(group):
            ends[i] = trainer.state(place) | {"seconds": spent}
    return ends


def _origin(cfg: TrainConfig, states: States, W: torch.Tensor) -> list[str]:
    """What a run starts from that its config does not tell."""
    origin = [states.lm_sha256, states.corpus_sha256]
    if cfg.stage == "1b":  # the file of train.init_from may have been replaced
        origin.append(hashlib.sha256(W.numpy().tobytes()).hexdigest())
    return origin


def _configs(
    cfg: TrainConfig, replicas: Mapping[str, Sequence], workdirs: Sequence[Path]
) -> list[TrainConfig]:
    """The config of each run."""
    if unknown := set(replicas) - set(REPLICA_KEYS):
        raise ValueError(f"{sorted(unknown)} may not differ inside a stack of {cfg.experiment}")
    runs = []
    for i in range(len(workdirs)):
        changed: dict[str, dict[str, Any]] = {"train": {}, "model": {}}
        for key, values in replicas.items():
            section, name = key.split(".")
            changed[section][name] = values[i]
        sections = {name: replace(getattr(cfg, name), **to) for name, to in changed.items()}
        runs.append(replace(cfg, **sections))
    return runs


def _lr(cfg: TrainConfig) -> float:
    return cfg.train.lr * (STAGE_1B_LR if cfg.stage == "1b" else 1.0)


def _initial(cfg: TrainConfig, states: States, workdir: Path) -> torch.Tensor:
    """W [k, D] to start from."""
    k = rank_of(cfg.model.d_compressed, cfg.model.ratio, states.dim)
    if cfg.model.nested and cfg.model.nested[-1] != k:
        raise ValueError(f"model.nested={cfg.model.nested} must end in D' = {k}")
    if cfg.stage == "1a":
        return initial_weights(cfg.model, k, states.spectrum.eigenvectors, cfg.train.seed)
    return continued(cfg, k, states.dim, workdir.parent.parent).W
