"""Runs of memdyn by formula: their tables, and stores that hold them."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from plugins.config_files import ConfigFile, write_config
from plugins.result import RunResult
from plugins.store import SweepWriter

SUMMARY = "epoch,num_memorized,memorization_rate,best_layer,timestamp,novel_rate\n"


def tables(
    epochs=(0, 1, 2, 4, 8), n: int = 12, layers: int = 3, seed: int = 0
) -> dict[str, pl.DataFrame]:
    """`passages` and `passage_layers` of n trained (ids 0 .. n-1) and n novel passages.

    Trained passage i has accuracy 1 from epoch 1 + i / 2 on, else .25; novel ones have 0.
    nv_rel = layer + sqrt(epoch) + noise of SD .1, trained ones + .1 layer epoch; nv = nv_rel - 1.
    """
    rng = np.random.default_rng(seed)
    epoch, passage, layer = (
        a.ravel() for a in np.meshgrid(epochs, range(2 * n), range(layers), indexing="ij")
    )
    nv_rel = layer + np.sqrt(epoch) + 0.1 * rng.normal(size=len(layer))
    nv_rel += 0.1 * layer * epoch * (passage < n)
    of_layers = {"epoch": epoch, "layer": layer, "passage_id": passage}
    of_layers |= {"nv": nv_rel - 1, "nv_rel": nv_rel}
    epoch, passage = (a.ravel() for a in np.meshgrid(epochs, range(2 * n), indexing="ij"))
    of_passages = {
        "epoch": epoch,
        "passage_id": passage,
        "group": np.where(passage < n, "trained", "novel"),
        "accuracy": np.where(passage < n, np.where(epoch >= 1 + passage / 2, 1.0, 0.25), 0.0),
        "nll": 5 - 0.1 * epoch + 0.1 * rng.normal(size=len(epoch)),
    }
    return {"passages": pl.DataFrame(of_passages), "passage_layers": pl.DataFrame(of_layers)}


def long(**sizes) -> pl.DataFrame:
    """The tables joined: a row per epoch, passage and layer."""
    found = tables(**sizes)
    return found["passage_layers"].join(found["passages"], on=["epoch", "passage_id"])


def write(
    store: Path, *seeds: int, failed: int | None = None, threshold: float = 0.6, **sizes
) -> list[str]:
    """A store with a run per seed, and one that failed; their ids. Seed 2 diverges before epoch 8.

    The rates in the stored curves and in training_summary.csv are wrong on purpose, -1 at all
    epochs: they have to be counted anew.
    """
    settings = {"threshold": threshold, "alpha": 0.05, "min_effect": 0.1}
    config = ConfigFile({"experiment": "memdyn/train", "lr": 1e-3, **settings}, ("seed",), 1)
    write_config(store, config)
    provenance = dict.fromkeys(("host", "job", "code", "versions"))
    ids = []
    with SweepWriter(store, "plan", provenance | {"experiment": "memdyn/train"}) as writer:
        for index, seed in enumerate([*seeds, *([] if failed is None else [failed])]):
            ids.append(f"{seed + 10:016x}")
            outcome = RuntimeError("no memory") if seed == failed else _result(store, seed, sizes)
            now = datetime.now(UTC)
            writer.append(index, ids[-1], config.config_id, {"seed": seed}, outcome, now, now, 1.0)
    return ids


def _result(store: Path, seed: int, sizes: dict) -> RunResult:
    found = tables(seed=seed, **sizes)
    if seed == 2:
        found = {name: table.filter(pl.col("epoch") < 8) for name, table in found.items()}
    epochs = found["passages"]["epoch"].unique().sort().to_list()
    workdir = store / "work" / f"{seed + 10:016x}"
    workdir.mkdir(parents=True)
    lines = [f"{epoch},-1,-1,1,2026-01-01T00:00:00+00:00,-1\n" for epoch in epochs]
    path = workdir / "training_summary.csv"
    path.write_text(SUMMARY + "".join(lines))
    wrong = [-1.0] * len(epochs)
    means = [seed + epoch**0.5 for epoch in epochs]
    return RunResult(
        curves={
            "step": epochs,
            "num_memorized": wrong,
            "memorization_rate": wrong,
            "novel_rate": wrong,
            "mean_accuracy": [0.5] * len(epochs),
            "nv_rel_trained": means,
            "nv_rel_novel": [2 * x for x in means],
        },
        tables={name: table.to_dict(as_series=False) for name, table in found.items()},
        artifacts=[path],
        status="diverged" if seed == 2 else "ok",
    )
