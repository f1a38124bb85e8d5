"""Lazy scans of parts' files in one schema, without the rows that do not count."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from plugins.parts import RESULTS

_WIDEN = pl.ScanCastOptions(integer_cast=["upcast", "allow-float"], float_cast="upcast")


def scan_files(files: Sequence[Path], schema: pl.Schema, **options: str) -> pl.LazyFrame:
    """All rows in the schema: what a file lacks is null, narrower numbers are widened."""
    if not files:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        files,
        schema=schema,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=_WIDEN,
        glob=False,
        hive_partitioning=False,
        **options,
    )


def scan_without(
    lost: pl.DataFrame, counts: Mapping[int, int], parts: Sequence[Path], schema: pl.Schema
) -> pl.LazyFrame:
    """Results of `parts` without the `lost` rows of `winners.short_keys`.

    `counts` says how many rows each part has that has any, by its index.
    """
    losses = dict(lost.group_by("part").len().iter_rows())
    whole = [part for part in sorted(counts) if part not in losses]
    mixed = [part for part in sorted(losses) if losses[part] < counts[part]]
    frames = [scan_files([parts[i] / RESULTS for i in whole], schema)]
    if mixed:
        # One scan for all of them: its row index runs over the files, in their order.
        before = list(accumulate((counts[part] for part in mixed[:-1]), initial=0))
        first = pl.col("part").replace_strict(mixed, before, return_dtype=pl.UInt32)
        rows = lost.filter(pl.col("part").is_in(mixed)).select(first + pl.col("row")).to_series()
        files = [parts[i] / RESULTS for i in mixed]
        frame = scan_files(files, schema, row_index_name="_row")
        frames.append(frame.filter(~pl.col("_row").is_in(rows.implode())).drop("_row"))
    return pl.concat(frames)
