"""One run of the experiment `sublora/train`: trained, coded, decoded, evaluated, bounded."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from plugins.lm.callbacks import Run, call
from plugins.lm.checkpoints import Checkpoints
from plugins.lm.ranks import ALONE, World, launch
from plugins.result import RunResult
from sublora import callbacks as callbacks  # registers them
from sublora import registry
from sublora.allocation import parse_allocation
from sublora.batches import Batches, Diverged
from sublora.certify import ASSUMPTIONS, certify, draw_sample, measure, why_invalid
from sublora.codec import encode, layout_of, levels_of
from sublora.config import TrainConfig
from sublora.dataset import Dataset
from sublora.evaluate import losses_of
from sublora.files import find_best, write_files
from sublora.message import codebook_of, unpack
from sublora.model import dataset_of, make_module, set_coordinates
from sublora.qat import train_quantized
from sublora.subspace import SubspaceModule
from sublora.trainer import Record, Trainer, gate_rows, val_windows

SAVE_SECONDS = 20.0  # between checkpoints
_TRAINING, _LEVELS = 0.5, 0.2  # of the progress


def run(
    cfg: TrainConfig, workdir: Path, on_progress: Callable[[float], None] | None = None
) -> RunResult:
    """One run, resumed from the workdir's last checkpoint; on the CPU, with the same number of
    threads, it then ends with the numbers of an uninterrupted one, bit for bit.

    What is evaluated is the model that message.bin decodes to. Columns: those of certify, and of
    the parts of the message; curves train_loss, val_loss (nats a token); tables alphas, gates;
    files: best.pt, message.bin, config.yaml, bounds_metrics.pt. Raises ValueError for a data set
    or an earlier run that does not fit, OSError for what cannot be read.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    on_progress = on_progress or (lambda fraction: None)
    listed = [registry.callbacks.resolve(spec)() for spec in cfg.callbacks]
    info = Run(workdir.name, asdict(cfg))

    def record(step: int, values: Mapping[str, Any]) -> None:
        call(listed, "record", info, step, values)

    if cfg.processes > 1:
        result = launch(compute, (cfg, workdir), cfg.processes, on_progress)
        steps = result.curves.get("step", [])
        for i, step in enumerate(steps):
            curves = {name: values[i] for name, values in result.curves.items() if name != "step"}
            record(int(step), curves)
    else:
        result = compute(ALONE, cfg, workdir, on_progress, record)
    call(listed, "end", info, result.scalars, result.artifacts)
    return result


