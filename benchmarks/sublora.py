"""What a bound costs: projectors, a step in the subspace, the coder, the evaluation.

    python benchmarks/sublora.py [projectors|step|coder|bound ...]

On one thread; wall seconds, medians of rounds in which the ways take turns.

- projectors: forward and forward + adjoint at D = 351,744 (GPT-2 small), d = 1000 and 2000, against
  the product with a dense P that is kept. `dense` itself is the kind that draws P anew, in chunks.
- step: GPT-2 small (block 128, one window), an AdamW step of w [1000] against one of the LoRA
  parameters of the network as peft makes it.
- coder: symbols a second, 11 levels.
- bound: documents a second of the default data set, and a bound from their losses.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, where `sublora` is this file

from sublora.adapters import make_network  # noqa: E402
from sublora.batches import Batches  # noqa: E402
from sublora.certify import certify, draw_sample, measure  # noqa: E402
from sublora.coder import decode, encode  # noqa: E402
from sublora.config import ModelConfig, SubspaceConfig, TrainConfig, TrainingConfig  # noqa: E402
from sublora.model import dataset_of, make_module  # noqa: E402
from sublora.projectors import make_projector  # noqa: E402
from sublora.streams import stream  # noqa: E402

D = 351_744
KINDS = ("rdkronqr", "onehot", "fastfood", "sparse")
ROUNDS = 5


def times(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each, after a first call of each."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def projectors() -> None:
    for d in (1000, 2000):
        w, v = torch.randn(d), torch.randn(D)
        dense = torch.randn(D, d)
        made = {k: make_projector(k, D, d, stream(0, k), 0.0, "all") for k in KINDS}
        with torch.no_grad():
            ways = {"dense product": lambda w=w, P=dense: P @ w}
            ways |= {kind: lambda p=p, w=w: p(w) for kind, p in made.items()}
            forward = times(ways)
            ways = {"dense product": lambda w=w, v=v, P=dense: (P @ w, P.T @ v)}
            ways |= {kind: lambda p=p, w=w, v=v: (p(w), p.adjoint(v)) for kind, p in made.items()}
            both = times(ways)
        title = f"D = {D}, d = {d}"
        print(f"\n{title:28}{'forward ms':>12}{'times':>8}{'+ adjoint ms':>14}{'times':>8}")
        for name in forward:
            a, b = forward[name], both[name]
            of = [f"{1e3 * a:12.2f}", f"{forward['dense product'] / a:8.1f}"]
            of += [f"{1e3 * b:14.2f}", f"{both['dense product'] / b:8.1f}"]
            print(f"{name:28}{''.join(of)}")
        del dense
    w, v = torch.randn(1000), torch.randn(D)
    chunked = make_projector("dense", D, 1000, stream(0, "dense"), 0.0, "all")
    start = time.perf_counter()
    with torch.no_grad():
        chunked(w), chunked.adjoint(v)
    print(f"dense, drawn anew, d = 1000: forward + adjoint {time.perf_counter() - start:.1f} s")


def step() -> None:
    data = dataset_of(TrainConfig())
    sizes = ModelConfig(n_layer=12, n_head=12, n_embd=768, block=128, init_std=0.02)
    train = TrainingConfig(batch=1)
    cfg = TrainConfig(device="cpu", model=sizes, subspace=SubspaceConfig(d=1000), train=train)
    batches = Batches(cfg, data, torch.device("cpu"))
    network = make_network(sizes, 50257, 0)
    weights = dict(network.net.named_parameters())
    adapters = [weights[slot.name].requires_grad_() for slot in network.slots]
    module = make_module(cfg, 50257)
    ways = {}
    for name, model, trained in (("LoRA", network.net, adapters), ("SubLoRA", module, [module.w])):
        model.train()
        optimizer = torch.optim.AdamW(trained, 1e-3)

        def update(model=model, trained=trained, optimizer=optimizer) -> None:
            _, gradients = batches.gradients(model, trained, "train", 0)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        ways[name] = update
    seconds = times(ways)
    print(f"\nGPT-2 small, {D} LoRA parameters, block 128, one window, an update:")
    for name, spent in seconds.items():
        print(f"{name:20}{spent:8.2f} s{spent / seconds['LoRA']:10.3f}")


def coder() -> None:
    print()
    for n in (2_000, 1_000_000):
        symbols = np.random.default_rng(0).binomial(10, 0.5, n)
        for kind in ("adaptive", "static"):
            code, _ = encode(symbols, 11, kind)
            ways = {
                "encode": lambda s=symbols, kind=kind: encode(s, 11, kind),
                "decode": lambda c=code, n=n, kind=kind: decode(c, n, 11, kind),
            }
            found = times(ways, 3)
            rates = ", ".join(f"{name} {n / 1e6 / s:.2f}" for name, s in found.items())
            print(f"{n:9,} symbols, {kind}: {rates} million a second")


def bound() -> None:
    cfg = TrainConfig(device="cpu")
    data = dataset_of(cfg)
    module = make_module(cfg, data.vocab_size)
    sample = draw_sample(cfg.bound, data, cfg.model.block)
    start = time.perf_counter()
    losses = measure(module, cfg.bound, sample, data.vocab_size)
    spent = time.perf_counter() - start
    ways = {"bound": lambda: certify(losses, cfg.bound, sample, 3500, data.vocab_size)}
    rate = f"{spent:.1f} s, {sample.n / spent:.0f} a second"
    spent = 1e3 * times(ways)["bound"]
    print(f"\nlosses of {sample.n:,} documents: {rate}; bounds: {spent:.2f} ms")


PARTS = {"projectors": projectors, "step": step, "coder": coder, "bound": bound}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for name in arguments.parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
