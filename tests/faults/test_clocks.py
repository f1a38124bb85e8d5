"""Hosts whose clocks are apart: repetitions count, nothing of the living is tidied away."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shifted_clock
from sweep_process import SweepProcess, leftovers, results

from plugins.fold import compact
from plugins.load import load_sweep
from plugins.parts import list_parts
from plugins.winners import read_keys


def elsewhere(hours: float) -> list[str]:
    """What runs a script or a module on another host."""
    return [sys.executable, shifted_clock.__file__, str(hours)]


def sweep(store: Path, *args: str, hours: float | None = None) -> str:
    before = [sys.executable] if hours is None else elsewhere(hours)
    return SweepProcess(store, *args, before=before).finish()


@pytest.mark.parametrize("workers", [[], ["--workers=2"]])
def test_repetition_counts_although_the_first_clock_was_ahead(tmp_path, workers):
    sweep(tmp_path, "seed=0..4", hours=1)
    before = load_sweep(tmp_path).sort("seed")
    out = sweep(tmp_path, "seed=0..6", "--rerun", "seed=1..3", *workers)
    assert "planned 6, done before 2, ok 4, diverged 0, failed 0, missing 0\n" in out
    after = load_sweep(tmp_path).sort("seed")
    assert before["host"].unique().to_list() == ["elsewhere"]
    assert [host == "elsewhere" for host in after["host"]] == [1, 0, 0, 1, 0, 0]
    assert (after["finished"][1:3] > before["finished"][1:3]).all()
    assert "planned 6, done before 6, " in sweep(tmp_path, "seed=0..6")
    assert "planned 6, done before 5, ok 1, " in sweep(tmp_path, "seed=0..6", "--rerun", "seed=5")


def test_failure_that_is_repeated_is_no_missing_run(tmp_path):
    args = ["seed=0..4", "bad_seeds=[2]"]
    assert "ok 3, diverged 0, failed 1, missing 0\n" in sweep(tmp_path, *args, hours=1)
    assert "ok 0, diverged 0, failed 1, missing 0\n" in sweep(tmp_path, *args)
    [host] = load_sweep(tmp_path, status=("failed",))["host"]
    assert host != "elsewhere"


def test_hosts_two_hours_apart_share_a_store(tmp_path):
    """Their parts' names and times are in no common order."""
    args = ["seed=0..60", "sleep=0.02", "hydra.sweeper.max_stack=4"]
    drivers = [SweepProcess(tmp_path, *args, before=elsewhere(hours)) for hours in (-1, 1)]
    outs = [driver.finish() for driver in drivers]
    assert [driver.process.returncode for driver in drivers] == [0, 0], outs
    compact(tmp_path)
    assert results(tmp_path)["seed"].sort().to_list() == list(range(60))
    assert read_keys(list_parts(tmp_path)).height == 60
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("hours", [-48, 0, 48])
def test_only_what_is_old_by_the_file_systems_clock_is_abandoned(tmp_path, hours):
    """A part that a third host is writing, and one that it began to write 25 hours ago."""
    sweep(tmp_path, "seed=0..4")
    live, old = (
        tmp_path / "parts" / f".tmp-0000-20260101T000000000000-third-1-{n}-00000000" for n in (0, 1)
    )
    for folder in (live, old):
        folder.mkdir()
        (folder / "results.parquet").write_bytes(b"PAR1")
    day_ago = time.time() - 25 * 3600
    os.utime(old, (day_ago, day_ago))
    command = [*elsewhere(hours), "plugins.merge", "--compact", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert leftovers(tmp_path) == [str(live.relative_to(tmp_path))]
