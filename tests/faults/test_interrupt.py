"""Ctrl-C: what is finished is stored, workers end, the same command goes on."""

import os
import signal
import time
from pathlib import Path

import pytest
from sweep_process import SweepProcess, leftovers, results

SWEEP = ["seed=0..400", "sleep=0.02", "hydra.sweeper.max_stack=4"]


@pytest.mark.parametrize("workers", [[], ["--workers=2"]])
def test_interrupted_sweep_keeps_what_it_has(tmp_path, workers):
    process = SweepProcess(tmp_path, *SWEEP, *workers)
    pids = process.worker_pids(len(workers) + 1)
    time.sleep(1)
    process.process.send_signal(signal.SIGINT)
    out = process.finish()
    assert process.process.returncode == 130, out
    stored = len(results(tmp_path))
    assert 0 < stored < 400
    assert f"ok {stored}" in out
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert leftovers(tmp_path) == []
    logs = [path.read_text() for path in tmp_path.glob("logs/*.log")]
    assert len(logs) == 2 * len(workers)
    assert all("KeyboardInterrupt" in log for log in logs)
    assert "Traceback" not in out


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.3])
def test_an_interrupt_soon_after_the_start_ends_every_unit(tmp_path, delay):
    """Also one that has its orders and has not reported yet."""
    process = SweepProcess(tmp_path, *SWEEP, "--workers=2")
    while not any(tmp_path.glob("plans/*.parquet")):
        time.sleep(0.001)
    time.sleep(delay)
    process.process.send_signal(signal.SIGINT)
    out = process.finish()  # waits for every process that holds the output
    assert process.process.returncode == 130, out
    assert len(list(tmp_path.glob("parts/*"))) <= 1  # 400 runs take 4 s


def test_an_interrupt_while_planning_ends_without_a_traceback(tmp_path):
    process = SweepProcess(tmp_path, *SWEEP, "--workers=2")
    pid = process.process.pid
    while not Path(f"/proc/{pid}/task/{pid}/children").read_text():  # the workers, waiting
        time.sleep(0.001)
    process.process.send_signal(signal.SIGINT)
    out = process.finish()
    assert process.process.returncode == 130, out
    assert "Traceback" not in out
