"""Folding: small parts, and parts with losing rows, become one larger part; then they go.

Nothing here needs a lock to be right: a row goes only after a larger one (`winners.judge`) is
visible, and a copy's part is larger than its source's, because its gen is.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from plugins.atomic import ABANDONED_SECONDS, file_clock
from plugins.columns import (
    ColumnConflict,
    conform,
    read_schemas,
    rows_per_group,
    union,
    write_file,
)
from plugins.parts import (
    RESULTS,
    drop,
    files_of,
    generation,
    list_parts,
    opening,
    part_order,
    publish,
    remove_leftovers,
    require_store,
    retry_vanished,
    size,
)
from plugins.winners import DONE, judge, losers, rows_of_parts, run_numbers, short_keys

SMALL_BYTES = 128 << 20  # smaller parts are folded
BIN_BYTES = 256 << 20  # into parts of about this size
LOSERS_SHARE = 0.25  # as are larger parts with more losing rows


def compact(store: Path) -> None:
    """Fold a store's small parts, drop losing rows, remove what crashes left behind.

    Safe beside writers, readers and other compactions; while another one of this store runs
    here, it returns at once. Raises FileNotFoundError for no store, CorruptPart for a part that
    cannot be read.
    """
    store = Path(store)
    require_store(store)
    with _lock(store / "parts") as free:
        if free:
            remove_leftovers(store)
            retry_vanished(lambda: fold_small(store, list_parts(store)))
            _remove_workdirs_of_done_runs(store)


def fold_small(store: Path, parts: Sequence[Path]) -> list[Path]:
    """Fold the small and the often beaten among `parts`; returns what then holds their rows.

    Raises PartVanished when a part is gone, with every row that counts still stored.
    """
    parts = sorted(parts, key=part_order)
    keys = short_keys(parts)
    rows, beaten = rows_of_parts(keys), rows_by_part(losers(keys), parts)
    del keys  # a million rows of them are not held while parts are copied
    left, candidates = [], []
    for index, part in enumerate(parts):
        share = len(beaten.get(part, ())) / rows.get(index, 1)
        if share == 1 or index not in rows:
            drop(part)
        elif size(part) < SMALL_BYTES or share > LOSERS_SHARE:
            candidates.append(part)
        else:
            left.append(part)
    for group in bins(candidates):
        if len(group) > 1 or group[0] in beaten:
            left.append(copy_rows(group, beaten, store))
            for part in group:
                drop(part)
        else:
            left += group
    return left


def bins(parts: Sequence[Path]) -> list[list[Path]]:
    """Neighbours that go into one part: up to BIN_BYTES, their columns of types that fit."""
    groups: list[list[Path]] = []
    weight, common = 0, {}  # of the last group: bytes, file name -> union of schemas
    for part in parts:
        weight += size(part)
        schemas = {file.name: schema for file, schema in read_schemas(files_of(part)).items()}
        try:
            if not groups or weight > BIN_BYTES:
                raise ColumnConflict
            common |= {
                name: union({"group": common.get(name, schema), part: schema})
                for name, schema in schemas.items()
            }
            groups[-1].append(part)
        except ColumnConflict:
            groups.append([part])
            weight, common = size(part), schemas
    return groups


def rows_by_part(rows: pl.DataFrame, parts: Sequence[Path]) -> dict[Path, pl.DataFrame]:
    groups = rows.select("part", "row").partition_by("part", as_dict=True)
    return {parts[index]: group for (index,), group in groups.items()}


def copy_rows(parts: Sequence[Path], lost: Mapping[Path, pl.DataFrame], store: Path) -> Path:
    """Publish one part in `store` with the rows and table rows of `parts`, without the lost ones.

    Raises PartVanished when one is gone before it was read.
    """
    files = [file for part in parts for file in files_of(part)]

    def write(folder: Path) -> None:
        for name in sorted({file.name for file in files}):
            schemas = read_schemas(file for file in files if file.name == name)
            schema = union(schemas)
            write_file(folder / name, schema, _batches(schemas, lost, schema))

    return publish(store, 1 + max(map(generation, parts)), write)


def read_batches(
    path: Path, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file in the schema, a row group's worth at a time; reads `columns`, or all."""
    with opening([path]), pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
        size = rows_per_group(file.metadata.num_rows, sum(g.total_byte_size for g in groups))
        for batch in file.iter_batches(batch_size=size, columns=columns):
            yield conform(batch, schema)


def _batches(
    files: Iterable[Path], lost: Mapping[Path, pl.DataFrame], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for path in files:
        beaten = _attempts(path.parent, lost.get(path.parent))
        for batch in read_batches(path, schema):
            if beaten is not None:
                is_lost = pc.is_in(batch.column("attempt"), value_set=beaten)
                batch = batch.filter(pc.invert(is_lost))
            if batch.num_rows:
                yield batch


def _attempts(part: Path, rows: pl.DataFrame | None) -> pa.Array | None:
    """The attempts of some of a part's rows; these are in its tables too."""
    if rows is None:
        return None
    with opening([part / RESULTS]):
        attempts = pq.read_table(part / RESULTS, columns=["attempt"])["attempt"]
    return attempts.take(rows["row"].to_arrow())


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """False while another process of this host has it; only saves work that would be repeated."""
    if not folder.is_dir():
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:  # NFS locks no folders
            free = True
        yield free
    finally:
        os.close(handle)


def _remove_workdirs_of_done_runs(store: Path) -> None:
    """Workdirs that a crash between a row's appearance and their removal left.

    A workdir touched after its run had finished may belong to a repetition that is under way: it
    stays for 24 hours.
    """
    left = list((store / "work").glob("*"))
    if not left:
        return
    winners, _ = retry_vanished(lambda: judge(short_keys(list_parts(store))))
    named = pl.col("run_id").is_in(run_numbers(left).implode())
    done = winners.filter(pl.col("status").is_in(DONE) & named)
    for number, finished in done.select("run_id", "finished").iter_rows():
        workdir = store / "work" / f"{number:016x}"
        try:
            touched = max(path.lstat().st_mtime for path in (workdir, *workdir.rglob("*")))
        except FileNotFoundError:  # in use or removed at this moment
            continue
        idle = file_clock(workdir.parent) - touched
        if idle > ABANDONED_SECONDS or datetime.fromtimestamp(touched, UTC) <= finished:
            shutil.rmtree(workdir, ignore_errors=True)
