"""Two commands on one store at the same time, beside a compaction that never rests."""

import itertools
import signal

import pytest
from store_rows import CONFIG, write_runs
from sweep_process import SweepProcess, leftovers, results, undisturbed
from victims import Victim, fold, write

from plugins import api
from plugins.config_files import write_config
from plugins.fold import compact
from plugins.load import load_sweep
from plugins.parts import list_parts
from plugins.winners import read_keys

OPTIONS = ["model.width=1,2", "sleep=0.02", "hydra.sweeper.max_stack=3"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "workers"), [(0, []), (40, ["--workers=2"])])
def test_two_drivers_on_one_store(tmp_path, first, workers):
    """Both end with status 0; each run counts once, with the values that it has anyway."""
    store = tmp_path / "store"
    seeds = f"seed={first}..{first + 120}", "seed=0..120"
    drivers = [SweepProcess(store, seed, *OPTIONS, *workers) for seed in seeds]
    while not (store / "configs").exists():
        assert drivers[0].process.poll() is None
    folder = Victim(fold, store)
    outs = [driver.finish() for driver in drivers]
    assert folder.strike(signal.SIGKILL), "the compaction gave up"
    for driver, out in zip(drivers, outs, strict=True):
        assert driver.process.returncode == 0, out
        assert "Traceback" not in out
        assert "planned 240" in out
        assert "failed 0, missing 0" in out
    compact(store)
    assert read_keys(list_parts(store))["run_id"].is_unique().all()
    got = results(store)
    expected = undisturbed(tmp_path / "alone", f"seed=0..{first + 120}", "model.width=1,2")
    by = ["seed", "final_loss"]
    assert got.drop("run_id").sort(by).equals(expected.drop("run_id").sort(by))
    assert leftovers(store) == []


@pytest.mark.parametrize("module", ["driver", "load", "outcome", "winners", "worker"])
def test_parts_that_are_folded_between_listing_and_opening(tmp_path, monkeypatch, module):
    """Whoever lists them does so again, wherever that happens in a command."""
    api.sweep("toy/trivial", ["seed=0..2", "bad_seeds=[3]"], output=tmp_path)
    calls = itertools.count()

    def listing(store):
        write_runs(tmp_path, [0])
        parts = list_parts(store)
        if next(calls) % 2 == 0:
            compact(store)
        return parts

    monkeypatch.setattr(f"plugins.{module}.list_parts", listing)
    report = api.sweep("toy/trivial", ["seed=0..4", "bad_seeds=[3]"], output=tmp_path)
    assert (report.ok, report.failed, report.missing) == (1, 1, 0)
    assert report.first_error.endswith("seed 3 is bad")
    assert len(load_sweep(tmp_path)) == 4
    assert next(calls)


def test_commands_that_start_while_parts_come_and_go(tmp_path):
    """Planning, its notes and the report read a store whose parts are folded under them."""
    api.sweep("toy/trivial", ["seed=0..4"], output=tmp_path)
    write_config(tmp_path, CONFIG)
    others = [Victim(write, tmp_path, range(100_000), 1), Victim(fold, tmp_path)]
    for _ in range(15):
        report = api.sweep("toy/trivial", ["seed=0..4"], output=tmp_path)
        assert report.complete
    for other in others:
        assert other.strike(signal.SIGKILL)
