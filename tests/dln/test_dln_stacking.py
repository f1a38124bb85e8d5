"""A stack that does not fit into memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from dln.stacking import halving

ROOT = Path(__file__).resolve().parents[2]
SCARCE = """
import resource, sys
sys.path.insert(0, "tests/dln")
from dln_cases import config, workdirs
from dln.train import run_stack

cfg = config(max_steps=2, num_evaluations=1, dtype="float64")
run_stack(cfg, {"training.batch_seed": range(2)}, workdirs(2))  # everything is loaded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28,) * 2)
runs = 2048  # of 168 kB of weights each: 344 MB, and as much again several times over
seen = []
results = run_stack(cfg, {"model.model_seed": range(runs)}, workdirs(runs), seen.append)
print(len(results), len({result.scalars["final_test_loss"] for result in results}))
print(len(seen) > 3, seen[-1])
alone = run_stack(cfg, {"model.model_seed": [1500]}, workdirs(1))[0]
print(abs(alone.scalars["final_test_loss"] / results[1500].scalars["final_test_loss"] - 1) < 1e-12)
"""


def test_a_stack_that_does_not_fit_is_trained_in_halves():
    """With a quarter of a gigabyte of address space left."""
    done = subprocess.run(
        [sys.executable, "-c", SCARCE], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2048", "2048", "True", "1.0", "True"]


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no")])
def test_other_errors_are_not_tried_again(error):
    calls = []

    @halving
    def run_stack(cfg, replicas, workdirs, on_progress=None):
        calls.append(len(workdirs))
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_stack(None, {}, [Path()] * 4)
    assert calls == [4]


def test_one_run_that_does_not_fit_fails():
    calls = []

    @halving
    def run_stack(cfg, replicas, workdirs, on_progress=None):
        calls.append(len(workdirs))
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        run_stack(None, {"training.lr": [1, 2, 3, 4]}, [Path()] * 4)
    assert calls == [4, 2, 1]
