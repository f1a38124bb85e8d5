"""SIGKILL of a driver that computes its runs itself."""

import time

import numpy as np
import pytest
from sweep_process import SweepProcess, assert_completed, results, undisturbed

KILLS = 20
SWEEP = ["seed=0..120", "model.width=1,2", "hydra.sweeper.max_stack=3"]


@pytest.mark.slow
def test_sweep_killed_at_any_moment_is_completed_by_the_same_command(tmp_path):
    """From start-up to the last flush, on one store: rows only ever become more; at the end each
    planned run has one ok row, equal to those of an undisturbed sweep."""
    expected = undisturbed(tmp_path / "undisturbed", *SWEEP)
    store = tmp_path / "killed"
    args = [*SWEEP, "sleep=0.025"]  # sleep is a key of the run: its rows differ in run_id only
    rng = np.random.default_rng(0)
    killed, stored = 0, 0
    while killed < KILLS:
        again = ["--rerun", "seed=0..120"] if stored == len(expected) else []
        process = SweepProcess(store, *args, *again)
        time.sleep(rng.uniform(0.3, 7.5))
        if process.process.poll() is None:
            killed += 1
        process.kill()
        count = len(results(store)) if any(store.glob("parts/0*")) else 0
        assert count >= stored
        stored = count
    assert_completed(store, args, expected)
