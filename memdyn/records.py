"""What a run has measured so far: tables that grow by an epoch at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plugins.lm.tables import append_rows

TABLES = ("passages", "passage_layers", "layers", "epochs")  # epochs: one row each


class Records:
    """Columns of each table, as plain lists: a checkpoint holds them."""

    def __init__(self, tables: Mapping[str, Mapping[str, list]] | None = None):
        self.tables: dict[str, dict[str, list]] = {name: {} for name in TABLES}
        for name, columns in (tables or {}).items():
            self.tables[name] = {column: list(values) for column, values in columns.items()}

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        append_rows(self.tables[table], columns)

    @property
    def epochs(self) -> list[int]:
        """Measured ones."""
        return self.tables["epochs"].get("epoch", [])

    def long(self) -> dict[str, np.ndarray]:
        """One row per epoch, passage and layer: what the analyses read; null is nan."""
        passages, layers = (
            {name: np.array(column) for name, column in self.tables[table].items()}
            for table in ("passages", "passage_layers")
        )
        n = passages["passage_id"].max() + 1
        epochs, at = np.unique(passages["epoch"], return_inverse=True)
        row = np.empty((len(epochs), n), int)
        row[at, passages["passage_id"]] = np.arange(len(at))
        row = row[np.searchsorted(epochs, layers["epoch"]), layers["passage_id"]]
        return {name: _numbers(column[row]) for name, column in passages.items()} | {
            name: _numbers(column) for name, column in layers.items()
        }


def _numbers(column: np.ndarray) -> np.ndarray:
    """Columns with nulls as float64."""
    return column.astype(float) if column.dtype == object else column
