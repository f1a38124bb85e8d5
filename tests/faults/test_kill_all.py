"""SIGKILL of a driver and its workers together, or of the driver alone: 24 kills."""

import signal
import time

import numpy as np
import pytest
from sweep_process import (
    SweepProcess,
    assert_completed,
    descendants,
    is_running,
    n_stored,
    run_side_by_side,
    undisturbed,
)
from victims import moments

STORES, KILLS_OF_EACH = 4, 6
KILLS = STORES * KILLS_OF_EACH
SWEEP = ["seed=0..120", "model.width=1,2", "hydra.sweeper.max_stack=3"]
SECONDS = 8.0  # of a sweep by two workers


@pytest.mark.slow
def test_sweep_of_workers_killed_at_any_moment_is_completed_by_the_same_command(tmp_path):
    """All at once, as by a machine that fails; or the driver, whose workers then go on beside those
    of the next command."""
    expected = undisturbed(tmp_path / "undisturbed", *SWEEP)
    args = [*SWEEP, "sleep=0.05", "--workers=2"]
    when = moments(2, SECONDS, KILLS).reshape(STORES, KILLS_OF_EACH)

    def kill_again_and_again(number: int) -> int:
        store, stored, killed, orphans = tmp_path / f"killed-{number}", 0, 0, []
        for moment in np.append(when[number], when[number]):
            if killed == KILLS_OF_EACH:
                break
            again = ["--rerun", "seed=0..120"] if stored > len(expected) / 2 else []
            process = SweepProcess(store, *args, *again)
            time.sleep(moment)
            alone = killed % 3 == 0
            orphans += descendants(process.process.pid) if alone else []
            killed += process.strike(signal.SIGKILL, with_workers=not alone)
            process.process.communicate()
            assert n_stored(store) >= stored
            stored = n_stored(store)
        while any(map(is_running, orphans)):
            time.sleep(0.1)
        assert_completed(store, args, expected)
        return killed

    assert run_side_by_side(kill_again_and_again, STORES) == KILLS
