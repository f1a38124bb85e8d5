"""Lazy scans of parts' files in one schema, without the rows that do not count."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from plugins.parts import RESULTS

_WIDEN = pl.ScanCastOptions(integer_cast=["upcast", "allow-float"], float_cast="upcast")


def scan_files(files: Sequence[Path], schema: pl.Schema, **options: str) -> pl.LazyFrame:
    """All rows; columns that a file lacks are null, narrower numbers are widened."""
    if not files:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        files,
        schema=schema,
        missing_columns="insert",
        cast_options=_WIDEN,
        glob=False,
        hive_partitioning=False,
        **options,
    )


def scan_without(
    lost: pl.DataFrame, keys: pl.DataFrame, parts: Sequence[Path], schema: pl.Schema
) -> pl.LazyFrame:
    """Results of `parts` without the `lost` rows; `keys` are all rows of `winners.read_keys`."""
    counts = (
        keys.group_by("part")
        .len("all")
        .join(lost.group_by("part").len("lost"), on="part", how="left")
    )
    whole = set(counts.filter(pl.col("lost").is_null())["part"])
    mixed = set(counts.filter(pl.col("lost") < pl.col("all"))["part"])
    frames = [scan_files([parts[i] / RESULTS for i in sorted(whole)], schema)]
    if mixed:
        # One scan for all of them: its row index runs over the files, in their order.
        rows = keys.filter(pl.col("part").is_in(list(mixed))).with_row_index("_row")
        indices = rows.join(lost, on=["part", "row"], how="semi")["_row"]
        files = [parts[i] / RESULTS for i in sorted(mixed)]
        frame = scan_files(files, schema, row_index_name="_row")
        frames.append(frame.filter(~pl.col("_row").is_in(indices.implode())).drop("_row"))
    return pl.concat(frames)
