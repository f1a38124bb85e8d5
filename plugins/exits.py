"""How a sweep ends: exit statuses and the last lines that a user sees."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from plugins.outcome import SweepReport


# Lines of OmegaConf's and Hydra's errors that tell a user nothing.
_OF_HYDRA = re.compile(r"\s*(full_key:|reference_type=|object_type=|provider=|Config search|See )")
_FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"  # as the user has it


def bad_input(error: Exception) -> NoReturn:
    """Exit status 2 with the error's text; HYDRA_FULL_ERROR=1 gives the stack trace."""
    if _FULL_ERROR:
        raise error
    lines: list[str] = []
    for line in f"{error}\n{error.__cause__ or ''}".splitlines():
        if line and not _OF_HYDRA.match(line) and not any(line in said for said in lines):
            lines.append(line)
    print("error: " + "\n".join(lines), file=sys.stderr)
    raise SystemExit(2)


def finish(report: "SweepReport", next_command: Callable[[Path], str], detached: bool) -> NoReturn:
    """Counts, time, the store and the next command; ends with the status that --help lists."""
    from plugins.progress import duration  # rich is not needed to print help

    print(report.counts())
    if report.diverged == report.planned:
        print("every run diverged: its curves end at the last finite record")
    if report.first_error:
        print(f"first error: {report.first_error}")
        print(f"all errors: load_sweep({str(report.store)!r}, status=('failed',))")
    for line in report.lost:
        print(line)
    if report.missing:
        folders = [name for name in ("logs", ".submitit") if (report.store / name).is_dir()]
        where = f"; logs: {' and '.join(f'{report.store}/{name}' for name in folders)}"
        print(f"missing runs left no row{where if folders else ''}")
    if report.jobs:
        ids = report.jobs
        if len(ids) > 10:
            ids = dict.fromkeys(job.partition("_")[0] for job in ids)
        print(f"{len(report.jobs)} jobs go on; to cancel them: scancel {' '.join(ids)}")
        print(f"to look: python -m plugins.status {report.store}")
        print("to finish: the same command, without --detach and --rerun; it waits for the jobs")
        print("and computes what is then missing")
    elif not report.complete:
        print("the same command computes only what failed or is missing")
    print(f"{duration(report.seconds)}, store: {report.store}")
    if report.ok or report.diverged or report.done_before:
        try:
            print(f"next: {next_command(report.store)}")
        except (ValueError, OSError) as error:
            print(f"warning: the store cannot be read: {error}", file=sys.stderr)
    if report.interrupted:
        raise SystemExit(130)
    if report.jobs:
        raise SystemExit(0 if detached else 4)
    raise SystemExit(0 if report.complete else 1)
