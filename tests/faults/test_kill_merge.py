"""SIGKILL and SIGTERM of merges of two overlapping stores: 60 kills."""

import itertools
import os
import shutil
import signal
import time

import numpy as np
import pytest
from store_rows import assert_holds, dot_entries, write_runs
from victims import Victim, lifetime, moments, unite

from plugins.load import load_sweep
from plugins.merge import main

KILLS = 60
N_RUNS = 90


def files(*stores):
    """Everything that lies in them, with the time of its last change."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for store in stores
        for path in (store, *store.rglob("*"))
    }


@pytest.mark.slow
def test_killed_merge_wrote_its_output_whole_or_not_at_all(tmp_path):
    """The inputs stay as they are, and the same command succeeds over what the killed one left,
    which nobody takes for a store."""
    room = tmp_path / "room"
    inputs = room / "a", room / "b"
    write_runs(inputs[0], range(N_RUNS - 30), each=True)
    write_runs(inputs[1], range(N_RUNS - 60, N_RUNS), each=True, minute=1)
    (inputs[0] / "artifacts" / "0000000000000000").mkdir(parents=True)
    (inputs[0] / "artifacts" / "0000000000000000" / "weights").write_bytes(bytes(100_000))
    before = files(*inputs)
    output = room / "both"
    others = (tmp_path / f"whole-{n}" for n in itertools.count())
    length = lifetime(lambda: Victim(unite, inputs, next(others)))
    rng = np.random.default_rng(1)
    struck, left, whole = 0, 0, 0
    for moment in moments(0, 1.5 * length, 3 * KILLS):
        if struck == KILLS:
            break
        shutil.rmtree(output, ignore_errors=True)
        victim = Victim(unite, inputs, output)
        time.sleep(moment)
        struck += victim.strike(signal.SIGTERM if rng.random() < 0.3 else signal.SIGKILL)
        aside = [path for path in room.iterdir() if path not in (*inputs, output)]
        left += len(aside)
        assert [path.name for path in aside] in ([], [".tmp-both"])
        if output.exists():
            whole += 1
        else:
            with pytest.raises(FileNotFoundError, match=f"it: {inputs[0]}, {inputs[1]}$"):
                load_sweep(room)
            assert main([*map(str, inputs), "-o", str(output)]) == 0
        assert sorted(os.listdir(room)) == ["a", "b", "both"]
        assert_holds(output, range(N_RUNS))
        assert (output / "artifacts" / "0000000000000000" / "weights").stat().st_size == 100_000
        assert dot_entries(output) == []
        assert files(*inputs) == before
    assert struck == KILLS
    assert left  # some were met in the middle
