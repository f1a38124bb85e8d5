"""Long tables that a run fills row by row, as plain lists: a checkpoint holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def append_rows(table: dict[str, list], columns: Mapping[str, Any]) -> None:
    """Rows of columns; a scalar column holds for all of them. nan becomes null."""
    lengths = {len(column) for column in columns.values() if _is_column(column)}
    [n] = lengths or {1}
    for name, column in columns.items():
        values = _plain(column) if _is_column(column) else [column] * n
        table.setdefault(name, []).extend(values)


def _is_column(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _plain(column: Sequence | np.ndarray) -> list:
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if value != value else value for value in values]
