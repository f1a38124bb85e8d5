"""One run of the experiment `qlora_probe/train`."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plugins.lm.checkpoints import Checkpoints
from plugins.lm.devices import resolve_device
from plugins.registry import split_spec
from plugins.result import Curves, RunResult
from qlora_probe import hooks, registry
from qlora_probe import probes as probes  # registers them
from qlora_probe.compare import compare, forgotten, max_new
from qlora_probe.config import TrainConfig, lora_shape
from qlora_probe.data import encode_all, sha256
from qlora_probe.examples import load_examples, n_with_held_out, split
from qlora_probe.model import adapted, base, make_tokenizer
from qlora_probe.optim import state_sizes
from qlora_probe.prompts import prompts
from qlora_probe.responses import responses
from qlora_probe.theory import curve_summary
from qlora_probe.trainer import Diverged, Trainer

SPLIT_SEED = 42
FEW_STEPS = 10


def run(
    cfg: TrainConfig, workdir: Path, on_progress: Callable[[float], None] | None = None
) -> RunResult:
    """One run, resumed from the workdir's last checkpoint.

    Its curves: train_loss and lr before each update, eval_loss at some, those of probes; its
    table generations, and those of probes; its file: the adapter. On the CPU, with the same number
    of threads, an interrupted run ends with the numbers of an uninterrupted one, bit for bit.
    Raises ValueError for data or targets that do not fit the model, OSError for a model or data
    that cannot be read.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer, device = make_tokenizer(cfg), resolve_device(cfg.device)
    n = n_with_held_out(cfg.data.n_examples)
    examples = load_examples(cfg.data.source, cfg.data.path, n, SPLIT_SEED)
    train, held_out = (
        encode_all(tokenizer, part, cfg.data) for part in split(examples, SPLIT_SEED)
    )
    if cfg.eval.adapters:
        return compare(cfg, workdir, tokenizer, held_out, device)
    model = base(cfg, device)
    longest = max(len(tokens.ids) for tokens in (*train, *held_out))
    if longest > model.model.config.max_position_embeddings:
        raise ValueError(
            f"data.max_len={cfg.data.max_len}: a sequence has {longest} tokens, "
            f"{model.model.config.max_position_embeddings} are what the model reads"
        )
    digests = {
        "data_sha256": sha256([*train, *held_out]),
        "model_sha256": model.sha256(),
    }
    with adapted(cfg, tokenizer, device) as lm:
        listed = [registry.callbacks.resolve(spec)() for spec in cfg.callbacks]
        trainer = Trainer(cfg, lm, train, held_out, listed)
        if trainer.n_steps < FEW_STEPS:
            print(
                f"warning: {trainer.n_steps} updates are few: {len(train)} sequences by "
                f"{cfg.train.batch} x {cfg.train.accum} an update",
                file=sys.stderr,
            )
        checkpoints = Checkpoints(workdir, "step", "last", list(digests.values()))
        seconds = 0.0
        hooks.call(listed, "train_start", trainer)
        if state := checkpoints.load():
            seconds = state["seconds"]
            trainer.load_state(state)
            print(f"goes on after update {trainer.step}", file=sys.stderr)
        else:
            _answer(trainer, "base")
        start, status = time.perf_counter() - seconds, "ok"

        def save() -> None:
            spent = time.perf_counter() - start
            checkpoints.save(trainer.step, trainer.state() | {"seconds": spent})

        try:
            trainer.run(save, on_progress or (lambda fraction: None))
        except Diverged:
            status = "diverged"
        else:
            _answer(trainer, "tuned")
            hooks.call(listed, "train_end", trainer)
        scalars = {
            "seconds_train": time.perf_counter() - start,
            **_summary(trainer),
            **digests,
            **_size(trainer),
            **forgotten(trainer.tables.get("generations", {})),
            **trainer.scalars,
            **_seconds_of_probes(cfg, trainer),
        }
        lm.model.save_pretrained(workdir / "adapter")
    curves = Curves()
    for step, values in trainer.curves.items():
        curves.log(step, values)
    return RunResult(
        scalars={name: value for name, value in scalars.items() if value is not None},
        curves=curves.as_dict(),
        tables=trainer.tables,
        artifacts=sorted((workdir / "adapter").iterdir()),
        status=status,
    )


def _seconds_of_probes(cfg: TrainConfig, trainer: Trainer) -> dict[str, float]:
    """What each probe took."""
    names = [split_spec(spec)[0] for spec in cfg.callbacks]
    return {f"seconds_metric_{name}": trainer.probe_seconds[i] for i, name in enumerate(names)}


def _answer(trainer: Trainer, phase: str) -> None:
    """Rows of the table generations."""
    cfg, lm = trainer.cfg, trainer.lm
    if cfg.eval.suite is None:
        return
    asked = prompts(cfg.eval.suite, cfg.model.source)
    columns = responses(lm.model, lm.tokenizer, asked, max_new(cfg, lm.device))
    adapter = "base" if phase == "base" else "trained"
    trainer.add_rows("generations", phase=phase, adapter=adapter, step=trainer.step, **columns)


def _summary(trainer: Trainer) -> dict[str, Any]:
    """Of the loss, before and after; nan for what a diverged run did not reach."""
    points = [trainer.curves[step] for step in sorted(trainer.curves)]
    losses = [point["train_loss"] for point in points if "train_loss" in point]
    evals = {s: p["eval_loss"] for s, p in trainer.curves.items() if "eval_loss" in p}
    return curve_summary(losses, evals[0], evals.get(trainer.n_steps, math.nan))


def _size(trainer: Trainer) -> dict[str, Any]:
    """Of the data, the plan, the adapters, the optimizer's state."""
    sequences = trainer.train_tokens
    r, _, scale = lora_shape(trainer.cfg)
    nbytes, share = state_sizes(trainer.optimizer)
    n_trainable = sum(p.numel() for p in trainer.parameters)
    return {
        "n_sequences": len(sequences),
        "n_tokens": sum(len(s.ids) for s in sequences),
        "n_target_tokens": sum(int(s.is_target.sum()) for s in sequences),
        "n_held_out": len(trainer.held_out),
        "planned_steps": trainer.n_steps,
        "done_steps": trainer.step,
        "n_evals": sum("eval_loss" in point for point in trainer.curves.values()),
        "lora_rank": r,
        "lora_scale": scale,
        "n_trainable": n_trainable,
        "trainable_fraction": n_trainable / (n_trainable + trainer.lm.n_base()),
        "optimizer_bytes": nbytes,
        "frac_state_8bit": share,
    }
