"""Speed of the family qlora_probe: its loop beside Hugging Face's, and the cost of each probe.

    python benchmarks/qlora_probe.py [--loop] [--probes] [--smollm2]

Prints the first two tables, or those named: a minute and a half, --smollm2 as long again. The ways
take turns on one thread, and the median of their CPU times counts.

--loop: an update of our loop and one of transformers.Trainer, from the end of the one before it.
Same 4-bit model, adapters, batches, clipping and linear decay; AdamW of torch; no evaluation,
saving or logging. Dropout is on; without it both must end at the same loss and adapters, or this
fails. Ours makes logits only where a target is predicted, the Trainer all: part of the difference.
--smollm2 is the same with SmolLM2-135M, from its package.

--probes: mean seconds of CPU that each probe, looking at every update, spends in an update, at an
evaluation, at both ends of a training and in all of it; the first three also in bare updates, the
last in bare trainings.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, where `qlora_probe` is this file

import qlora_probe.probes  # registers them  # noqa: E402, F401
from qlora_probe import hooks, registry  # noqa: E402
from qlora_probe.config import (  # noqa: E402
    DataConfig,
    EvalConfig,
    LoopConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from qlora_probe.data import collate, encode_all  # noqa: E402
from qlora_probe.examples import load_examples, n_with_held_out, split  # noqa: E402
from qlora_probe.model import adapted, make_tokenizer  # noqa: E402
from qlora_probe.trainer import Trainer  # noqa: E402

Ends = list[float]  # CPU seconds at the end of each update
Way = Callable[[Trainer], Ends]


def config(source: str, batch: int, accum: int, n_steps: int) -> TrainConfig:
    """At the family's defaults, but for AdamW in 32 bits and no warm-up."""
    return TrainConfig(
        device="cpu",
        model=ModelConfig(source=source),
        optim=OptimConfig(name="adamw", lr=1e-3),
        train=LoopConfig(batch=batch, accum=accum, warmup_ratio=0.0, save_every=10**9),
        data=DataConfig(n_examples=batch * accum * n_steps),
        eval=EvalConfig(n=1),
    )


@contextmanager
def training(cfg: TrainConfig, probes: Sequence[Any] = ()) -> Iterator[Trainer]:
    tokenizer = make_tokenizer(cfg)
    examples = load_examples("synthetic", None, n_with_held_out(cfg.data.n_examples), 0)
    train, held_out = (encode_all(tokenizer, part, cfg.data) for part in split(examples))
    with adapted(cfg, tokenizer, torch.device("cpu")) as lm:
        yield Trainer(cfg, lm, train, held_out, probes)


def ours(trainer: Trainer) -> Ends:
    trainer.eval_steps = set()
    ends: Ends = []
    trainer.run(lambda: None, lambda fraction: ends.append(time.process_time()))
    return ends


def theirs(trainer: Trainer) -> Ends:
    """transformers.Trainer on our trainer's model and batches."""
    import transformers

    cfg, ends = trainer.cfg, []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ends.append(time.process_time())

    with TemporaryDirectory() as folder:
        other = transformers.Trainer(
            trainer.model,
            transformers.TrainingArguments(
                folder,
                per_device_train_batch_size=cfg.train.batch,
                gradient_accumulation_steps=cfg.train.accum,
                num_train_epochs=cfg.train.epochs,
                learning_rate=cfg.optim.lr,
                max_grad_norm=cfg.optim.clip,
                optim="adamw_torch",
                train_sampling_strategy="sequential",
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
            ),
            data_collator=lambda rows: dict(
                zip(("input_ids", "labels"), collate(rows), strict=True)
            ),
            train_dataset=[trainer.train_tokens[i] for rows in trainer._order for i in rows],
            callbacks=[Clock()],
        )
        other.remove_callback(transformers.PrinterCallback)
        other.train()
    return ends


