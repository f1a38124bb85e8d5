"""Stores of sublora: rows by formula, without training."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from plugins.config_files import ConfigFile, write_config
from plugins.leaves import set_leaf
from plugins.result import RunResult
from plugins.store import SweepWriter

METHODS = ("uniform", "fixed_0.2", "fixed_0.5", "fixed_0.8", "learned")
BUDGETS = (1000, 2000)
SEEDS = (42, 123, 999)
VOCAB = 64
N_LAYER = 4
Cell = tuple[str, int, int]


def cells(
    methods: Iterable[str] = METHODS, budgets: Iterable[int] = BUDGETS, seeds: Iterable[int] = SEEDS
) -> list[Cell]:
    budgets, seeds = list(budgets), list(seeds)
    return [(method, d, seed) for method in methods for d in budgets for seed in seeds]


def outcome(method: str, d: int, seed: int, **changed: Any) -> RunResult:
    """A run with numbers of the size that a quick one has; other `changed` columns."""
    noise = np.random.default_rng([seed, d, sum(map(ord, method))]).normal(size=4 + N_LAYER + 1)
    shift = 0.1 * (METHODS.index(method) if method in METHODS else 1)
    bits = round(2.2 * d + 60 * noise[0] + (72 if method == "learned" else 0))
    kl = np.log(2) * (bits + 2 * np.log2(bits) + 8)
    bpd = 4.5 - d / 4000 + shift + 0.05 * noise[1]
    scalars = {
        "mode": method.partition("_")[0],
        "kl_divergence": float(kl),
        "empirical_bpd": float(bpd),
        "bound_value": float(bpd + 9 * np.sqrt((kl + 3) / 80_000)),
        "compressed_size_bits": bits,
        "vocab_size": VOCAB,
        "bound_valid": True,
    }
    scalars |= changed
    scalars.setdefault("vacuous", bool(scalars["bound_value"] >= np.log2(VOCAB)))
    tables = {}
    if method == "learned":
        layers = np.array([*range(N_LAYER), -1])
        budget = d // (N_LAYER + 1)
        gamma = np.clip(0.4 + 0.1 * np.arange(N_LAYER + 1) + 0.03 * noise[4:], 0, 1)
        k = np.floor(gamma * budget + 0.5).astype(int)
        tables["gates"] = gates({0: np.full(N_LAYER + 1, 0.5), 350: k / budget}, layers, budget)
    curves = {"step": np.array([0, 350]), "train_loss": np.array([4.2, 3.0])}
    return RunResult(scalars=scalars, curves=curves, tables=tables)


def gates(gammas: dict[int, Iterable[float]], layers: Iterable[int], budget: int = 100) -> dict:
    """The table: under each step its gamma_l."""
    rows = [
        (step, int(layer), float(gamma), round(float(gamma) * budget))
        for step, of_step in gammas.items()
        for layer, gamma in zip(layers, of_step, strict=True)
    ]
    return dict(
        zip(("step", "layer", "gamma", "k"), map(list, zip(*rows, strict=True)), strict=True)
    )


def write(
    store: Path,
    runs: Mapping[Cell, RunResult | Exception],
    keys: Mapping[str, Any] | None = None,
    experiment: str = "sublora/train",
) -> Path:
    """A store with a run per cell; `keys` as all of them have. More may be written after."""
    shared: dict[str, Any] = {"experiment": experiment}
    for key, value in (keys or {}).items():
        set_leaf(shared, key, value)
    config = ConfigFile(shared, ("allocation.name", "subspace.d", "seed"), 1)
    write_config(store, config)
    provenance = dict.fromkeys(("host", "job", "code", "versions")) | {"experiment": experiment}
    with SweepWriter(store, f"plan{config.config_id}", provenance) as writer:
        for index, (cell, result) in enumerate(runs.items()):
            now = datetime.now(UTC)
            run_id = f"{crc32(repr((config.config_id, cell)).encode()):016x}"
            values = dict(zip(config.varying, cell, strict=True))
            writer.append(index, run_id, config.config_id, values, result, now, now, 1.0)
    return store


def write_grid(
    store: Path, runs: Iterable[Cell] = (), keys: Mapping[str, Any] | None = None
) -> Path:
    """A store of `outcome` of each cell, all 30 by default."""
    return write(store, {cell: outcome(*cell) for cell in runs or cells()}, keys)
