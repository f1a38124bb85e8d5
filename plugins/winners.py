"""Which row of a run counts: one total order, applied alike by readers, folds and merges."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from plugins.columns import BOOKKEEPING_SCHEMA
from plugins.parts import RESULTS, list_parts, opening, retry_vanished
from plugins.scan import scan_without

DONE = ("ok", "diverged")
STATUS = (*DONE, "failed")
_STORED = ("run_id", "attempt", "status", "seconds", "config_id")
_TYPES = pl.Schema(BOOKKEEPING_SCHEMA)
_IS_BEATEN = (pl.col("run_id") == pl.col("run_id").shift(-1)).fill_null(False)  # of rows in rank


def read_keys(
    parts: Sequence[Path], extra: Mapping[str, pl.DataType] | None = None
) -> pl.DataFrame:
    """One row per stored row: run_id, attempt, status, finished, the extra columns, part, row.

    `part` is an index into `parts`, `row` the row's index in that part's file.
    """
    names = ("run_id", "attempt", "status", "finished", *(extra or ()))
    return _read(parts, {name: pl.col(name) for name in names})


def short_keys(parts: Sequence[Path], extra: Sequence[str] = ()) -> pl.DataFrame:
    """`read_keys` in 33 bytes a row: run_id and attempt are numbers, in one order everywhere,
    status is an Enum, and extra texts are Categorical.
    """
    columns = {
        "run_id": number_of_run(pl.col("run_id")),
        "attempt": number_of_attempt(pl.col("attempt")),
        "status": pl.col("status").cast(pl.Enum(STATUS)),
        "finished": pl.col("finished"),
    }
    for name in extra:
        text = _TYPES[name] == pl.String
        columns[name] = pl.col(name).cast(pl.Categorical) if text else pl.col(name)
    return _read(parts, columns)


def number_of_run(run_id: pl.Expr) -> pl.Expr:
    """The 16 hex digits."""
    return run_id.str.to_integer(base=16, dtype=pl.UInt64)


def number_of_attempt(attempt: pl.Expr) -> pl.Expr:
    """The 12 hex digits of the flush, then the index in it; a flush has fewer than 2^16 rows."""
    flush = attempt.str.slice(0, 12).str.to_integer(base=16, dtype=pl.UInt64)
    return flush * 2**16 + attempt.str.slice(13).str.to_integer(dtype=pl.UInt64)


def run_numbers(folders: Sequence[Path]) -> pl.Series:
    """The run_ids, as `short_keys` gives them, that folders are named by; null for others."""
    names = pl.Series([folder.name for folder in folders], dtype=pl.String)
    return names.str.to_integer(base=16, dtype=pl.UInt64, strict=False)


def _read(parts: Sequence[Path], columns: Mapping[str, pl.Expr]) -> pl.DataFrame:
    schema = {name: _TYPES[name] for name in columns}
    files = [part / RESULTS for part in parts]
    names = [str(file) for file in files]
    part = pl.col("part").cast(pl.Enum(names)).to_physical().cast(pl.UInt32)
    if not files:
        rows = pl.LazyFrame(schema={**schema, "part": pl.String, "row": pl.UInt32})
        return rows.select(**columns, part=part, row="row").collect()
    rows = pl.scan_parquet(
        names,
        schema=schema,
        extra_columns="ignore",
        glob=False,
        hive_partitioning=False,
        include_file_paths="part",
        row_index_name="row",
    )
    with opening(files):  # streaming: the paths and texts of few rows at a time
        keys = rows.select(**columns, part=part, row="row").collect(engine="streaming")
    return keys.with_columns(pl.col("row") - pl.col("row").min().over("part"))


def judge(keys: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(winners, losers) of `read_keys` or `short_keys`, whose parts are in (gen, name) order."""
    doubled = is_doubled(keys)
    rivals = ranked(keys.filter(doubled))
    winners = pl.concat([keys.filter(~doubled), rivals.filter(~_IS_BEATEN)])
    return winners, rivals.filter(_IS_BEATEN)


def losers(keys: pl.DataFrame, prefer: pl.Expr | None = None) -> pl.DataFrame:
    """The losers alone, for `ranked`'s `prefer`."""
    return ranked(keys.filter(is_doubled(keys)), prefer).filter(_IS_BEATEN)


def is_doubled(keys: pl.DataFrame) -> pl.Series:
    """Whether a row's run has several rows."""
    ids = keys["run_id"].sort()  # a hash table of all would take six times as much memory
    return keys["run_id"].is_in(ids.filter(ids == ids.shift()).implode())


def ranked(keys: pl.DataFrame, prefer: pl.Expr | None = None) -> pl.DataFrame:
    """The rows by run, a run's winner last.

    It is done before failed, then by `prefer`, then the last finished, then the largest attempt;
    one attempt that lies in two parts counts in the part that is larger by (gen, name), which a
    fold drops after the smaller one.
    """
    return keys.sort(
        "run_id",
        pl.col("status").is_in(DONE),
        *([] if prefer is None else [prefer]),
        "finished",
        "attempt",
        "part",
    )


def rows_of_parts(rows: pl.DataFrame) -> dict[int, int]:
    """Index of a part -> how many of the rows lie in it, for parts that have some."""
    return dict(rows.group_by("part").len().iter_rows())


def stored_runs(store: Path, extra: Sequence[str] = ()) -> pl.DataFrame:
    """run_id, attempt, status, seconds, config_id, the extra columns of every stored run's winning
    row, in no order.

    Done are the runs whose status is ok or diverged. Empty for a store that is not there yet.
    """
    columns = {n: _TYPES[n] for n in (*_STORED, *extra)}

    def read() -> pl.DataFrame:
        parts = list_parts(Path(store))
        keys = short_keys(parts)
        rows = scan_without(losers(keys), rows_of_parts(keys), parts, pl.Schema(columns))
        with opening([part / RESULTS for part in parts]):
            return rows.collect()

    return retry_vanished(read)
