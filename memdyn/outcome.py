"""A run's row and tables, and its report, from what it measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memdyn.config import TrainConfig
from memdyn.data import Passages
from memdyn.records import Records
from memdyn.summary import summary_curves, summary_rows
from memdyn.theory import (
    analyze_memorization_onset,
    analyze_u_shape_trajectory,
    generate_summary_report,
    middle_layer,
    predict_memorization,
)
from memdyn.trainer import Diverged
from plugins.result import RunResult

_FINAL = ("memorization_rate", "novel_rate", "mean_accuracy", "mean_novel_accuracy")


def outcome(
    cfg: TrainConfig,
    passages: Passages,
    records: Records,
    *,
    scalars: Mapping[str, Any],
    diverged: Diverged | None,
    artifacts: Sequence[Path],
) -> RunResult:
    """The run's result; what cannot be said of it is absent."""
    rows = summary_rows(records, cfg.threshold)
    found = {
        **{f"final_{name}": rows[-1][name] for name in _FINAL},
        **_analyses(cfg, records),
        **scalars,
        "split_level": passages.split_level,
    }
    if diverged:
        found |= {"diverged_epoch": diverged.epoch, "diverged_step": diverged.step}
    tables = {name: records.tables[name] for name in ("passages", "passage_layers", "layers")}
    accuracy = np.array(tables["passages"]["accuracy"])
    tables["passages"] = tables["passages"] | {"memorized": accuracy >= cfg.threshold}
    return RunResult(
        scalars={name: value for name, value in found.items() if value is not None},
        curves=summary_curves(rows) | _layer_curves(records),
        tables=tables,
        artifacts=artifacts,
        status="diverged" if diverged or not _is_finite(rows[-1]) else "ok",
    )


def _is_finite(row: Mapping[str, Any]) -> bool:
    """Whether the trained passages have a likelihood: the last update may have broken the model."""
    loss = row["geo_training_perplexity"]
    return loss is not None and np.isfinite(loss)


def report(cfg: TrainConfig, records: Records, *, diverged: bool = False) -> str:
    """summary_report.txt"""
    return generate_summary_report(
        records.long(),
        threshold=cfg.threshold,
        alpha=cfg.alpha,
        min_effect=cfg.min_effect,
        diverged=diverged,
    )


def _analyses(cfg: TrainConfig, records: Records) -> dict[str, Any]:
    data = records.long()
    if "nv_rel" not in data:
        return {}
    layer = middle_layer(data["layer"])
    onset = analyze_memorization_onset(data, layer, threshold=cfg.threshold)
    trajectory = analyze_u_shape_trajectory(data, layer, alpha=cfg.alpha, min_effect=cfg.min_effect)
    prediction = predict_memorization(data, records.epochs[0], threshold=cfg.threshold)
    return {
        "km_median_onset": onset.median,
        "auroc": prediction.auroc_scores,
        "middle_layer": layer,
        "shape": trajectory.shape,
    }


def _layer_curves(records: Records) -> dict[str, list[float]]:
    """The middle layer's metrics by group, over the measured epochs."""
    table = records.tables["layers"]
    layer = middle_layer(table["layer"])
    curves: dict[str, list[float]] = {}
    for at, group, metric, value in zip(
        table["layer"], table["group"], table["metric"], table["value"], strict=True
    ):
        if at == layer:
            curve = curves.setdefault(f"{metric}_{group}", [])
            curve.append(float("nan") if value is None else value)
    return curves
