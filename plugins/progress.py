"""The progress display of a sweep: one for every launcher, fed by the units' reports."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from plugins.reports import READING_SECONDS, Progress

_POLL = 0.5  # seconds between two looks at the reports
_LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


@contextmanager
def showing(look: Callable[[], tuple[Progress, str]], total: int, n_units: int) -> Iterator[None]:
    """Show the progress of `total` runs on stderr while the context lasts: a bar on a terminal,
    else a line every 10 s. `look` gives what the units report, and what else there is to say."""
    # In a notebook rich would write HTML, and take a kernel, which shows colours, for a terminal.
    console = Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty())
    end = threading.Event()
    show, pause = (_bar, _POLL) if console.is_terminal else (_lines, _LINE_EVERY)
    pause = max(pause, READING_SECONDS * n_units)
    thread = threading.Thread(target=show, args=(console, look, total, end, pause), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def progress_text(progress: Progress, total: int) -> str:
    """ "12/300 runs (31% of the work), 0 failed, 0 diverged, 4.1 runs/s, 1m10s left"; runs in
    progress count by the fraction that is done."""
    worked, rate = progress.done + progress.fraction, progress.rate
    left = duration((total - worked) / rate) if rate > 0 else "unknown"
    return (
        f"{progress.done}/{total} runs ({worked / total:.0%} of the work), "
        f"{progress.failed} failed, {progress.diverged} diverged, {rate:.3g} runs/s, {left} left"
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


def _bar(console: Console, look: Callable, total: int, end: threading.Event, pause: float) -> None:
    columns = (bars.BarColumn(), bars.TextColumn("{task.description}"))
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        while not end.wait(pause):
            progress, note = look()
            text = progress_text(progress, total) + note
            bar.update(task, completed=progress.done + progress.fraction, description=text)


def _lines(
    console: Console, look: Callable, total: int, end: threading.Event, pause: float
) -> None:
    while not end.wait(pause):
        progress, note = look()
        console.print(progress_text(progress, total) + note, highlight=False, soft_wrap=True)
