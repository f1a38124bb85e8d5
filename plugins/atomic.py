"""Files and folders that appear complete or not at all, and what killed writers leave of them.

Whatever is being written is hidden under the name .tmp-<stamp>, whose host and pid tell whether
its writer may still be alive.
"""

import itertools
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600
_HOST = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())  # a "-" would split the stamp
_numbers = itertools.count()


def stamp() -> str:
    """<utc>-<host>-<pid>-<n>-<random>, different at every call anywhere."""
    utc = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return f"{utc}-{_HOST}-{os.getpid()}-{next(_numbers)}-{secrets.token_hex(4)}"


def publish_file(path: Path, write: Callable[[Path], None], durable: bool = True) -> None:
    """Have `write` fill a hidden file, then give it its name, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".tmp-{stamp()}"
    try:
        write(aside)
        if durable:
            fsync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def remove_abandoned(folder: Path) -> None:
    """Remove what dead processes of this host left hidden in a folder.

    Of other hosts nothing is known: theirs go after 24 hours.
    """
    hidden = list(folder.glob(".tmp-*"))
    if not hidden:
        return
    now = file_clock(folder)
    for path in hidden:
        if not _is_abandoned(path, now):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def file_clock(folder: Path) -> float:
    """Now, as the folder's file system stamps files: a server's clock may be hours from ours."""
    os.utime(folder)  # unlike a new file it needs no space
    return folder.stat().st_mtime


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_abandoned(aside: Path, now: float) -> bool:
    try:
        if now - aside.stat().st_mtime > ABANDONED_SECONDS:
            return True
        head, pid, _, _ = aside.name.rsplit("-", 3)
        if head.rsplit("-", 1)[1] != _HOST:
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (FileNotFoundError, PermissionError):  # published or removed meanwhile; another user's
        return False
    return False
