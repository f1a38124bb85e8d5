"""Clusters that take fewer jobs than a sweep asks for."""

import pytest
from sweeps import sweep, toy


@pytest.mark.parametrize(
    ("setting", "most"),
    [
        ("MaxArraySize=4", 3),
        # sbatch tries for two minutes before it gives up
        pytest.param("MaxJobCount=5", 5, marks=pytest.mark.long),
    ],
)
def test_too_many_jobs_are_refused_with_the_limit(second_cluster, tmp_path, setting, most):
    key, _, value = setting.partition("=")
    second_cluster.up(settings={key: value})
    environment = {"SLURM_CONF": str(second_cluster.conf)}
    code, out = sweep(tmp_path, *toy("--jobs=8", "seed=0..16"), **environment)
    assert code == 3, out
    assert f"8 jobs were asked for, and this cluster takes at most {most} of one sweep" in out
    assert setting in out
    assert "Traceback" not in out
    code, out = sweep(tmp_path, *toy("--jobs=3", "seed=0..16"), **environment)
    assert (code, "ok 16" in out) == (0, True), out
