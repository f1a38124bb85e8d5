"""SIGKILL and SIGTERM of compactions of a store of many parts with losing rows: 60 kills."""

import itertools
import os
import shutil
import signal
import time

import numpy as np
import pytest
from store_rows import assert_holds, dot_entries, run_id, write_runs
from victims import Victim, lifetime, moments, tidy

from plugins.parts import list_parts
from plugins.winners import read_keys

KILLS = 60
N_RUNS = 120


@pytest.fixture
def many_parts(tmp_path):
    """Finished runs in a part each, then a repetition of some, then failures of others."""
    store = tmp_path / "many"
    write_runs(store, range(N_RUNS), each=True)
    write_runs(store, range(0, N_RUNS, 4), each=True, minute=1)
    write_runs(store, range(1, N_RUNS, 4), outcome=RuntimeError("lost"), minute=2)
    return store


@pytest.mark.slow
def test_killed_compactions_lose_and_double_nothing(tmp_path, many_parts):
    """After each kill all runs are there once; the next compaction, itself killed now and then,
    starts from what the last one left, and one that ends leaves a part and nothing hidden."""
    copies = (tmp_path / f"copy-{n}" for n in itertools.count())

    def copy():
        return shutil.copytree(many_parts, next(copies), copy_function=os.link)

    when = itertools.cycle(moments(0, lifetime(lambda: Victim(tidy, copy())), KILLS))
    rng = np.random.default_rng(1)
    struck, store = 0, None
    while struck < KILLS or store:
        store = store or copy()
        victim = Victim(tidy, store)
        time.sleep(next(when))
        killed = victim.strike(signal.SIGTERM if rng.random() < 0.3 else signal.SIGKILL)
        struck += killed
        assert_holds(store, range(N_RUNS))
        if not killed:
            [part] = list_parts(store)
            assert sorted(read_keys([part])["run_id"]) == [run_id(i) for i in range(N_RUNS)]
            assert dot_entries(store) == []
            store = None
    assert_holds(many_parts, range(N_RUNS))
