"""The SLURM jobs of plans: which job has which unit (`plans/<plan>.jobs.json`), which still run."""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from plugins import slurm
from plugins.atomic import publish_file
from plugins.reports import READING_SECONDS, UnitReport, is_silent, unit_reports

_ASK_EVERY = 10.0  # seconds between two calls of squeue
_MOST_PATIENT = 80.0  # seconds between two calls while they fail
_GONE = 2  # answers in a row without a job: one alone may miss a job that is being requeued


@dataclass(frozen=True)
class PlanJobs:
    """The SLURM jobs of one plan."""

    plan: str
    cluster: str
    submitted: float  # seconds since the epoch
    jobs: tuple[str, ...]  # of unit 0, 1, ...

    def units(self) -> list["JobUnit"]:
        return [
            JobUnit(self.plan, number, job, self.cluster, self.submitted)
            for number, job in enumerate(self.jobs)
        ]


class JobUnit(NamedTuple):
    """A unit that was given to SLURM."""

    plan: str
    number: int
    job: str
    cluster: str
    submitted: float


def write_jobs(store: Path, jobs: PlanJobs) -> None:
    text = json.dumps(asdict(jobs))
    publish_file(_file(store, jobs.plan), lambda aside: aside.write_text(text))


def read_jobs(store: Path, plan: str) -> PlanJobs | None:
    """None for a plan that was not given to SLURM."""
    path = _file(store, plan)
    try:
        values = json.loads(path.read_text())
        return PlanJobs(**{**values, "jobs": tuple(values["jobs"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged. Delete it: only that its jobs may still run is then not known"
        ) from error


def active_units(store: Path) -> list[JobUnit]:
    """Units of any plan of the store that SLURM still has, running or waiting."""
    plans = sorted(path.stem for path in store.glob("plans/*.parquet"))
    jobs = filter(None, (read_jobs(store, plan) for plan in plans))
    units = [unit for of_plan in jobs for unit in of_plan.units()]
    reports = reports_of(store, units)
    units = [unit for unit in units if not _is_complete(reports.get(unit))]
    answers = ask(units) or {}
    return [
        unit
        for unit in units
        if (answers[unit] if unit in answers else not _is_silent(unit, reports.get(unit)))
    ]


def reports_of(store: Path, units: Collection[JobUnit]) -> dict[JobUnit, UnitReport]:
    """The last reports of those units that have started."""
    plans = {plan: unit_reports(store, plan) for plan in {unit.plan for unit in units}}
    return {unit: r for unit in units if (r := plans[unit.plan].get(unit.number))}


def ask(units: Collection[JobUnit]) -> dict[JobUnit, str | None] | None:
    """Unit -> the state of its job, None when SLURM has it no more; another cluster's left out.

    None when SLURM does not answer.
    """
    try:
        here = [unit for unit in units if unit.cluster == slurm.cluster_name()]
        states = slurm.queue([unit.job for unit in here]) if here else {}
    except slurm.SlurmUnreachable:
        return None
    return {unit: states.get(unit.job) for unit in here}


class JobWatch:
    """Which of some units SLURM still has.

    A unit is over when it has reported the end of its last run, or when squeue has listed its job
    no more twice in a row. While there is no answer, a unit that has been silent for 15 minutes is
    over: there is no waiting for ever.
    """

    def __init__(self, store: Path, units: Iterable[JobUnit]):
        self._store = store
        self.units: list[JobUnit] = []  # all of them
        self._missing: dict[JobUnit, int] = {}  # not over -> answers in a row without it
        self.add(units)
        self._states: dict[JobUnit, str] = {}
        self._asked, self._interval = -math.inf, _ASK_EVERY

    def add(self, units: Iterable[JobUnit]) -> None:
        units = list(units)
        self.units += units
        self._missing |= dict.fromkeys(units, 0)

    def wait(self, end: float) -> None:
        """Wait until all units are over, or `time.monotonic()` is at `end`."""
        while self.active() and time.monotonic() < end:
            time.sleep(max(1.0, READING_SECONDS * len(self.units)))

    def active(self) -> list[JobUnit]:
        """The units that are not over; asks SLURM when it is time."""
        reports = reports_of(self._store, self._missing)
        for unit in list(self._missing):
            if _is_complete(reports.get(unit)):
                del self._missing[unit]
        if self._missing and time.monotonic() - self._asked >= self._interval:
            self._ask(reports)
        return list(self._missing)

    def summary(self) -> str:
        """ "; jobs: 4 RUNNING, 12 PENDING (Resources)", as last heard; nothing without jobs."""
        if not self._missing:
            return ""
        counts = Counter(self._states.get(unit, "submitted") for unit in list(self._missing))
        return "; jobs: " + ", ".join(f"{n} {state}" for state, n in counts.items())

    def _ask(self, reports: dict[JobUnit, UnitReport]) -> None:
        answers = ask(self._missing)
        self._asked = time.monotonic()
        if answers is not None:
            self._interval = _ASK_EVERY
        else:
            if self._interval == _ASK_EVERY:
                print("warning: SLURM does not answer; asking again", file=sys.stderr)
            answers, self._interval = {}, min(2 * self._interval, _MOST_PATIENT)
        for unit in list(self._missing):
            if unit not in answers:
                over = _is_silent(unit, reports.get(unit))
            elif answers[unit] is None:
                self._missing[unit] += 1
                over = self._missing[unit] >= _GONE
            else:
                self._missing[unit], over = 0, False
                self._states[unit] = answers[unit]
            if over:
                del self._missing[unit]


def _is_complete(report: UnitReport | None) -> bool:
    return report is not None and report.is_complete


def _is_silent(unit: JobUnit, report: UnitReport | None) -> bool:
    return is_silent(max(unit.submitted, report.updated if report else 0.0))


def _file(store: Path, plan: str) -> Path:
    return store / "plans" / f"{plan}.jobs.json"
