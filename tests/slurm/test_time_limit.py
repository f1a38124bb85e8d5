"""Jobs that meet their time limit."""

import json

import pytest
from sweeps import finish, finish_with_requeues, start, toy

from plugins.load import load_sweep

pytestmark = pytest.mark.usefixtures("cluster")
ONE_MINUTE = ["--jobs=1", "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20"]


def test_a_unit_goes_on_after_its_time_limit_and_a_stack_that_never_fits_fails(tmp_path):
    """SLURM's signal comes up to a minute early, its limits are looked at every half minute."""
    often = "hydra.launcher.max_num_timeout=9"  # on a busy machine a minute is few runs
    long = start(tmp_path / "long", *toy(*ONE_MINUTE, often, "seed=0..60", "sleep=1"))
    never = start(tmp_path / "never", *toy(*ONE_MINUTE, "seed=0..4", "sleep=300"))
    once = [*ONE_MINUTE, "hydra.launcher.max_num_timeout=0", "seed=0..200", "sleep=1"]
    given_up = start(tmp_path / "given_up", *toy(*once))

    code, out = finish_with_requeues(long)
    assert (code, "ok 60, diverged 0, failed 0, missing 0" in out) == (0, True), out
    frame = load_sweep(tmp_path / "long")
    assert len(frame) == frame["seed"].n_unique() == 60
    restarts = {json.loads(job).get("SLURM_RESTART_COUNT", "0") for job in frame["job"]}
    assert restarts >= {"0", "1"}

    code, out = finish_with_requeues(never)
    assert (code, "ok 0, diverged 0, failed 4, missing 0" in out) == (1, True), out
    for error in load_sweep(tmp_path / "never", status=("failed",))["error"]:
        assert "time limit: 2 run(s) of one stack had the job's whole time" in error

    code, out = finish(given_up)
    stored = len(load_sweep(tmp_path / "given_up"))
    assert 0 < stored < 200
    assert (code, f"ok {stored}, diverged 0, failed 0, missing {200 - stored}" in out) == (1, True)
