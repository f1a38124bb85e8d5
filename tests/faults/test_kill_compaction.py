"""SIGKILL of a driver while it compacts."""

import shutil
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from sweep_process import SweepProcess, leftovers, results

from plugins import api
from plugins.config_files import read_configs
from plugins.load import load_sweep
from plugins.result import RunResult
from plugins.store import SweepWriter

KILLS = 20
N_RUNS = 240
PROVENANCE = {"experiment": "toy/trivial", "host": "h", "job": None, "code": None, "versions": "{}"}


@pytest.fixture
def many_parts(tmp_path):
    """A store of finished runs in as many parts, some with a loser: folding takes long."""
    api.sweep("toy/trivial", [f"seed=0..{N_RUNS}"], output=tmp_path / "source")
    frame = load_sweep(tmp_path / "source")
    store = tmp_path / "many"
    shutil.copytree(tmp_path / "source" / "configs", store / "configs")
    assert len(read_configs(store)) == 1
    for rows in (frame, frame[::6]):
        for row in rows.rows(named=True):
            with SweepWriter(store, "20260101T000000.0Z-0", PROVENANCE) as writer:
                result = RunResult(
                    {"final_loss": row["final_loss"]},
                    {"step": np.array(row["step"]), "loss": np.array(row["loss"], np.float32)},
                )
                writer.append(
                    row["index"],
                    row["run_id"],
                    row["config_id"],
                    {"seed": row["seed"]},
                    result,
                    datetime.now(UTC),
                    datetime.now(UTC),
                    0.1,
                )
    return store


@pytest.mark.slow
def test_compaction_killed_at_any_moment_loses_and_doubles_nothing(tmp_path, many_parts):
    expected = results(many_parts)
    assert len(expected) == N_RUNS
    assert len(list(many_parts.glob("parts/0*"))) == N_RUNS + N_RUNS / 6
    rng = np.random.default_rng(2)
    started = time.monotonic()
    SweepProcess(shutil.copytree(many_parts, tmp_path / "whole"), f"seed=0..{N_RUNS}").finish()
    length = time.monotonic() - started
    caught = 0
    for trial in range(KILLS):
        store = shutil.copytree(many_parts, tmp_path / f"killed-{trial}")
        process = SweepProcess(store, f"seed=0..{N_RUNS}")
        while not any(store.glob("parts/.*")) and process.process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3 * length))
        caught += process.process.poll() is None
        process.kill()
        assert results(store).equals(expected)
        assert "done before 240" in SweepProcess(store, f"seed=0..{N_RUNS}").finish()
        assert results(store).equals(expected)
        assert leftovers(store) == []
        shutil.rmtree(store)
    assert caught >= KILLS / 2
