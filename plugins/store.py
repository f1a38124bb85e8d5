"""Writing a store: SweepWriter buffers the rows of finished runs and publishes them as parts."""

import math
import secrets
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from plugins import columns
from plugins.atomic import fsync, stamp
from plugins.fold import fold_small
from plugins.parts import RESULTS, link_or_copy, publish
from plugins.result import RunResult
from plugins.winners import DONE

_FLUSH_BYTES = 32 << 20
_ROW_BYTES = 1_000  # guess of what a row weighs beside its arrays
_OLD_SECONDS = 600  # from then on a unit flushes _OLD_FACTOR times less often
_OLD_FACTOR = 6
_FOLD_EVERY = 16  # flushes


class _Row(NamedTuple):
    cells: dict[str, Any]  # column -> plain value, or array of a curve
    tables: dict[str, dict[str, pa.Array]]


class SweepWriter:
    """Rows of one plan's runs, published in parts; a context manager, used by one thread.

    A row waits at most `flush_seconds` (six times that once the writer is ten minutes old), if
    `append` or `flush_if_due` is called by then. Leaving the context publishes what is left, also
    when an exception passes.
    """

    def __init__(
        self,
        store: Path,
        plan: str,
        provenance: Mapping[str, str | None],
        flush_seconds: float = 5,
    ):
        """`provenance`: experiment, host, job, code, versions: equal in all rows."""
        self._store, self._flush_seconds = Path(store), flush_seconds
        self._constants = {**provenance, "plan": plan}
        self._opened = self._first = time.monotonic()
        self._rows: list[_Row] = []
        self._bytes = 0
        self._types: dict[str, pa.DataType] = {}  # of keys, scalars, curves; only ever widened
        self._keys: dict[str, None] = {}  # varying keys, in order
        self._parts: list[Path] = []
        self._flushes = 0

    def __enter__(self) -> "SweepWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.flush()
        if kind is None:
            self._fold()

    def append(
        self,
        index: int,
        run_id: str,
        config_id: str,
        values: Mapping[str, Any],
        outcome: RunResult | BaseException,
        started: datetime,
        finished: datetime,
        seconds: float,
    ) -> None:
        """Buffer one run's row and keep its artifacts; publish when it is time.

        `values` are the plan's varying keys, `seconds` the run's cost: its share of the time that
        its stack took. An exception, or a result that cannot be stored,
        makes a failed row with the traceback. Raises ValueError for keys that cannot be stored.
        """
        cells = {
            "run_id": run_id,
            "status": "failed",
            "error": None,
            "started": started,
            "finished": finished,
            "seconds": seconds,
            "index": index,
            "config_id": config_id,
        }
        self._add_keys(cells, values)
        tables = {}
        if isinstance(outcome, RunResult):
            try:
                results, tables = self._encode(outcome)
                self._keep(run_id, outcome.artifacts)
                cells |= results
                cells["status"] = outcome.status
            except (ValueError, TypeError, OSError) as error:
                outcome, tables = error, {}
        if isinstance(outcome, BaseException):
            text = "".join(traceback.format_exception(outcome))
            cells["error"] = text.encode(errors="backslashreplace").decode()
        if not self._rows:
            self._first = time.monotonic()
        self._rows.append(_Row(cells, tables))
        arrays = (cell for cell in cells.values() if isinstance(cell, np.ndarray))
        long = (column for table in tables.values() for column in table.values())
        self._bytes += _ROW_BYTES + sum(a.nbytes for a in (*arrays, *long))
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Publish when the first buffered row has waited long enough; to be called in long gaps."""
        now = time.monotonic()
        old = now - self._opened > _OLD_SECONDS
        patience = self._flush_seconds * (_OLD_FACTOR if old else 1)
        if self._rows and (self._bytes >= _FLUSH_BYTES or now - self._first >= patience):
            self.flush()

    def hurry(self) -> None:
        """The process will soon be killed: what is buffered is due, what follows waits the short
        time. For signal handlers: publishes nothing itself."""
        self._first, self._opened = -math.inf, time.monotonic()

    def flush(self) -> None:
        """Publish the buffered rows as one part, then remove the workdirs of the done ones."""
        if not self._rows:
            return
        token = secrets.token_hex(6)
        attempts = [f"{token}-{number}" for number in range(len(self._rows))]
        files = {RESULTS: self._results(attempts), **self._tables(attempts)}

        def write(folder: Path) -> None:
            for name, batch in files.items():
                columns.write_file(folder / name, batch.schema, [batch])

        self._parts.append(publish(self._store, 0, write))
        published, self._rows, self._bytes = self._rows, [], 0
        workdirs = {path.name: path for path in (self._store / "work").glob("*")}
        for row in published:
            if row.cells["run_id"] in workdirs and row.cells["status"] in DONE:
                shutil.rmtree(workdirs[row.cells["run_id"]], ignore_errors=True)
        self._flushes += 1
        if self._flushes % _FOLD_EVERY == 0:
            self._fold()

    def _fold(self) -> None:
        try:
            self._parts = fold_small(self._store, self._parts)
        except OSError:  # a compaction folded them, or there is no space for the copy
            self._parts = [part for part in self._parts if part.is_dir()]

    def _add_keys(self, cells: dict[str, Any], values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self._keys.setdefault(key)
            if value is None:
                continue
            try:
                cells[key], dtype = columns.scalar(columns.config_value(value))
                self._types[key] = columns.common_type(self._types.get(key, dtype), dtype)
            except columns.ColumnConflict:
                # Text after numbers: another part, so that no row is lost; readers name the key.
                self.flush()
                self._types[key] = dtype
            except ValueError as error:
                raise ValueError(f"config key {key!r}: {error}") from error

    def _encode(self, result: RunResult) -> tuple[dict[str, Any], dict[str, dict[str, pa.Array]]]:
        """Cells and table columns; ValueError for what the store cannot hold."""
        cells, types = {}, {}
        for name, value in result.scalars.items():
            if value is not None:
                try:
                    cells[name], types[name] = columns.scalar(value)
                except ValueError as error:
                    raise ValueError(f"scalar {name!r}: {error}") from error
        for name, values in result.curves.items():
            cells[name], types[name] = columns.curve(name, values)
        for name in cells:
            if name in self._keys:
                raise ValueError(f"the result {name!r} has the name of a config key of this sweep")
        tables = {}
        for name, table in result.tables.items():
            arrays = {column: columns.table_column(column, v) for column, v in table.items()}
            types |= {f"{name}.parquet/{column}": array.type for column, array in arrays.items()}
            if any(len(array) for array in arrays.values()):
                tables[f"{name}.parquet"] = arrays
        for name, dtype in types.items():
            known = self._types.get(name, dtype)
            try:
                types[name] = columns.common_type(known, dtype)
            except columns.ColumnConflict:
                raise ValueError(
                    f"the result {name!r} holds {columns.describe(dtype)}, "
                    f"and {columns.describe(known)} in earlier runs of this sweep"
                ) from None
        self._types |= types
        return cells, tables

    def _keep(self, run_id: str, artifacts: Sequence[Path]) -> None:
        """Link or copy files of the run's workdir into artifacts/<run_id>/, each atomically."""
        for path in map(Path, artifacts):
            workdir = (self._store / "work" / run_id).resolve()
            if not path.parent.resolve().is_relative_to(workdir):
                raise ValueError(f"the artifact {path} is not in the run's workdir {workdir}")
            inside = path.parent.resolve().relative_to(workdir) / path.name
            kept = self._store / "artifacts" / run_id / inside
            kept.parent.mkdir(parents=True, exist_ok=True)
            aside = workdir / f".tmp-{stamp()}"  # goes with the workdir should we be killed
            link_or_copy(workdir / inside, aside)
            fsync(aside)
            aside.replace(kept)
            fsync(kept.parent)

    def _results(self, attempts: Sequence[str]) -> pa.RecordBatch:
        n, rows = len(self._rows), [row.cells for row in self._rows]
        arrays = {}
        for field in columns.BOOKKEEPING_SCHEMA:
            if field.name == "attempt":
                arrays["attempt"] = pa.array(attempts)
            elif field.name in rows[0]:
                arrays[field.name] = pa.array([cells[field.name] for cells in rows], field.type)
            else:
                constant = self._constants.get(field.name)
                arrays[field.name] = pa.repeat(pa.scalar(constant, field.type), n)
        present = {name for cells in rows for name in cells} - arrays.keys()
        keys = [key for key in self._keys if key in present]
        curves = [name for name in self._types if pa.types.is_list(self._types[name])]
        for name in (*keys, *curves, *self._types):
            if name in present:
                present.remove(name)
                cells = [row.get(name) for row in rows]
                dtype = self._types[name]
                column = columns.curve_column if pa.types.is_list(dtype) else pa.array
                arrays[name] = column(cells, dtype)
        return pa.RecordBatch.from_pydict(arrays)

    def _tables(self, attempts: Sequence[str]) -> dict[str, pa.RecordBatch]:
        batches: dict[str, list[pa.RecordBatch]] = {}
        for attempt, row in zip(attempts, self._rows, strict=True):
            for name, table in row.tables.items():
                n = len(next(iter(table.values())))
                ids = {"run_id": row.cells["run_id"], "attempt": attempt}
                arrays = {key: pa.repeat(pa.scalar(value), n) for key, value in ids.items()}
                batches.setdefault(name, []).append(pa.RecordBatch.from_pydict(arrays | table))
        whole = {}
        for name, parts in batches.items():
            schema = columns.union(dict(enumerate(batch.schema for batch in parts)))
            schema = pa.schema([field for field in schema if not pa.types.is_null(field.type)])
            parts = [columns.conform(batch, schema) for batch in parts]
            whole[name] = pa.Table.from_batches(parts, schema).combine_chunks().to_batches()[0]
        return whole
