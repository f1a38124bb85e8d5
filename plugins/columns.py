"""Columns of the store's files: Arrow types of values, unions of types, encodings on disk."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plugins.leaves import json_text
from plugins.parts import opening
from plugins.result import BOOKKEEPING

ROW_GROUP = 5_000  # rows
# Fewer where rows are large: a fold holds one group, polars some twenty for each of its threads.
ROW_GROUP_BYTES = 1 << 20
_UTC = pa.timestamp("us", tz="UTC")
_BOOKKEEPING_TYPES = {
    "started": _UTC,
    "finished": _UTC,
    "seconds": pa.float64(),
    "index": pa.int64(),
}
BOOKKEEPING_SCHEMA = pa.schema(
    [(name, _BOOKKEEPING_TYPES.get(name, pa.string())) for name in BOOKKEEPING]
)
_SCALARS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


class ColumnConflict(ValueError):
    """No type holds both values: text and number."""


def scalar(value: Any) -> tuple[Any, pa.DataType]:
    """A plain Python value and its type; numpy scalars and 0-d tensors are unpacked.

    Raises ValueError for what is neither a number that int64 or float64 holds, nor bool or text.
    """
    if type(value) not in _SCALARS and hasattr(value, "item"):
        value = value.item()
    for kind, dtype in _SCALARS.items():  # bool first: it is an int
        if isinstance(value, kind):
            if kind is int and not -(2**63) <= value < 2**63:
                raise ValueError(f"{value} does not fit into 64 bits")
            if kind is str:
                value.encode()  # a lone surrogate must not spoil the whole part
            return value, dtype
    raise ValueError(f"a {type(value).__name__} is no number, truth value or text: {value!r:.80}")


def config_value(value: Any) -> Any:
    """A config leaf as a column holds it: mappings and lists as JSON text."""
    return json_text(value) if isinstance(value, Mapping | list | tuple) else value


def curve(name: str, values: Sequence) -> tuple[np.ndarray, pa.DataType]:
    """[points] or [points, k] numbers and their list type; the dtype is kept, steps are int64."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor that resists
        raise ValueError(f"curve {name!r} makes no array: {error}") from error
    if array.dtype == np.float16 or array.dtype.itemsize > 8:
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise ValueError(
            f"curve {name!r} holds neither numbers nor lists of one length "
            f"(shape {array.shape}, dtype {array.dtype})"
        )
    if name == "step" and (array.dtype.kind in "iu" or not array.size):
        array = array.astype(np.int64, copy=False)
    dtype = pa.from_numpy_dtype(array.dtype)
    for _ in range(array.ndim):
        dtype = pa.list_(dtype)
    return array, dtype


def curve_column(arrays: Sequence[np.ndarray | None], dtype: pa.DataType) -> pa.Array:
    """One list per row from arrays [points] or [points, k]; None is null."""
    present = [array for array in arrays if array is not None]
    leaf = dtype
    while pa.types.is_list(leaf):
        leaf = leaf.value_type
    flat = [array.reshape(-1) for array in present]
    numbers = np.concatenate(flat, dtype=leaf.to_pandas_dtype(), casting="unsafe")
    column = pa.array(numbers)
    if present[0].ndim == 2:
        widths = np.concatenate([np.full(len(a), a.shape[1]) for a in present])
        column = pa.ListArray.from_arrays(_offsets(widths), column)
    lengths = [0 if array is None else len(array) for array in arrays]
    absent = pa.array([array is None for array in arrays])
    return pa.ListArray.from_arrays(_offsets(lengths), column, mask=absent)


