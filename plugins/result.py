"""What a run hands back: scalars, curves, tables, files to keep."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

BOOKKEEPING = (
    "run_id",
    "attempt",
    "experiment",
    "status",
    "error",
    "started",
    "finished",
    "seconds",
    "host",
    "job",
    "code",
    "versions",
    "plan",
    "index",
    "config_id",
)
TIMES = "seconds_"  # begins the names of scalars that equal runs may differ in
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass
class RunResult:
    """One run's outcome. Raises ValueError for names or lengths that the store cannot hold.

    Names match `[a-z][a-z0-9_]*` (dots are config keys), are unique among scalars and curves, and
    not those of the store's bookkeeping. Curves have equal lengths and a "step" among them; their
    dtype is kept (float32 stays float32). A table maps columns to sequences of equal length; the
    store adds run_id and attempt. `artifacts` are files in the run's workdir to keep. Scalars that
    tell how long something took begin with seconds_: merging does not compare them.
    """

    scalars: dict[str, float | int | str | bool] = field(default_factory=dict)
    curves: dict[str, Sequence] = field(default_factory=dict)
    tables: dict[str, Mapping[str, Sequence]] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    status: Literal["ok", "diverged"] = "ok"

    def __post_init__(self):
        if self.status not in ("ok", "diverged"):
            raise ValueError(f"status {self.status!r} is neither 'ok' nor 'diverged'")
        for name in (*self.scalars, *self.curves, *self.tables):
            _check_name(name)
        if twice := set(self.scalars) & set(self.curves):
            raise ValueError(f"both scalars and curves are named {sorted(twice)}")
        if self.curves and "step" not in self.curves:
            raise ValueError(f"curves {sorted(self.curves)} lack their axis 'step'")
        _check_lengths("curves", self.curves)
        if "results" in self.tables:
            raise ValueError("a table cannot be named 'results': the store's rows are")
        for name, table in self.tables.items():
            for column in table:
                _check_name(column)
            _check_lengths(f"table {name!r}", table)


class Curves:
    """Curves logged step by step on one axis, the union of all steps; nan where not measured."""

    def __init__(self):
        self._records: dict[int, dict[str, float]] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._records.setdefault(step, {}).update(values)

    def as_dict(self) -> dict[str, list]:
        steps = sorted(self._records)
        names = dict.fromkeys(name for step in steps for name in self._records[step])
        columns = {name: [self._records[s].get(name, math.nan) for s in steps] for name in names}
        return {"step": steps, **columns} if steps else {}


@cache  # a stack's runs all have the same few names
def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"result name {name!r} does not match [a-z][a-z0-9_]*")
    if name in BOOKKEEPING:
        raise ValueError(f"result name {name!r} is reserved by the store")


def _check_lengths(what: str, columns: Mapping[str, Sequence]) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{what} have different lengths: {lengths}")
