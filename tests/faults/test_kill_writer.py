"""SIGKILL and SIGTERM of writers, alone and beside a compaction without lock: 100 kills."""

import itertools
import signal
import time

import numpy as np
import pytest
from store_rows import CONFIG, assert_holds, dot_entries, run_id
from victims import Victim, fold, lifetime, moments, write

from plugins.config_files import write_config
from plugins.fold import compact
from plugins.load import load_sweep
from plugins.parts import list_parts
from plugins.winners import read_keys

ALONE, BESIDE_FOLDS = 60, 40
KILLS = ALONE + BESIDE_FOLDS
N_RUNS = 30


@pytest.mark.slow
@pytest.mark.parametrize(("beside_folds", "kills"), [(False, ALONE), (True, BESIDE_FOLDS)])
def test_killed_writers_lose_and_double_nothing(tmp_path, beside_folds, kills):
    """What a writer said was published is there once, whole and with its table rows; after SIGTERM
    so is what it had appended. The next writer goes on from there, to the exact end."""
    stores = (tmp_path / f"store-{n}" for n in itertools.count())
    length = lifetime(lambda: Victim(write, next(stores), range(N_RUNS), 2))
    when = itertools.cycle(moments(0, length, kills))
    rng = np.random.default_rng(1)
    struck, store, safe = 0, None, set()
    while struck < kills or store:
        if store is None:
            store, safe = next(stores), set()
            write_config(store, CONFIG)
        folder = Victim(fold, store) if beside_folds else None
        writer = Victim(write, store, range(N_RUNS), int(rng.integers(1, 4)))
        number = signal.SIGTERM if rng.random() < 0.3 else signal.SIGKILL
        time.sleep(next(when))
        killed = writer.strike(number)
        struck += killed + (folder.strike(signal.SIGKILL) if folder else 0)
        for what, runs in writer.heard():
            if what == "published" or number == signal.SIGTERM:
                safe.update(runs)
        runs = set(load_sweep(store)["seed"]) if (store / "parts").exists() else set()
        assert safe <= runs
        if runs:
            assert_holds(store, runs)
        safe = runs
        if not killed:
            assert safe == set(range(N_RUNS))
            compact(store)
            assert dot_entries(store) == []
            ids = read_keys(list_parts(store))["run_id"]
            assert sorted(ids) == [run_id(i) for i in range(N_RUNS)]
            store = None
