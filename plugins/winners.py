"""Which row of a run counts: one total order, applied alike by readers, folds and merges."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from plugins.parts import RESULTS, list_parts, opening, retry_vanished

DONE = ("ok", "diverged")
_KEYS = {
    "run_id": pl.String,
    "attempt": pl.String,
    "status": pl.String,
    "finished": pl.Datetime("us", "UTC"),
}


def read_keys(
    parts: Sequence[Path], extra: Mapping[str, pl.DataType] | None = None
) -> pl.DataFrame:
    """One row per stored row: run_id, attempt, status, finished, the extra columns, part, row.

    `part` is an index into `parts`, `row` the row's index in that part's file.
    """
    columns = {**_KEYS, **(extra or {})}
    files = [part / RESULTS for part in parts]
    if not files:
        return pl.DataFrame(schema={**columns, "part": pl.UInt32, "row": pl.UInt32})
    names = [str(file) for file in files]
    with opening(files):
        keys = pl.scan_parquet(
            names,
            schema=columns,
            extra_columns="ignore",
            glob=False,
            hive_partitioning=False,
            include_file_paths="part",
            row_index_name="row",
        ).collect()
    part = pl.col("part").cast(pl.Enum(names)).to_physical().cast(pl.UInt32)
    keys = keys.with_columns(part)
    return keys.with_columns(row=pl.col("row") - pl.col("row").min().over("part"))


def judge(keys: pl.DataFrame, prefer: pl.Expr | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(winners, losers) among the rows of `read_keys`; its parts are in (gen, name) order.

    A run's winner is done before failed, then by `prefer`, then the last finished, then the
    largest attempt; one attempt that lies in two parts counts in the part that is larger by
    (gen, name), which a fold drops after the smaller one.
    """
    doubled = pl.col("run_id").is_duplicated()
    rivals = keys.filter(doubled).sort(
        "run_id",
        pl.col("status").is_in(DONE),
        *([] if prefer is None else [prefer]),
        "finished",
        "attempt",
        "part",
    )
    beaten = (pl.col("run_id") == pl.col("run_id").shift(-1)).fill_null(False)
    winners = pl.concat([keys.filter(~doubled), rivals.filter(~beaten)])
    return winners, rivals.filter(beaten)


def stored_runs(store: Path) -> pl.DataFrame:
    """run_id, attempt, status, seconds, config_id of every stored run's winning row, in no order.

    Done are the runs whose status is ok or diverged. Empty for a store that is not there yet.
    """

    def read() -> pl.DataFrame:
        extra = {"seconds": pl.Float64, "config_id": pl.String}
        winners, _ = judge(read_keys(list_parts(Path(store)), extra))
        return winners.select("run_id", "attempt", "status", "seconds", "config_id")

    return retry_vanished(read)
