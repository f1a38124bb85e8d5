"""What units report, and what the display makes of it."""

import os
import subprocess
import sys

import pytest

from plugins.progress import Pace, duration
from plugins.status import PlanStatus, UnitReport, plan_status, reporting, running_units


def test_a_plans_status_is_the_sum_of_its_units(tmp_path):
    with reporting(tmp_path, "plan", 0, 10) as one, reporting(tmp_path, "plan", 1, 20) as two:
        one.report.done, one.report.failed = 4, 1
        two.report.done, two.report.fraction, two.report.skipped = 3, 2.5, 3
        one.write(force=True)
        two.write(force=True)
        with reporting(tmp_path, "other", 0, 1):
            status = plan_status(tmp_path, "plan")
            assert running_units(tmp_path) == 3
        assert (status.done, status.failed, status.fraction, status.skipped) == (7, 1, 2.5, 3)
        assert not any(unit.finished for unit in status.units)
    assert all(unit.finished for unit in plan_status(tmp_path, "plan").units)
    assert running_units(tmp_path) == 0


def test_reports_are_written_at_most_once_a_second(tmp_path):
    with reporting(tmp_path, "plan", 0, 10) as reporter:
        reporter.report.done = 5
        reporter.write()
        assert plan_status(tmp_path, "plan").done == 0
    assert plan_status(tmp_path, "plan").done == 5


def test_a_report_that_cannot_be_read_is_left_out(tmp_path):
    with reporting(tmp_path, "plan", 0, 10):
        (tmp_path / "progress" / "plan-1.json").touch()
        assert len(plan_status(tmp_path, "plan").units) == 1


def test_a_unit_that_raises_has_finished(tmp_path):
    with pytest.raises(RuntimeError), reporting(tmp_path, "plan", 0, 10):
        raise RuntimeError
    assert plan_status(tmp_path, "plan").units[0].finished


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
    pace = Pace(100)
    pace._start -= 10  # ten seconds ago
    status = PlanStatus(done=45, skipped=20, failed=2, diverged=1, fraction=5.0, units=())
    assert pace.text(status) == (
        "45/100 runs (50% of the work), 2 failed, 1 diverged, 3 runs/s, 17s left"
    )


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
