"""SIGKILL of worker processes while the driver waits for them."""

import os
import signal
import time

import numpy as np
import pytest
from sweep_process import SweepProcess, assert_completed, results, undisturbed

SWEEP = ["seed=0..120", "model.width=1,2", "hydra.sweeper.max_stack=3"]
SUBMITIT = ["hydra/launcher=submitit_local", "hydra.sweeper.units=2"]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "kills"), [(["--workers=2"], 20), (SUBMITIT, 4)])
def test_killed_workers_are_reported_and_their_runs_computed_again(tmp_path, launcher, kills):
    """One of two workers, or both, killed at a random moment of their work."""
    expected = undisturbed(tmp_path / "undisturbed", *SWEEP)
    store = tmp_path / "killed"
    args = [*SWEEP, "sleep=0.02", *launcher]
    rng = np.random.default_rng(1)
    killed, stored = 0, 0
    while killed < kills:
        again = ["--rerun", "seed=0..120"] if stored == len(expected) else []
        process = SweepProcess(store, *args, *again)
        try:
            pids = process.worker_pids(2)
        except AssertionError:  # one stack was left, so one unit
            process.finish()
            stored = len(results(store))
            continue
        time.sleep(rng.uniform(0, 2.0))
        victims = pids if rng.random() < 0.6 else pids[:1]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        out = process.finish()
        assert "missing" in out
        assert launcher == SUBMITIT or "a unit stopped" in out or "missing 0" in out
        count = len(results(store)) if any(store.glob("parts/0*")) else 0
        assert count >= stored, out
        if count < len(expected):
            assert process.process.returncode == 1, out
        stored = count
    assert_completed(store, args, expected)
