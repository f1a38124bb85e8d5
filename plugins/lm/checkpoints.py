"""Checkpoints of a run in its workdir: what it takes to go on after an interruption."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Checkpoints:
    """One file per epoch, or step, that is saved; the newest that can be read counts."""

    def __init__(self, workdir: Path, unit: str, keep: str | None, origin: Sequence[str]):
        """`unit` names the files: "epoch", "step"; keep: last, all, None (none).

        `origin`: digests of the data and of the initial weights. Files of a text or a model of the
        same path that have changed since an earlier attempt are others.
        """
        name = "-".join(digest[:8] for digest in origin)
        self._unit, self._keep = unit, keep
        self._folder = workdir / "checkpoints" / name

    def save(self, n: int, state: Mapping[str, Any]) -> None:
        """Appears complete, by a rename. Of keep=last the one before stays, should this be damaged
        later."""
        if self._keep is None:
            return
        import torch

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._unit}-{n:05d}.pt"
        aside = path.with_suffix(".tmp")
        with open(aside, "wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        if self._keep == "last":
            for old in self.files()[:-2]:
                old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, None to start anew; damaged ones are named."""
        import torch

        for path in reversed(self.files()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, MemoryError):  # it may be whole
                raise
            except Exception as error:  # torch raises what the damage provokes, of many types
                print(f"warning: {path} is damaged and left out: {error!r:.200}", file=sys.stderr)
                path.rename(path.with_suffix(".damaged"))
        return None

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._folder.glob(f"{self._unit}-*.pt"))
