"""A disk that fills up: what is published stays, the error says so, the same command goes on."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_rows import CONFIG, PROVENANCE, append, assert_holds, write_runs
from sweep_process import SweepProcess, leftovers, n_stored, results

from plugins.config_files import write_config
from plugins.fold import compact
from plugins.load import load_sweep
from plugins.parts import CannotPublish, list_parts
from plugins.result import RunResult
from plugins.runner import prepare, runner
from plugins.store import SweepWriter

N_RUNS = 60
SWEEP = [f"seed=0..{N_RUNS}", "steps=20000", "hydra.sweeper.max_stack=2"]  # 8 s, a flush after 5
FULL = "No space left on device"


@pytest.fixture
def disk(disks, tmp_path):
    """A disk of 4 MB: (its folder, the same as others see it)."""
    disks.mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path)
    return tmp_path, disks.seen(tmp_path)


def fill(disk: Path) -> Path:
    """A file that takes the last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return ballast


@pytest.mark.slow
@pytest.mark.parametrize(("sleep", "workers"), [("0.13", []), ("0.26", ["--workers=2"])])
def test_sweep_whose_disk_fills_up(disks, disk, sleep, workers):
    folder, seen = disk
    store = seen / "store"
    args = [*SWEEP, f"sleep={sleep}", *workers]
    before = [*disks.enter, sys.executable]
    process = SweepProcess(folder / "store", *args, before=before)
    while not (store.exists() and n_stored(store)):
        time.sleep(0.01)
    published = results(store)
    ballast = fill(seen)
    out = process.finish()
    assert process.process.returncode == 1, out
    assert f"error: cannot write to the store {folder / 'store'}: {FULL}\n" in out
    assert "Traceback" not in out
    assert out.count(FULL) <= 3  # two workers and the compaction
    kept = results(store)
    assert kept.join(published, on="run_id", how="semi").equals(published)
    assert f"ok {len(kept)}, diverged 0, failed 0, missing {N_RUNS - len(kept)}\n" in out
    assert leftovers(store) == []
    ballast.unlink()
    process = SweepProcess(folder / "store", *args, before=before)
    out = process.finish()
    assert f"done before {len(kept)}, ok {N_RUNS - len(kept)}, " in out
    assert process.process.returncode == 0, out
    assert results(store)["seed"].sort().to_list() == list(range(N_RUNS))


def test_sweep_that_finds_its_disk_full_starts_nothing(disks, disk):
    folder, seen = disk
    fill(seen)
    process = SweepProcess(folder / "store", "seed=0..3", before=[*disks.enter, sys.executable])
    out = process.finish()
    assert process.process.returncode == 2, out
    assert f"error: cannot write to the store {folder / 'store'}: " in out
    assert FULL in out
    assert "Traceback" not in out


def test_compaction_on_a_full_disk_leaves_the_store_as_it_was(disks, disk):
    folder, seen = disk
    write_runs(seen / "store", range(30), each=True)
    before = list_parts(seen / "store")
    ballast = fill(seen)
    for _ in range(2):
        done = disks.python("-m", "plugins.merge", "--compact", folder / "store")
        assert done.returncode == 1
        assert done.stderr == f"error: cannot write to the store {folder / 'store'}: {FULL}\n"
        assert list_parts(seen / "store") == before
        assert leftovers(seen) == []
        assert_holds(seen / "store", range(30))
    ballast.unlink()
    assert disks.python("-m", "plugins.merge", "--compact", folder / "store").returncode == 0
    assert len(list_parts(seen / "store")) == 1
    assert_holds(seen / "store", range(30))


def test_merge_onto_a_full_disk_writes_nothing(disks, disk, tmp_path_factory):
    folder, seen = disk
    inputs = tmp_path_factory.mktemp("inputs")
    write_runs(inputs / "a", range(20), each=True)
    write_runs(inputs / "b", range(10, 30), each=True)
    ballast = fill(seen)
    command = ["-m", "plugins.merge", inputs / "a", inputs / "b", "-o", folder / "both"]
    done = disks.python(*command)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert FULL in done.stderr
    assert str(folder) in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(seen) == ["ballast"]
    ballast.unlink()
    assert disks.python(*command).returncode == 0
    assert_holds(seen / "both", range(30))


def test_store_that_cannot_be_written_is_no_failure_of_a_run(tmp_path):
    """Its stack is not computed again, run by run, while the disk is full."""
    experiment = prepare("toy/trivial")

    def on_progress(fraction: float) -> None:
        raise CannotPublish(FULL)

    with pytest.raises(CannotPublish):
        runner(experiment)(experiment.schema(), {"seed": [0, 1]}, [tmp_path] * 2, on_progress)


def test_fold_without_space_ends_no_writer(disk):
    """The disk has room for the rows, and not for their copy: they are published, unfolded."""
    seen = disk[1]
    write_config(seen / "store", CONFIG)
    curve = np.random.default_rng(0).normal(size=5000)  # 40 kB that no compression shrinks
    ballast = seen / "ballast"
    ballast.write_bytes(bytes(3_000_000))
    with SweepWriter(seen / "store", "p", PROVENANCE, flush_seconds=0) as writer:
        for i in range(20):
            result = RunResult(curves={"step": np.arange(5000), "loss": curve + i})
            append(writer, i, outcome=result)
    assert len(list_parts(seen / "store")) == 20
    assert leftovers(seen) == []
    ballast.unlink()
    compact(seen / "store")
    assert load_sweep(seen / "store")["seed"].sort().to_list() == list(range(20))
    assert len(list_parts(seen / "store")) == 1
