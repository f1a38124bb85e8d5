"""The progress display of a sweep: one for every launcher, fed by the units' reports."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from plugins.status import PlanStatus, plan_status

_POLL = 0.5  # seconds between two looks at the reports
_LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


@contextmanager
def showing(store: Path, plan: str, total: int) -> Iterator[None]:
    """Show a plan's progress on stderr while the context lasts: a bar on a terminal, else a line
    every 10 s."""
    console = Console(stderr=True)
    end = threading.Event()
    show = _bar if console.is_terminal else _lines
    thread = threading.Thread(target=show, args=(console, store, plan, total, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


class Pace:
    """Share done, runs per second and the time left of a plan."""

    def __init__(self, total: int):
        self._total, self._start = total, time.monotonic()

    def text(self, status: PlanStatus) -> str:
        """ "12/300 runs (31% of the work), 0 failed, 0 diverged, 4.1 runs/s, 1m10s left"; runs in
        progress count by the fraction that is done."""
        worked = status.done + status.fraction
        rate = (worked - status.skipped) / (time.monotonic() - self._start)
        left = duration((self._total - worked) / rate) if rate > 0 else "unknown"
        return (
            f"{status.done}/{self._total} runs ({worked / self._total:.0%} of the work), "
            f"{status.failed} failed, {status.diverged} diverged, {rate:.3g} runs/s, {left} left"
        )


def duration(seconds: float) -> str:
    """ "1h02m", "3m20s", "12s", "0.4s" """
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _bar(console: Console, store: Path, plan: str, total: int, end: threading.Event) -> None:
    pace = Pace(total)
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=total)
        while not end.wait(_POLL):
            status = plan_status(store, plan)
            progress.update(
                task, completed=status.done + status.fraction, description=pace.text(status)
            )


def _lines(console: Console, store: Path, plan: str, total: int, end: threading.Event) -> None:
    pace = Pace(total)
    while not end.wait(_LINE_EVERY):
        console.print(pace.text(plan_status(store, plan)), highlight=False, soft_wrap=True)
