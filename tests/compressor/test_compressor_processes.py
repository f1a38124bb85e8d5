"""Runs of several ranks: their numbers, their errors, their ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from compressor_cases import config, die, fail, final, on_model, report_half, run

from compressor import train
from compressor.states import make_states
from plugins import api
from plugins.lm.ranks import launch


@pytest.fixture(autouse=True)
def cases_are_found_by_ranks(monkeypatch):
    folders = [str(Path(__file__).parent), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


def assert_rows_agree(found, expected):
    """1e-6 relative, of what adds the same numbers in another order."""
    assert found.curves["step"] == expected.curves["step"]
    for name in ("train_mse", "heldout_mse", "mode_strength", "lr"):
        a, b = (np.array(result.curves[name], float) for result in (found, expected))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)
    for name, value in expected.scalars.items():
        if name.startswith(("mse", "cos", "rel", "subspace", "best", "n_")):
            assert found.scalars[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds(tmp_path):
    """The last batch of an epoch has one token: nothing for the second rank."""
    replicas = {"train.seed": [0, 1], "train.lr": [1e-2, 2e-2], "model.d_compressed": [3, 4]}
    one, two = (
        run(config(processes=n, train={"batch": 57}), tmp_path / str(n), replicas) for n in (1, 2)
    )
    assert 400 % 57 == 1
    for expected, found in zip(one, two, strict=True):
        assert_rows_agree(found, expected)
        np.testing.assert_allclose(final(found), final(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_ranks_extract_the_same_states(gpt2, tmp_path, monkeypatch):
    states = []
    for processes in (1, 2):
        monkeypatch.setenv("DYNASCOPE_CACHE", str(tmp_path / str(processes)))
        states.append(make_states(on_model(gpt2, processes=processes, data={"n_seq": 21})))
        assert not list((tmp_path / str(processes) / "states").glob("*/*/"))  # no shards stay
    np.testing.assert_allclose(states[0].train, states[1].train, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states[0].heldout, states[1].heldout, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_ranks_go_on_with_what_one_process_began(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    changes = {"model": {"center": "mean"}, "train": {"objective": "relative"}}
    [expected] = run(config(**changes), tmp_path / "undisturbed")

    def stop(fraction):
        if fraction >= 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(config(**changes), tmp_path / "killed", on_progress=stop)
    [result] = run(config(processes=2, **changes), tmp_path / "killed")
    assert_rows_agree(result, expected)


def test_error_of_a_rank_is_its_own_not_that_of_those_who_wait_for_it():
    with pytest.raises(ValueError, match="what rank 1 says"):
        launch(fail, (1,), 2)


@pytest.mark.slow
def test_rank_that_is_killed_is_an_error():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="a rank of processes=2 died") as error:
        launch(die, (1,), 2)
    assert "SIGKILL" in str(error.value)
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_what_ends_the_run_ends_its_ranks():
    def stop(fraction):
        assert fraction == 0.5
        raise InterruptedError

    before = descendants(os.getpid())
    with pytest.raises(InterruptedError):
        launch(report_half, (), 2, stop)
    assert not set(descendants(os.getpid())) - set(before)


def descendants(pid):
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == pid:
            child = int(file.parent.name)
            found += [child, *descendants(child)]
    return found


def is_running(pid):
    """Not ended, nor a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc")
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_no_rank_outlives_its_run(root, tmp_path, kill):
    command = [sys.executable, str(root / "sweep.py"), "-cn=compressor", "lm.source=synthetic"]
    command += ["eval.downstream=false", "processes=2", "train.max_epochs=100000"]
    command += ["train.early_stopping=false", f"--output={tmp_path}"]
    sweep = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(found := descendants(sweep.pid)) < 3:  # torch's launcher and two ranks
        assert sweep.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    sweep.send_signal(kill)
    sweep.wait(60)
    end = time.monotonic() + 60
    while any(map(is_running, found)):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_runs_are_not_started_by_a_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"processes=N, without torchrun or accelerate launch"):
        api.sweep("compressor/compressor", ["lm.source=synthetic"], output=tmp_path)
    assert list(tmp_path.iterdir()) == []