def table_column(name: str, values: Sequence) -> pa.Array:
    """A column of a long table: numbers, text, truth values or lists of numbers; None is null.

    Raises ValueError for anything else.
    """
    try:
        array = np.asarray(values) if hasattr(values, "__array__") else values
        if isinstance(array, np.ndarray) and array.dtype == np.float16:
            array = array.astype(np.float32)
        if isinstance(array, np.ndarray) and array.ndim > 1:
            array = list(array)
        return pa.array(array)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"table column {name!r} cannot be stored: {error}") from error


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; numbers widen as in numpy, lists by element.

    Raises ColumnConflict where there is none: text, numbers, truth values and lists do not mix.
    """
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(common_type(a.value_type, b.value_type))
    if _is_number(a) and _is_number(b):
        wide = np.promote_types(a.to_pandas_dtype(), b.to_pandas_dtype())
        return pa.from_numpy_dtype(wide)
    raise ColumnConflict(f"{describe(a)} and {describe(b)}")


def union(schemas: Mapping[Any, pa.Schema]) -> pa.Schema:
    """All columns of the files' schemas, in order of appearance, with types that hold all values.

    Raises ColumnConflict naming the column and two files.
    """
    first = {}  # schema -> one of its files; the files of a sweep have few different schemas
    for path, schema in schemas.items():
        first.setdefault(schema, path)
    columns: dict[str, tuple[pa.DataType, Path]] = {}
    for schema, path in first.items():
        for name, dtype in zip(schema.names, schema.types, strict=True):
            known, where = columns.setdefault(name, (dtype, path))
            try:
                columns[name] = common_type(known, dtype), where if known == dtype else path
            except ColumnConflict as conflict:
                raise ColumnConflict(
                    f"column {name!r} holds {describe(known)} in {where} and {describe(dtype)} "
                    f"in {path}: load them apart, or compute the runs of one again (--rerun)"
                ) from conflict
    return pa.schema([(name, dtype) for name, (dtype, _) in columns.items()])


def read_schemas(files: Iterable[Path]) -> dict[Path, pa.Schema]:
    schemas = {}
    for file in files:
        with opening([file]):
            schemas[file] = pq.read_schema(file)
    return schemas


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the schema's columns: absent ones null, narrower ones widened."""
    names = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type, safe=False)
        if field.name in names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet file in the store's encoding: zstd 1, floats split by byte, repeats by dictionary.

    In results run_id and attempt differ in every row; in tables they repeat.
    """
    leaves = dict(_leaf(field) for field in schema)
    floats = [name for name, dtype in leaves.items() if pa.types.is_floating(dtype)]
    distinct = {"run_id", "attempt"} if "status" in schema.names else set()
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_byte_stream_split=floats,
        use_dictionary=[name for name in leaves if name not in distinct.union(floats)],
    )


def rows_per_group(rows: int, size: int) -> int:
    """How many of `rows` rows that weigh `size` bytes make a row group."""
    return max(1, min(ROW_GROUP, ROW_GROUP_BYTES * rows // max(size, 1)))


def write_file(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write the batches, gathered into row groups, holding one row group in memory."""
    with open_writer(path, schema) as out:
        held: list[pa.RecordBatch] = []
        rows = weight = 0
        for batch in batches:
            held.append(batch)
            rows, weight = rows + batch.num_rows, weight + batch.nbytes
            group = rows_per_group(rows, weight)
            if rows >= group:
                full = pa.Table.from_batches(held, schema)
                rest = rows % group
                out.write_table(full.slice(0, rows - rest), row_group_size=group)
                held = full.slice(rows - rest).to_batches()
                rows, weight = rest, sum(part.nbytes for part in held)
        if held:
            out.write_table(pa.Table.from_batches(held, schema))


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32))


def _is_number(dtype: pa.DataType) -> bool:
    return pa.types.is_integer(dtype) or pa.types.is_floating(dtype)


def describe(dtype: pa.DataType) -> str:
    if pa.types.is_list(dtype):
        return f"lists of {describe(dtype.value_type)}"
    if pa.types.is_boolean(dtype):
        return "truth values"
    return "numbers" if _is_number(dtype) else "text"


def _leaf(field: pa.Field) -> tuple[str, pa.DataType]:
    path, dtype = field.name, field.type
    while pa.types.is_list(dtype):
        path, dtype = f"{path}.list.element", dtype.value_type
    return path, dtype
