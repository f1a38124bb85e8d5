"""What a plan has done so far, from what its units report into the store directory."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from plugins.atomic import publish_file

_INTERVAL = 1.0  # seconds between two reports of a unit
_SILENCE = 900.0  # seconds without a report after which a unit of another host counts as dead


@dataclass
class UnitReport:
    """One unit's progress: `progress/<plan>-<unit>.json`, rewritten at most once a second."""

    total: int
    done: int = 0  # finished runs, whatever their status; skipped ones too
    skipped: int = 0  # of these, stored by somebody else before they were started here
    failed: int = 0
    diverged: int = 0
    fraction: float = 0.0  # of the runs in progress, in runs
    finished: bool = False
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    updated: float = field(default_factory=time.time)

    def is_alive(self) -> bool:
        """Whether the unit may still be running: seen on this host, guessed of another."""
        if self.finished:
            return False
        if self.host != socket.gethostname():
            return time.time() - self.updated < _SILENCE
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return True
        return True


@dataclass(frozen=True)
class PlanStatus:
    """Sums over the units that reported."""

    done: int
    skipped: int
    failed: int
    diverged: int
    fraction: float
    units: tuple[UnitReport, ...]


class Reporter:
    """Writes one unit's report."""

    def __init__(self, store: Path, plan: str, unit: int, total: int):
        self._path = _folder(store) / f"{plan}-{unit}.json"
        self.report = UnitReport(total)
        self._written = 0.0
        self.write(force=True)

    def write(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._written < _INTERVAL:
            return
        self._written, self.report.updated = now, time.time()
        text = json.dumps(asdict(self.report))
        publish_file(self._path, lambda aside: aside.write_text(text), durable=False)


@contextmanager
def reporting(store: Path, plan: str, unit: int, total: int) -> Iterator[Reporter]:
    """A Reporter whose last report says `finished`, whatever ended the unit."""
    reporter = Reporter(store, plan, unit, total)
    try:
        yield reporter
    finally:
        reporter.report.finished = True
        reporter.write(force=True)


def plan_status(store: Path, plan: str) -> PlanStatus:
    """The state of a plan as its units last reported it."""
    units = _reports(store, f"{plan}-*.json")
    return PlanStatus(
        done=sum(unit.done for unit in units),
        skipped=sum(unit.skipped for unit in units),
        failed=sum(unit.failed for unit in units),
        diverged=sum(unit.diverged for unit in units),
        fraction=sum(unit.fraction for unit in units),
        units=tuple(units),
    )


def running_units(store: Path) -> int:
    """Units of any plan that still run, as far as this host can tell."""
    return sum(unit.is_alive() for unit in _reports(store, "*.json"))


def _reports(store: Path, pattern: str) -> list[UnitReport]:
    """Reports that can be read; they are not made durable, so a crashed host may leave empty
    ones."""
    found = []
    for path in sorted(_folder(store).glob(pattern)):
        try:
            found.append(UnitReport(**json.loads(path.read_text())))
        except (json.JSONDecodeError, FileNotFoundError):
            continue
    return found


def _folder(store: Path) -> Path:
    return store / "progress"