def compute(
    world: World,
    cfg: TrainConfig,
    workdir: Path,
    on_progress: Callable[[float], None] | None = None,
    on_record: Record = lambda step, values: None,
) -> RunResult:
    """What the run hands back; every rank has the same, the first one writes the files."""
    on_progress = on_progress or world.report
    data = dataset_of(cfg)
    sample = draw_sample(cfg.bound, data, cfg.model.block)
    module = make_module(cfg, data.vocab_size).to(world.device(cfg.device))
    about = _about(cfg, module, data)
    start, layout = time.perf_counter(), layout_of(module.allotment, cfg.quant)
    curves, gates = {}, []
    try:
        if cfg.eval_from is not None:
            best = find_best(cfg, workdir.parent.parent, module.prior_sha256())
        else:
            trainer = Trainer(cfg, module, data, world)
            try:
                _train(trainer, workdir, world, on_progress, on_record)
            finally:
                curves, gates = trainer.curves(), trainer.gates
            best = trainer.end()
        if best.gates is not None:
            module.harden(best.gates)
            gates = gates or gate_rows(module, best.step)
        levels, which = best.levels_for(cfg.quant), codebook_of(layout, best.gates)
        if levels is None:
            levels = levels_of(best.w, which, layout, cfg.quant.method)
        if cfg.quant.qat_steps and cfg.eval_from is None:
            batches = Batches(cfg, data, module.w.device, world)

            def on_step(fraction: float) -> None:
                on_progress(_TRAINING + _LEVELS * fraction)

            steps = cfg.quant.qat_steps
            w, levels = train_quantized(module, batches, best.w, levels, which, steps, on_step)
            best = replace(best, w=w, levels=levels)
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return RunResult(about, curves, _tables(gates), status="diverged")
    about["seconds_train"] = time.perf_counter() - start
    packed = encode(best.w, best.gates, levels, layout)
    message = unpack(packed.data, layout)

    start, done = time.perf_counter(), _TRAINING + _LEVELS
    found = {}
    for i, (name, w) in enumerate((("fp", best.w), ("decoded", message.values(layout)))):
        set_coordinates(module, w)

        def progress(fraction: float, i: int = i) -> None:
            on_progress(done + (1 - done) * (i + fraction) / 2)

        found[name] = measure(module, cfg.bound, sample, data.vocab_size, world, progress)
    row, alphas = certify(found["decoded"], cfg.bound, sample, packed.n_bits, data.vocab_size)
    windows = val_windows(data.val, cfg.model.block)
    val = losses_of(module, windows, len(windows), data.vocab_size, (), world=world)
    why = why_invalid(cfg, best.data_sha256 == data.sha256)
    scalars = about | row | _shares(module)
    scalars |= {
        "payload_bits": packed.payload_bits,
        "gate_bits": packed.gate_bits,
        "codebook_bits": packed.codebook_bits,
        "bpd_fp": float(found["fp"].raw.mean()),
        "val_bpd": float(val.raw.mean()),
        "best_step": best.step,
        "bound_valid": not why,
        "bound_assumption": ASSUMPTIONS[cfg.bound.level],
        "seconds_eval": time.perf_counter() - start,
    }
    scalars |= {"bound_invalid_reason": why} if why else {}
    files = write_files(workdir, cfg, best, packed.data, scalars) if world.rank == 0 else []
    return RunResult(scalars, curves, _tables(gates) | {"alphas": alphas}, files)


def _train(
    trainer: Trainer,
    workdir: Path,
    world: World,
    on_progress: Callable[[float], None],
    on_record: Record,
) -> None:
    """From the last checkpoint on. Raises Diverged."""
    checkpoints = Checkpoints(workdir, "step", "last", [trainer.data.sha256])
    if saved := checkpoints.load():
        trainer.load_state(saved)
        print(f"goes on after step {trainer.step}", file=sys.stderr)
    last = time.perf_counter()

    def save() -> None:
        nonlocal last
        if world.rank == 0 and time.perf_counter() - last >= SAVE_SECONDS:
            checkpoints.save(trainer.step, trainer.state())
            last = time.perf_counter()

    trainer.run(save, lambda fraction: on_progress(_TRAINING * fraction), on_record)


def _tables(gates: list[dict[str, Any]]) -> dict[str, dict[str, list]]:
    return {"gates": {name: [row[name] for row in gates] for name in gates[0]}} if gates else {}


def _about(cfg: TrainConfig, module: SubspaceModule, data: Dataset) -> dict[str, Any]:
    parsed = parse_allocation(cfg.allocation.name)
    return {
        "mode": parsed.mode,
        **({} if parsed.ratio is None else {"ratio": parsed.ratio}),
        "lora_dim": module.n_trained,
        "subspace_dim": module.allotment.d,
        "unmoved": module.unmoved,
        "vocab_size": data.vocab_size,
        "data_sha256": data.sha256,
    }


def _shares(module: SubspaceModule) -> dict[str, int]:
    """Coordinates of A and of B, where they are told apart."""
    allotment = module.allotment
    if module.k is not None:
        d_b = int(module.k.sum())
    elif allotment.d_a is not None:
        d_b = allotment.d - allotment.d_a
    else:
        return {}
    return {"d_a": allotment.d - d_b, "d_b": d_b}
