"""What units report, and what the display makes of it."""

import os
import subprocess
import sys
import time

import pytest

from plugins.progress import duration, progress_text
from plugins.reports import Progress, UnitReport, reporting, running_units, unit_reports


def test_a_plans_status_is_the_sum_of_its_units(tmp_path):
    with reporting(tmp_path, "plan", 0, 10) as one, reporting(tmp_path, "plan", 1, 20) as two:
        one.report.done, one.report.failed = 4, 1
        two.report.done, two.report.fraction, two.report.skipped = 3, 2.5, 3
        one.write(force=True)
        two.write(force=True)
        with reporting(tmp_path, "other", 0, 1):
            units = unit_reports(tmp_path, "plan")
            assert running_units(tmp_path) == 3
        sums = Progress.of(units.values())
        assert (sums.done, sums.failed, sums.fraction, sums.skipped) == (7, 1, 2.5, 3)
        assert {number: unit.total for number, unit in units.items()} == {0: 10, 1: 20}
        assert not any(unit.finished for unit in units.values())
    assert all(unit.finished for unit in unit_reports(tmp_path, "plan").values())
    assert running_units(tmp_path) == 0


def test_reports_are_written_at_most_once_a_second(tmp_path):
    with reporting(tmp_path, "plan", 0, 10) as reporter:
        reporter.report.done = 5
        reporter.write()
        assert unit_reports(tmp_path, "plan")[0].done == 0
    assert unit_reports(tmp_path, "plan")[0].done == 5


def test_a_report_that_cannot_be_read_is_left_out(tmp_path):
    with reporting(tmp_path, "plan", 0, 10):
        (tmp_path / "progress" / "plan-1.json").touch()
        assert list(unit_reports(tmp_path, "plan")) == [0]


def test_a_unit_that_raises_has_finished(tmp_path):
    with pytest.raises(RuntimeError), reporting(tmp_path, "plan", 0, 10):
        raise RuntimeError
    assert unit_reports(tmp_path, "plan")[0].finished


def test_a_dead_process_of_this_host_is_seen_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not UnitReport(1, pid=child.pid).is_alive()
    assert UnitReport(1, pid=os.getpid()).is_alive()
    elsewhere = UnitReport(1, pid=child.pid, host="elsewhere")
    assert elsewhere.is_alive()  # it reported just now
    elsewhere.updated -= 1000
    assert not elsewhere.is_alive()
    assert not UnitReport(1, finished=True).is_alive()


def test_skipped_runs_do_not_make_the_rate():
    now = time.time()
    one = UnitReport(60, done=30, skipped=20, fraction=5.0, started=now - 10)
    two = UnitReport(40, done=15, failed=2, diverged=1, started=now - 5)
    progress = Progress.of([one, two])
    assert progress.rate == pytest.approx(3, rel=1e-3)
    assert progress_text(progress, 100) == (
        "45/100 runs (50% of the work), 2 failed, 1 diverged, 3 runs/s, 17s left"
    )


def test_the_rate_of_units_that_ended_is_that_of_their_time():
    ended = UnitReport(50, done=50, finished=True, started=1000.0, updated=1010.0)
    assert Progress.of([ended]).rate == pytest.approx(5)
    assert Progress.of([]).rate == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (3.21, "3.2s"),
        (12.4, "12s"),
        (200, "3m20s"),
        (3720, "1h02m"),
        (90000, "25h00m"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
