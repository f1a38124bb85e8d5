"""One line per measured epoch: training_summary.csv, and a run's curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memdyn.records import Records
from memdyn.theory import layer_correlations

COLUMNS = (
    "epoch",
    "num_memorized",
    "memorization_rate",
    "mean_accuracy",
    "median_accuracy",
    "mean_training_perplexity",
    "mean_novel_perplexity",
    "perplexity_gap",
    "median_training_perplexity",
    "median_novel_perplexity",
    "best_layer",
    "best_correlation",
    "best_p_value",
    "timestamp",
    "novel_rate",
    "mean_novel_accuracy",
    "extractable_k50",
    "geo_training_perplexity",
    "geo_novel_perplexity",
    "best_q_value",
    "lr",
    "seconds",
)
_NOT_CURVES = ("epoch", "timestamp", "best_layer", "lr", "seconds")  # lr is a key of the config


def summary_rows(records: Records, threshold: float) -> list[dict[str, Any]]:
    """A row per measured epoch, its columns in COLUMNS; None where undefined.

    Counts and accuracies are those of trained passages. Perplexities are arithmetic means (mean_),
    geometric (geo_) and medians over passages; the gap is novel minus trained. The best layer is
    the one whose nv_rel goes best with accuracy over trained passages (`layer_correlations`).
    """
    if not records.epochs:
        return []
    data = records.long()
    layers = data if "nv_rel" in data else None
    passages = {name: np.array(column) for name, column in records.tables["passages"].items()}
    extras = records.tables["epochs"]
    rows = []
    for i, epoch in enumerate(records.epochs):
        here = passages["epoch"] == epoch
        trained = here & (passages["group"] == "trained")
        novel = here & (passages["group"] == "novel")
        accuracy = passages["accuracy"][trained].astype(float)
        novel_accuracy = passages["accuracy"][novel].astype(float)
        row = {
            "epoch": epoch,
            "num_memorized": int((accuracy >= threshold).sum()),
            "memorization_rate": float((accuracy >= threshold).mean()),
            "mean_accuracy": accuracy.mean(),
            "median_accuracy": float(np.median(accuracy)),
            "novel_rate": float((novel_accuracy >= threshold).mean()),
            "mean_novel_accuracy": novel_accuracy.mean(),
            "extractable_k50": _rate(passages["extractable_k50"][trained]),
        }
        for name, group in (("training", trained), ("novel", novel)):
            nll = passages["nll"][group].astype(float)
            with np.errstate(over="ignore"):
                row[f"mean_{name}_perplexity"] = np.exp(nll).mean()
                row[f"median_{name}_perplexity"] = float(np.median(np.exp(nll)))
                row[f"geo_{name}_perplexity"] = np.exp(nll.mean())
        with np.errstate(invalid="ignore"):  # both infinite
            row["perplexity_gap"] = row["mean_novel_perplexity"] - row["mean_training_perplexity"]
        best = layer_correlations(layers, epoch) if layers else None
        if best and best.best_layer is not None:
            at = list(best.layers).index(best.best_layer)
            row["best_layer"] = int(best.best_layer)
            row["best_correlation"], row["best_p_value"] = float(best.rho[at]), float(best.p[at])
            row["best_q_value"] = float(best.q[at])
        row |= {name: extras[name][i] for name in ("timestamp", "lr", "seconds")}
        rows.append({name: _plain(row.get(name)) for name in COLUMNS})
    return rows


def write_summary(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The file anew."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def append_summary(path: Path, row: Mapping[str, Any]) -> None:
    """One more line, visible at once."""
    with open(path, "a", newline="") as file:
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)


def summary_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """The rows as curves over epochs (`step`); nan where undefined."""
    names = [name for name in COLUMNS if name not in _NOT_CURVES]
    curves = {n: [math.nan if row[n] is None else float(row[n]) for row in rows] for n in names}
    return {"step": [row["epoch"] for row in rows], **curves}


def _rate(hits: np.ndarray) -> float | None:
    return None if hits[0] is None else float(hits.mean())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
