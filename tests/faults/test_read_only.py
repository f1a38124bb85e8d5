"""A store on a file system that is mounted read-only: read as any other, refused before a run."""

import shutil
import sys

import pytest
from sweep_process import SweepProcess, results

from plugins import api

READ_ONLY = "Read-only file system"


@pytest.fixture
def frozen(disks, tmp_path):
    """Six runs in two parts: (the store that cannot be written, the same as others see it)."""
    store, mounted = tmp_path / "store", tmp_path / "frozen"
    for output, seeds in ((store, "0..4"), (tmp_path / "other", "4..6")):
        api.sweep("toy/trivial", [f"seed={seeds}"], output=output)
    shutil.copytree(tmp_path / "other" / "parts", store / "parts", dirs_exist_ok=True)
    mounted.mkdir()
    disks.mount("--bind", "-o", "ro", store, mounted)
    return mounted, disks.seen(mounted)


def sweep(disks, store, *args):
    process = SweepProcess(store, *args, before=[*disks.enter, sys.executable])
    out = process.finish()
    assert "Traceback" not in out
    return process.process.returncode, out


@pytest.mark.parametrize("args", [[], ["--workers=2"]])
@pytest.mark.parametrize("below", [".", "new"])
def test_sweep_into_a_read_only_store_starts_nothing(disks, frozen, below, args):
    folder, seen = frozen
    before = sorted(seen.rglob("*"))
    status, out = sweep(disks, folder / below, "seed=0..20", *args)
    assert status == 2
    assert f"error: cannot write to the store {folder / below}: " in out
    assert READ_ONLY in out
    assert sorted(seen.rglob("*")) == before


def test_sweep_that_a_read_only_store_holds_is_done(disks, frozen):
    folder, _ = frozen
    status, out = sweep(disks, folder, "seed=0..6")
    assert status == 0
    assert "planned 6, done before 6, " in out
    assert f"warning: the store was not compacted: cannot write to the store {folder}: " in out


def test_read_only_store_is_read(disks, frozen, tmp_path):
    folder, seen = frozen
    assert results(seen)["seed"].sort().to_list() == list(range(6))
    for command in (
        ["analysis", folder, "--y", "loss", "-o", tmp_path / "loss.png"],
        ["plugins.merge", folder, "-o", tmp_path / "merged"],
    ):
        done = disks.python("-m", *command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "loss.png").exists()
    assert results(tmp_path / "merged").equals(results(seen))


def test_writing_commands_name_the_read_only_store(disks, frozen, tmp_path):
    folder, _ = frozen
    for command in (
        ["plugins.merge", tmp_path / "store", "-o", folder / "merged"],
        ["plugins.merge", "--compact", folder],
        ["analysis", folder, "--y", "loss", "-o", folder / "loss.png"],
    ):
        done = disks.python("-m", *command)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert READ_ONLY in done.stderr
        assert str(folder) in done.stderr
