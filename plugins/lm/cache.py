"""A cache of folders named by what decides their content, shared by runs, sweeps and processes."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from plugins.atomic import fsync, stamp

_MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """`$DYNASCOPE_CACHE`, else `~/.cache/dynascope`."""
    return Path(os.environ.get("DYNASCOPE_CACHE") or Path.home() / ".cache" / "dynascope")


def cached(kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of `key`, filled by `build(folder)` when it is not there yet.

    `key` is JSON and holds everything that decides the bytes. The folder appears complete, by a
    rename; of two processes that build the same one, the later drops its copy. A folder whose
    files are not those of its manifest (a cleaned-up disk) is built anew, with a warning.
    """
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    folder = cache_folder() / kind / name
    if folder.is_dir():
        if _is_whole(folder, text):
            return folder
        warnings.warn(f"{folder} is damaged and is built again", stacklevel=2)
        damaged = folder.with_name(f".tmp-{stamp()}")
        with suppress(FileNotFoundError):  # somebody else is building it again
            folder.rename(damaged)
            shutil.rmtree(damaged)
    aside = folder.with_name(f".tmp-{stamp()}")
    aside.mkdir(parents=True)
    try:
        build(aside)
        (aside / _MANIFEST).write_text(json.dumps({"key": text, "sizes": _sizes(aside)}))
        for path in aside.rglob("*"):
            fsync(path)
        try:
            aside.rename(folder)
        except OSError:  # somebody else was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync(folder.parent)
    return folder


def _is_whole(folder: Path, text: str) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return manifest == {"key": text, "sizes": _sizes(folder)}


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file but the manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}
