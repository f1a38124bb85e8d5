"""SIGTERM and SIGHUP of a sweep end it as Ctrl-C does: 24 signals at any moment of its life."""

import json
import signal
import time

import pytest
from sweep_process import (
    SweepProcess,
    descendants,
    is_running,
    leftovers,
    run_side_by_side,
)
from victims import moments

STORES, KILLS_OF_EACH = 4, 6
KILLS = STORES * KILLS_OF_EACH
SWEEP = ["seed=0..400", "sleep=0.03", "hydra.sweeper.max_stack=4"]
SECONDS = 5.0  # of at least 7


@pytest.fixture(autouse=True)
def hang_ups_are_heard():
    """Also where these tests run under nohup: a sweep leaves ignored what it finds ignored."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, usual)


@pytest.mark.slow
def test_terminated_sweep_stores_what_is_finished_and_leaves_no_process(tmp_path):
    when = moments(3, SECONDS, KILLS).reshape(STORES, KILLS_OF_EACH)

    def terminate_again_and_again(number: int) -> int:
        store, workers = tmp_path / f"terminated-{number}", number % 2 * ["--workers=2"]
        to_all = number == 3  # as systemd does, and scancel --full
        for n, moment in enumerate(when[number]):
            process = SweepProcess(store, *SWEEP, *workers, "--rerun", "seed=0..400")
            time.sleep(moment)
            pids = [process.process.pid, *descendants(process.process.pid)]
            kind = signal.SIGTERM if n % 3 else signal.SIGHUP
            assert process.strike(kind, with_workers=to_all)
            out = process.finish()
            # OmegaConf's cleaning up may make another error of an interrupt that meets it.
            assert "Traceback" not in out or "runs planned" not in out
            assert not any(map(is_running, pids))
            reports = [
                json.loads(path.read_text())
                for path in set(store.glob("progress/*.json")) - process.known
            ]
            assert all(report["finished"] for report in reports)
            finished = sum(report["done"] - report["skipped"] for report in reports)
            if "planned 400, " in out:
                assert process.process.returncode == 128 + kind, out
                assert f"ok {finished}, " in out
            else:  # it had started nothing
                assert process.process.returncode in (128 + kind, -kind), out
            assert leftovers(store) == []
        return KILLS_OF_EACH

    assert run_side_by_side(terminate_again_and_again, STORES) == KILLS
