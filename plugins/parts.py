"""Part directories of a store: their names and order, and how they appear, vanish and are read.

A part is a folder parts/<gen>-<utc>-<host>-<pid>-<n>-<random>/ of Parquet files. It appears
complete, by a rename, never changes, and disappears by a rename, so whoever lists it may read it.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from plugins.atomic import fsync, remove_abandoned, stamp

T = TypeVar("T")
RESULTS = "results.parquet"


class CorruptPart(ValueError):
    """A file of a part cannot be read."""


class PartVanished(FileNotFoundError):
    """A listed part was folded into a larger one before it was opened: list again."""


class CannotPublish(OSError):
    """A part could not be written: no space, no permission, a read-only file system."""


def require_store(store: Path) -> None:
    """Raises FileNotFoundError where nothing of a store lies; names stores below it."""
    if any((store / room).is_dir() for room in ("parts", "configs", "plans")):
        return
    if not store.is_dir():
        raise FileNotFoundError(f"there is no store {store}: no such folder")
    below = sorted(
        str(parts.parent)
        for depth in ("[!.]*", "*/[!.]*")  # hidden is what a killed merge left
        for parts in store.glob(f"{depth}/parts")
    )
    hint = f"; stores below it: {', '.join(below[:5])}" if below else ""
    raise FileNotFoundError(f"{store} is not a store: it has no parts/{hint}")


def list_parts(store: Path) -> list[Path]:
    """Visible parts in (gen, name) order; a part dropped meanwhile may be among them.

    Two listings in a row: one alone can pass the place of a fold's output before it appears and
    that of an input after it is gone.
    """
    folder = store.absolute() / "parts"
    names = {name for _ in range(2) for name in _names(folder) if re.match(r"\d+-", name)}
    return sorted((folder / name for name in names), key=part_order)


def part_order(part: Path) -> tuple[int, str, str]:
    """Sorts parts by (gen, name), those of several stores too."""
    return generation(part), part.name, str(part)


def generation(part: Path) -> int:
    return int(part.name.split("-", 1)[0])


def files_of(part: Path) -> list[Path]:
    """A part's files, listed at once: raises PartVanished rather than miss one of them."""
    with opening([part]):
        return sorted(part / name for name in os.listdir(part))


def size(part: Path) -> int:
    """Bytes of a part's files; 0 for one that is gone."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(part))
    except FileNotFoundError:
        return 0


def publish(store: Path, gen: int, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a hidden folder, make it durable, then visible. Returns the part.

    Raises CannotPublish naming the store, with nothing left behind.
    """
    folder = store.absolute() / "parts"
    part = folder / f"{gen:04d}-{stamp()}"
    aside = folder / f".tmp-{part.name}"
    try:
        aside.mkdir(parents=True)
        write(aside)
        for file in aside.iterdir():
            fsync(file)
        fsync(aside)
        aside.rename(part)
        fsync(folder)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, PartVanished) or not isinstance(error, OSError):
            raise
        reason = os.strerror(error.errno) if error.errno else error  # pyarrow's text is longer
        raise CannotPublish(f"cannot write to the store {store}: {reason}") from error
    return part


def drop(part: Path) -> None:
    """Hide a part, then delete it. One that is gone already is no error."""
    dead = part.with_name(f".dead-{part.name}")
    try:
        part.rename(dead)
    except FileNotFoundError:
        return
    shutil.rmtree(dead, ignore_errors=True)  # the next compaction removes what is left


def remove_leftovers(store: Path) -> None:
    """Finish interrupted drops; remove what killed writers left hidden in the store."""
    for dead in store.glob("parts/.dead-*"):
        shutil.rmtree(dead, ignore_errors=True)
    for room in ("parts", "configs", "plans", "progress"):
        remove_abandoned(store / room)


def retry_vanished(read: Callable[[], T], patience_seconds: float = 60) -> T:
    """`read()`, which lists and opens parts; again after growing waits while parts vanish.

    A network file system may list a dropped part for as long as its caches live.
    """
    wait, end = 0.01, time.monotonic() + patience_seconds
    while True:
        try:
            return read()
        except PartVanished:
            if time.monotonic() + wait > end:
                raise
        time.sleep(wait)
        wait *= 2


@contextmanager
def opening(files: Iterable[Path]) -> Iterator[None]:
    """Turn the errors of reading `files` into PartVanished or a CorruptPart naming the file."""
    try:
        yield
    except PartVanished:
        raise
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        files = list(files)
        for file in files:
            if not file.exists() or getattr(error, "errno", None) == errno.ESTALE:
                raise PartVanished(
                    f"{file} is listed and cannot be opened; if its folder is still there, "
                    f"delete the folder: the same command computes its runs again"
                ) from error
        for file in files:
            _check_readable(file)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _check_readable(file: Path) -> None:
    try:
        with pq.ParquetFile(file) as content:
            for _ in content.iter_batches(batch_size=1000):
                pass
            missing = {"run_id", "attempt"} - set(content.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # no permission, too many open files, ...
            raise
        reason = str(error).splitlines()[0]
    else:
        if not missing:
            return
        reason = f"it lacks {sorted(missing)}"
    raise CorruptPart(
        f"{file} cannot be read ({reason}). Delete the folder {file.parent}: "
        f"the same command then computes its runs again"
    )
