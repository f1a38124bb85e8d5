"""The prefixes of a nested W, each as a compressor of its own."""

import math
from typing import Any

from compressor.config import TrainConfig
from compressor.metrics import cos, mse, pca, rel_error
from compressor.reconstruction import Context
from compressor.spectrum import Spectrum
from plugins.lm.tables import append_rows

COLUMNS = (
    *("mse", "gap_pca", "cos", "cos_centered", "rel_error", "rel_error_token"),
    *("mse_pca", "cos_pca", "rel_pca"),
)


def nested_weights(cfg: TrainConfig, spectrum: Spectrum) -> list[float]:
    """Of the losses of model.nested, sum 1: equal, or in proportion to 1 / mse_pca(k_j)."""
    sizes = cfg.model.nested
    if cfg.model.nested_weights == "equal":
        return [1 / len(sizes) for _ in sizes]
    mse = [spectrum.mse_pca(k) for k in sizes]
    if not all(mse):
        raise ValueError(
            f"model.nested_weights=inverse_pca: of model.nested={sizes} k={sizes[mse.index(0)]} "
            "has a PCA without error; leave it out, or take equal"
        )
    return [1 / m / sum(1 / m for m in mse) for m in mse]


def nested_table(cfg: TrainConfig, ctx: Context) -> dict[str, list[Any]]:
    """A row per split and size of model.nested: COLUMNS; gap_pca is null where mse_pca is 0."""
    table: dict[str, list[Any]] = {}
    for k in cfg.model.nested:
        prefix = Context(ctx.W[:k], ctx.spectrum, ctx.train_states, ctx.heldout_states)
        values = {}
        for metric in (mse, rel_error, cos, pca):
            values |= metric(prefix)
        for split in ("train", "heldout"):
            row = {name: [values.get(f"{name}_{split}", math.nan)] for name in COLUMNS}
            append_rows(table, {"split": split, "k": k, **row})
    return table
