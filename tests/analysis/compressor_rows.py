"""Stores of compressor: real trainings on synthetic states, and a predictor's rows by formula."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.compressor.runs import TRM, Store
from plugins import api
from plugins.config_files import ConfigFile, write_config
from plugins.result import RunResult
from plugins.store import SweepWriter

DIM = 48
SMALL = ["lm.source=synthetic", "eval.downstream=false", f"lm.dim={DIM}", "lm.rows=400"]
SMALL += ["train.batch=64", "train.max_epochs=3", "device=cpu"]
METHODS = ("mean", "copy", "ridge", "one_pass", "equal_flops", "trm")
# Steps of gradient flow: lr small against D / (8 lambda_1), states of one batch.
FLOW = ["train.optimizer=sgd", "train.schedule=constant", "train.clip=none", "model.init=pca"]
FLOW += ["model.init_scale=.1", "train.lr=.1", "train.batch=400", "train.max_epochs=600"]
FLOW += ["train.early_stopping=false", "lm.dim=8", "model.d_compressed=3", "model.center=mean"]


def train(store: Path, *overrides: str) -> None:
    """Adds runs to a store."""
    report = api.sweep("compressor/compressor", [*SMALL, *overrides], output=store)
    assert report.failed == 0


def with_columns(store: Store, **columns: pl.Expr | Sequence[Any]) -> Store:
    """As if the runs had measured more; a polars expression per column, or its values."""
    added = {n: pl.Series(v) if isinstance(v, Sequence) else v for n, v in columns.items()}
    return Store(store.path, store.rows.with_columns(**added))


def costs() -> dict[str, pl.Expr]:
    """The language model's columns by formula: a kl of 1/k, of PCA .9/k, of a random one 3."""
    k, seed = pl.col("k").cast(pl.Float64), pl.col("train.seed")
    kl = (1 + 0.1 * seed) / k
    found: dict[str, pl.Expr] = {"nll_base": pl.lit(2.0)}
    for end, value in (("", kl), ("_pca", 0.9 / k), ("_random", pl.lit(3.0))):
        found |= {
            f"kl{end}": value,
            f"delta_nll{end}": 1.5 * value,
            f"top1_agree{end}": 1 / (1 + value),
            f"nll{end or '_rec'}": 2 + 1.5 * value,
        }
    return found


def predictor(seed: int = 0) -> RunResult:
    """R^2 .1, .2, .. by METHODS, larger by .01 seed; cosines above them by .05."""
    scalars: dict[str, Any] = {"k": 16}
    table: dict[str, list] = {
        name: [] for name in ("method", "split", "r2", "cos", "n_params", "flops")
    }
    for i, method in enumerate(METHODS):
        r2 = 0.1 * (i + 1) + 0.01 * seed
        scalars |= {f"r2_{method}": r2, f"cos_{method}": r2 + 0.05}
        if i > 2:  # is trained
            scalars |= {f"flops_train_{method}": 10 * i}
        row = (method, "heldout", r2, r2 + 0.05, 100 * i, 1000.0 * i)
        for name, value in zip(table, row, strict=True):
            table[name].append(value)
    curves = {"step": np.arange(3), "loss": np.ones(3)}
    return RunResult(scalars=scalars, curves=curves, tables={"methods": table})


def write(
    store: Path, *cells: tuple[Mapping[str, Any], RunResult | Exception], experiment: str = TRM
) -> None:
    """A store with a run per cell: the values of the keys that vary, and its outcome."""
    config = ConfigFile({"experiment": experiment}, tuple(cells[0][0]), 1)
    write_config(store, config)
    provenance = dict.fromkeys(("host", "job", "code", "versions")) | {"experiment": experiment}
    with SweepWriter(store, "plan", provenance) as writer:
        for index, (values, outcome) in enumerate(cells):
            now = datetime.now(UTC)
            of = (f"{index + 10:016x}", config.config_id, dict(values), outcome)
            writer.append(index, *of, now, now, 1.0)


def mean_over_seeds(rows: pl.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """k, and the mean of the column over the runs with it; in order of k."""
    means = rows.drop_nulls(column).group_by("k").agg(pl.col(column).mean()).sort("k")
    return means["k"].to_numpy(), means[column].to_numpy()
