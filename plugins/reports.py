"""What units report of their progress while they run, into the store's folder `progress/`."""

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from plugins.atomic import publish_file
from plugins.slurm import own_job

READING_SECONDS = 0.01  # pause for each report that is read: hundreds of files on a network
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
    finished: bool = False  # it ended by itself, or was told to
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    job: str | None = field(default_factory=own_job)  # of SLURM
    started: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    def is_alive(self) -> bool:
        """Whether the unit may still be running: seen on this host, guessed of another."""
        if self.finished:
            return False
        if self.host != socket.gethostname():
            return not is_silent(self.updated)
        return is_local_process(self.host, self.pid)

    @property
    def is_complete(self) -> bool:
        """Whether each of its runs has ended."""
        return self.finished and self.done == self.total


@dataclass(frozen=True)
class Progress:
    """Sums over the units that reported."""

    done: int
    skipped: int
    failed: int
    diverged: int
    fraction: float
    rate: float  # runs a second since the first of them started

    @classmethod
    def of(cls, units: Iterable[UnitReport]) -> "Progress":
        units = list(units)
        sums = {
            name: sum(getattr(unit, name) for unit in units)
            for name in ("done", "skipped", "failed", "diverged", "fraction")
        }
        worked = sums["done"] - sums["skipped"] + sums["fraction"]
        end = (
            time.time()
            if any(unit.is_alive() for unit in units)
            else max((unit.updated for unit in units), default=0.0)
        )
        seconds = end - min((unit.started for unit in units), default=end)
        return cls(**sums, rate=worked / seconds if seconds > 0 else 0.0)


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
        with suppress(OSError):  # a full disk need not end the unit: rows may still fit
            publish_file(self._path, lambda aside: aside.write_text(text), durable=False)


@contextmanager
def reporting(store: Path, plan: str, unit: int, total: int) -> Iterator[Reporter]:
    """A Reporter whose last report says `finished`, whatever ended the unit."""
    reporter = Reporter(store, plan, unit, total)
    try:
        yield reporter
    except BaseException:  # perhaps before the last rows were published: not complete
        reporter.report.done = min(reporter.report.done, total - 1)
        raise
    finally:
        reporter.report.finished = True
        reporter.write(force=True)


def unit_reports(store: Path, plan: str) -> dict[int, UnitReport]:
    """Unit -> its last report, for the units of a plan that have started."""
    return {int(name.rpartition("-")[2]): unit for name, unit in _read(store, f"{plan}-*")}


def running_units(store: Path) -> int:
    """Units of any plan that still run, as far as this host can tell; without those of SLURM."""
    return sum(unit.is_alive() for _, unit in _read(store, "*") if unit.job is None)


def is_silent(updated: float) -> bool:
    """Whether nothing was heard for so long that a unit of another host counts as dead."""
    return time.time() - updated > _SILENCE


def is_local_process(host: str, pid: int) -> bool:
    """Whether the process exists; False for another host's."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _read(store: Path, pattern: str) -> Iterator[tuple[str, UnitReport]]:
    """(<plan>-<unit>, report); reports are not made durable, so a crashed host may leave empty
    ones."""
    for path in sorted(_folder(store).glob(f"{pattern}.json")):
        try:
            yield path.stem, UnitReport(**json.loads(path.read_text()))
        except (ValueError, TypeError, OSError):  # no JSON, of other code, replaced meanwhile
            continue


def _folder(store: Path) -> Path:
    return store / "progress"
