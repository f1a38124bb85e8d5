"""Ctrl-C: what is finished is stored, workers end, the same command goes on."""

import os
import signal
import time

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
