"""SIGKILL of worker processes while the driver waits for them: 20 kills."""

import os
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

SWEEP = ["seed=0..120", "model.width=1,2", "hydra.sweeper.max_stack=3"]
WORKERS = ["--workers=2"]
SUBMITIT = ["hydra/launcher=submitit_local", "hydra.sweeper.units=2"]  # 15 s to notice a kill
KILLS = 3 * 6 + 2


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "stores", "kills"), [(WORKERS, 3, 6), (SUBMITIT, 1, 2)])
def test_killed_workers_are_reported_and_their_runs_computed_again(
    tmp_path, launcher, stores, kills
):
    """One of two workers, or both, killed at a random moment of their work."""
    expected = undisturbed(tmp_path / "undisturbed", *SWEEP)
    args = [*SWEEP, "sleep=0.03", *launcher]

    def kill_again_and_again(number: int) -> int:
        rng = np.random.default_rng(number)
        store, stored, killed = tmp_path / f"killed-{number}", 0, 0
        while killed < kills:
            again = ["--rerun", "seed=0..120"] if stored > len(expected) / 2 else []
            process = SweepProcess(store, *args, *again)
            pids = process.worker_pids(2)
            time.sleep(rng.uniform(0, 1.6))  # there are two seconds of work for each
            victims = pids if rng.random() < 0.6 and kills - killed > 1 else pids[:1]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            killed += len(victims)
            out = process.finish()
            assert process.process.returncode == 1, out
            assert "a unit stopped" in out or launcher == SUBMITIT  # which may not tell
            assert n_stored(store) >= stored
            stored = n_stored(store)
        assert_completed(store, args, expected)
        return killed

    assert run_side_by_side(kill_again_and_again, stores) == stores * kills
