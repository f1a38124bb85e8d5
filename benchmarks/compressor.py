"""A sweep of five D' three ways: states cached and runs stacked, and what one would write else.

    python benchmarks/compressor.py [--epochs N]

A minute and a half on one thread. The ways take turns; medians of CPU seconds over three rounds,
the tiny language model trained and loaded before.

- model in the loop: for every D', epoch and batch of 8 sequences a pass of the language model, an
  update of torch.optim.AdamW by autograd on all states of the batch; after every epoch another pass
  over the held-out sequences. No state is stored.
- cached: states extracted once (counted), then one D' after the other.
- stacked: states extracted once (counted), all D' as one stack.

All ways make the same number of updates with equally many tokens, and the same evaluations; their
final errors are printed, as is PCA's. The metrics of a row are not counted.

Then the training alone of runs that differ in their seed, 256 tokens an update: one at a time,
and stacks of several, each run with batches of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

os.environ["OMP_NUM_THREADS"] = "1"

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, where `compressor` is this file

from compressor.config import TrainConfig, TrainingConfig, shape  # noqa: E402
from compressor.extract import batches  # noqa: E402
from compressor.model import initial_weights  # noqa: E402
from compressor.optim import lr_factor  # noqa: E402
from compressor.sequences import Sequences  # noqa: E402
from compressor.states import States, load_model, make_sequences_of, make_states  # noqa: E402
from compressor.trainer import Trainer  # noqa: E402
from plugins.lm.cache import cache_folder  # noqa: E402
from plugins.lm.models import LM  # noqa: E402

SEQUENCES = 8  # of a batch
RATIOS = (16, 8, 4, 2, 1)  # D / D'
ROUNDS = 3


def config(epochs: int) -> TrainConfig:
    tokens = SEQUENCES * 127  # the first state of each is left out
    train = TrainingConfig(batch=tokens, max_epochs=epochs, early_stopping=False)
    return TrainConfig(device="cpu", train=train)


def in_the_loop(cfg: TrainConfig, lm: LM, sequences: Sequences, sizes: list[int]) -> list[float]:
    """Held-out mse of each size after the last epoch."""
    n, dim = sequences.n_train, shape(cfg)[0]
    train, heldout = sequences.ids[:n], sequences.ids[n:]
    per_epoch = -(-n // SEQUENCES)
    n_steps = per_epoch * cfg.train.max_epochs

    def states(ids: list) -> torch.Tensor:
        with torch.no_grad():
            parts = [
                lm.model.base_model(tokens, attention_mask=mask).last_hidden_state[:, 1:]
                for tokens, mask in batches(ids, torch.device("cpu"))
            ]
        return torch.cat([part.flatten(0, 1) for part in parts])

    errors = []
    for k in sizes:
        W = initial_weights(cfg.model, k, torch.eye(dim, dtype=torch.float64), 0).requires_grad_()
        optimizer = torch.optim.AdamW([W], cfg.train.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, n_steps, "cosine")
        )
        for epoch in range(cfg.train.max_epochs):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(epoch)).tolist()
            for at in range(0, n, SEQUENCES):
                X = states([train[i] for i in order[at : at + SEQUENCES]])
                loss = (X @ W.T @ W - X).square().mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_([W], cfg.train.clip)
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                X = states(heldout)
                error = (X @ W.T @ W - X).square().mean().item()
        errors.append(error)
    return errors


def cached(cfg: TrainConfig, sizes: list[int], *, stacked: bool) -> list[float]:
    """Likewise, from an empty cache of states."""
    with TemporaryDirectory() as folder:
        previous, source = os.environ.get("DYNASCOPE_CACHE"), cache_folder()
        Path(folder, "tiny").symlink_to(source / "tiny")
        os.environ["DYNASCOPE_CACHE"] = folder
        try:
            states = make_states(cfg)
            stacks = [sizes] if stacked else [[k] for k in sizes]
            return [error for stack in stacks for error in trained(cfg, states, stack)]
        finally:
            os.environ.pop("DYNASCOPE_CACHE")
            if previous:
                os.environ["DYNASCOPE_CACHE"] = previous


def trained(cfg: TrainConfig, states: States, sizes: list[int]) -> list[float]:
    vectors = states.spectrum.eigenvectors
    initial = [initial_weights(cfg.model, k, vectors, 0) for k in sizes]
    n = len(sizes)
    trainer = Trainer(cfg, states, initial, [cfg.train.lr] * n, [0] * n, torch.device("cpu"))
    trainer.run(lambda: None, lambda fraction: None)
    return [points[max(points)]["heldout_mse"] for points in trainer.points]


def seeds(cfg: TrainConfig, states: States, k: int, n: int) -> list[float]:
    """A stack of n runs that differ in their seed."""
    vectors = states.spectrum.eigenvectors
    initial = [initial_weights(cfg.model, k, vectors, seed) for seed in range(n)]
    trainer = Trainer(cfg, states, initial, [cfg.train.lr] * n, list(range(n)), torch.device("cpu"))
    trainer.run(lambda: None, lambda fraction: None)
    return [points[max(points)]["heldout_mse"] for points in trainer.points]


def measure(ways: dict[str, Callable]) -> tuple[dict[str, float], dict[str, list]]:
    """Median CPU seconds, and what each way came to."""
    seconds, errors = {name: [] for name in ways}, {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            errors[name] = way()
            seconds[name].append(time.process_time() - start)
    return {name: median(times) for name, times in seconds.items()}, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cfg = config(arguments.epochs)
    sizes = [shape(cfg)[0] // ratio for ratio in RATIOS]
    lm, sequences, states = load_model(cfg), make_sequences_of(cfg), make_states(cfg)
    ways = {
        "model in the loop": partial(in_the_loop, cfg, lm, sequences, sizes),
        "cached": partial(cached, cfg, sizes, stacked=False),
        "stacked": partial(cached, cfg, sizes, stacked=True),
    }
    seconds, errors = measure(ways)
    print(f"D = {states.dim}, {cfg.train.max_epochs} epochs, {len(sizes)} sizes D'")
    print(f"{'':20}{'CPU s':>8}{'times':>8}   held-out mse at D' = {', '.join(map(str, sizes))}")
    for name, spent in seconds.items():
        values = "  ".join(f"{error:.3g}" for error in errors[name])
        print(f"{name:20}{spent:8.2f}{seconds['model in the loop'] / spent:8.1f}   {values}")
    values = "  ".join(f"{states.spectrum.mse_pca_heldout(k):.3g}" for k in sizes)
    print(f"{'PCA':36}   {values}")
    k, stacks = 16, (1, 4, 16, 64)
    by_256 = replace(cfg, train=replace(cfg.train, batch=256))
    ways = {str(n): partial(seeds, by_256, states, k, n) for n in stacks}
    seconds, _ = measure(ways)
    print(f"\nruns that differ in their seed, D' = {k}, 256 tokens an update: CPU seconds a run")
    for n in stacks:
        per_run = seconds[str(n)] / n
        print(f"stacks of {n:<4}{per_run:10.3f}{seconds['1'] / per_run:8.1f}")


if __name__ == "__main__":
    main()
