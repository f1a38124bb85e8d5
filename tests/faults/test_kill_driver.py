"""SIGKILL of `python sweep.py` that computes its runs itself: 32 kills."""

import signal
import time

import numpy as np
import pytest
from sweep_process import (
    SweepProcess,
    assert_completed,
    n_stored,
    run_side_by_side,
    undisturbed,
)
from victims import moments

STORES, KILLS_OF_EACH = 4, 8
KILLS = STORES * KILLS_OF_EACH
SWEEP = ["seed=0..120", "model.width=1,2", "hydra.sweeper.max_stack=3"]
SECONDS = 7.5  # of a sweep: start-up, 240 runs, compaction


@pytest.mark.slow
def test_sweep_killed_at_any_moment_is_completed_by_the_same_command(tmp_path):
    """From start-up to the last flush, again and again: a store's runs only ever become more; at
    the end each planned run has one ok row, equal to those of an undisturbed sweep."""
    expected = undisturbed(tmp_path / "undisturbed", *SWEEP)
    args = [*SWEEP, "sleep=0.025"]
    when = moments(0, SECONDS, KILLS).reshape(STORES, KILLS_OF_EACH)

    def kill_again_and_again(number: int) -> int:
        store, stored, killed = tmp_path / f"killed-{number}", 0, 0
        for moment in np.append(when[number], when[number]):
            if killed == KILLS_OF_EACH:
                break
            again = ["--rerun", "seed=0..120"] if stored > len(expected) / 2 else []
            process = SweepProcess(store, *args, *again)
            time.sleep(moment)
            killed += process.strike(signal.SIGKILL)
            process.finish()
            assert n_stored(store) >= stored
            stored = n_stored(store)
        assert_completed(store, args, expected)
        return killed

    assert run_side_by_side(kill_again_and_again, STORES) == KILLS