def check_equal(cfg: TrainConfig) -> str:
    """Both end at the same training loss, without dropout, whose masks differ."""
    cfg, losses, adapters = replace(cfg, lora=LoraConfig(dropout=0.0)), [], []
    for way in (ours, theirs):
        with training(cfg) as trainer:
            parts = [collate(trainer.train_tokens)]
            first = loss_of(trainer, parts)
            way(trainer)
            losses.append(loss_of(trainer, parts))
            adapters.append(torch.cat([p.detach().flatten() for p in trainer.parameters]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    apart = (adapters[1] - adapters[0]).norm() / adapters[0].norm()
    assert apart < 1e-3, apart
    return f"loss {first:.4f} -> {losses[0]:.4f}, {losses[1]:.4f}; adapters {apart:.0e} apart"


@torch.no_grad()
def loss_of(trainer: Trainer, parts: list) -> float:
    with hooks.looking(trainer.model):
        return trainer.loss_of(parts).item()


def compare_loops(cfg: TrainConfig, rounds: int) -> None:
    name = f"{cfg.model.source}, {cfg.train.batch} x {cfg.train.accum} sequences"
    same = check_equal(cfg)
    found: dict[Way, list[float]] = {ours: [], theirs: []}
    for _ in range(rounds):
        for way, seconds in found.items():
            with training(cfg) as trainer:
                ends = way(trainer)
                assert len(ends) == trainer.n_steps
                seconds += [end - start for start, end in pairwise(ends)]
    a, b = (median(seconds) for seconds in found.values())
    print(
        f"{name}: ours {1e3 * a:.1f} ms an update, Trainer {1e3 * b:.1f} ms, ratio {a / b:.2f}\n"
        f"    without dropout: {same}",
        flush=True,
    )


def loop() -> None:
    for batch, accum in ((2, 1), (4, 4)):
        compare_loops(config("tiny", batch, accum, n_steps=12), rounds=9)


def smollm2() -> None:
    compare_loops(config("smollm2", 2, 1, n_steps=6), rounds=3)


class Timed:
    """A probe, and the CPU seconds of its hooks: in updates, at evaluations, at the ends."""

    def __init__(self, probe: Any):
        self.every = 1  # whatever the probe's own
        self.seconds: dict[str, float] = defaultdict(float)
        for hook in hooks.HOOKS:
            if method := getattr(probe, hook, None):
                setattr(self, hook, partial(self._call, self._when(hook), method))

    def _when(self, hook: str) -> str:
        if hook in hooks.OF_A_STEP:
            return "update"
        return "eval" if hook == "eval" else "ends"

    def _call(self, when: str, method: Callable[[Any], None], trainer: Trainer) -> None:
        start = time.process_time()
        method(trainer)
        self.seconds[when] += time.process_time() - start


def trained(cfg: TrainConfig, probes: Sequence[Any]) -> tuple[float, float]:
    """CPU seconds of the training, and of an update in it."""
    with training(cfg, probes) as trainer:
        updates: list[float] = []
        update = trainer._update

        def timed(sequences):
            start = time.process_time()
            update(sequences)
            updates.append(time.process_time() - start)

        trainer._update = timed
        start = time.process_time()
        hooks.call(probes, "train_start", trainer)
        trainer.run(lambda: None, lambda fraction: None)
        hooks.call(probes, "train_end", trainer)
        return time.process_time() - start, median(updates)


def probes() -> None:
    n_steps, n_evals = 5, 3
    cfg = config("tiny", 4, 4, n_steps)
    bare, found = [], defaultdict(list)
    for _ in range(3):
        bare.append(trained(cfg, []))
        for name in registry.callbacks.names():
            timed = Timed(registry.callbacks.resolve(name)())
            trained(cfg, [timed])
            found[name].append(timed.seconds)
    whole, update = (median(times) for times in zip(*bare, strict=True))
    print(
        f"tiny, {cfg.train.batch} x {cfg.train.accum} sequences, without probes: an update "
        f"{update:.4f} s, a training of {n_steps} updates and {n_evals} evaluations {whole:.4f} s"
    )
    print("seconds".ljust(20) + "".join(f"{x:>20}" for x in ("update", "eval", "ends", "training")))
    for name, rounds in found.items():
        took = {x: median(seconds[x] for seconds in rounds) for x in ("update", "eval", "ends")}
        costs = (
            (took["update"] / n_steps, update),
            (took["eval"] / n_evals, update),
            (took["ends"], update),
            (sum(took.values()), whole),
        )
        cells = (f"{cost:.4f} ({cost / of:.2f} x)" if cost else "-" for cost, of in costs)
        print(name.ljust(20) + "".join(f"{cell:>20}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = (loop, probes, smollm2)
    for table in tables:
        parser.add_argument(f"--{table.__name__}", action="store_true")
    asked = vars(parser.parse_args())
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread")
    for table in tables:
        if asked[table.__name__] or (not any(asked.values()) and table is not smollm2):
            table()


if __name__ == "__main__":
    main()
