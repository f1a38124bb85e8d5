"""Crashes at each change of the disk, and races: no published row is lost or doubled."""

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import store_rows
from store_rows import (
    CONFIG,
    PROVENANCE,
    STEPS,
    append,
    assert_holds,
    dot_entries,
    run_id,
    write_runs,
)

from plugins.config_files import write_config
from plugins.fold import copy_rows, fold_small, rows_by_part
from plugins.load import load_sweep, load_table
from plugins.merge import compact
from plugins.parts import PartVanished, drop, list_parts, retry_vanished
from plugins.store import SweepWriter
from plugins.winners import judge, read_keys


class Died(BaseException):
    pass


@contextmanager
def dying_at(step: int):
    """At the step-th change of the disk, and at all later ones, nothing happens any more.

    Yields a list that is empty until then. The process seems to be one that has ended.
    """
    count, died = itertools.count(), []

    def dies(function):
        def call(*args, **kwargs):
            if died or next(count) == step:
                died.append(True)
                raise Died
            return function(*args, **kwargs)

        return call

    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        for owner, name in STEPS:
            patch.setattr(owner, name, dies(getattr(owner, name)))
        with suppress(Died):
            yield died


@pytest.fixture
def small_store(tmp_path) -> Path:
    """Runs 0..3 in three parts, the first with a losing row of run 1, the last with one of 2."""
    store = tmp_path / "store"
    write_runs(store, [0, 1])
    write_runs(store, [1, 2], minute=1)
    write_runs(store, [2], outcome=RuntimeError("lost"), minute=2)
    write_runs(store, [3])
    return store


def steps_until_done(store: Path, action) -> int:
    for step in itertools.count():
        copy = store.with_name("dry")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        with dying_at(step) as died:
            action(copy)
        if not died:
            return step


def test_compaction_that_dies_anywhere_and_again_loses_and_doubles_nothing(small_store):
    n = steps_until_done(small_store, compact)
    assert n > 15
    for first, again in itertools.product(range(n), range(0, n, 3)):
        store = small_store.with_name("copy")
        shutil.copytree(small_store, store)
        with dying_at(first):
            compact(store)
        with dying_at((first + again) % n):
            compact(store)
        assert_holds(store, range(4))
        if again == 0:
            compact(store)
            assert dot_entries(store) == []
            assert raw_run_ids(store) == [run_id(i) for i in range(4)]
            assert_holds(store, range(4))
        shutil.rmtree(store)


def test_flush_that_dies_anywhere_publishes_all_or_nothing(small_store):
    """Results and tables appear together; a crash after that leaves a workdir, no more."""

    def flush(store):
        with SweepWriter(store, "p", PROVENANCE) as writer:
            append(writer, 4)
            append(writer, 5)

    outcomes = set()
    for step in range(steps_until_done(small_store, flush) + 1):
        store = small_store.with_name("copy")
        shutil.copytree(small_store, store)
        with dying_at(step):
            flush(store)
        runs = len(load_sweep(store))
        outcomes.add(runs)
        assert_holds(store, range(runs))
        with dying_at(step):
            compact(store)
        assert_holds(store, range(runs))
        compact(store)
        assert dot_entries(store) == []
        assert_holds(store, range(runs))
        shutil.rmtree(store)
    assert outcomes == {4, 6}


@pytest.mark.parametrize("step", range(0, 24, 3))
def test_process_that_exits_inside_a_compaction_loses_and_doubles_nothing(small_store, step):
    code = subprocess.run(command("compact_until", small_store, step), check=False).returncode
    assert code in (0, 9)
    assert_holds(small_store, range(4))
    compact(small_store)
    assert dot_entries(small_store) == []
    assert raw_run_ids(small_store) == [run_id(i) for i in range(4)]
    assert_holds(small_store, range(4))


def test_two_folders_two_writers_and_a_reader(tmp_path):
    """No lock anywhere: what is visible never falls, and the end is exact."""
    write_config(tmp_path, CONFIG)
    folders = [start("fold_forever", tmp_path) for _ in range(2)]
    reader = start("read_until", tmp_path, 240)
    writers = [start("write_some", tmp_path, 120 * k, 120) for k in range(2)]
    try:
        for process in (*writers, reader):
            _, errors = process.communicate(timeout=80)
            assert process.returncode == 0, errors
        assert all(folder.poll() is None for folder in folders), "a folder gave up"
    finally:
        for process in (*folders, *writers, reader):
            process.kill()
            process.communicate()
    assert_holds(tmp_path, range(240))
    compact(tmp_path)
    assert dot_entries(tmp_path) == []
    assert raw_run_ids(tmp_path) == [run_id(i) for i in range(240)]
    assert_holds(tmp_path, range(240))


def test_copy_counts_before_its_source(tmp_path, monkeypatch):
    """The gen race: folder 2 folds the copy that folder 1 has made of a source,
    while folder 1 drops the source. It must take the source's rows for the losers."""
    write_runs(tmp_path, [0, 1])
    write_runs(tmp_path, [2])
    sources = list_parts(tmp_path)

    class Slow(datetime):  # the clock of folder 1's host
        @classmethod
        def now(cls, zone):
            return datetime.now(zone) - timedelta(hours=1)

    monkeypatch.setattr("plugins.atomic.datetime", Slow)
    copy_rows(sources, {}, tmp_path)  # folder 1, before its drops
    seen = list_parts(tmp_path)  # folder 2
    _, losers = judge(read_keys(seen))
    assert {seen[index] for index in losers["part"]} == set(sources)
    for part in sources:  # folder 1 goes on
        drop(part)
    beaten = rows_by_part(losers, seen)
    kept = [part for part in seen if part not in beaten]
    copy_rows(kept, beaten, tmp_path)  # folder 2 goes on
    for part in kept:
        drop(part)
    assert_holds(tmp_path, range(3))


def test_fold_of_a_part_that_vanished_publishes_nothing(tmp_path):
    write_runs(tmp_path, [0])
    write_runs(tmp_path, [1])
    parts = list_parts(tmp_path)
    drop(parts[0])
    with pytest.raises(PartVanished):
        copy_rows(parts, {}, tmp_path)
    assert dot_entries(tmp_path) == []
    assert list_parts(tmp_path) == parts[1:]


def test_reader_lists_again_when_a_part_vanishes_under_it(tmp_path, monkeypatch):
    write_runs(tmp_path, [0])
    write_runs(tmp_path, [1])
    seen = []

    def listing(store):
        parts = list_parts(store)
        if not seen:
            compact(store)  # between the listing and the opening
        seen.append(parts)
        return parts

    monkeypatch.setattr("plugins.load.list_parts", listing)
    assert len(load_sweep(tmp_path)) == 2
    assert [len(parts) for parts in seen] == [2, 1]


def test_listing_that_passes_a_fold_misses_no_part(tmp_path, monkeypatch):
    """One listing sees neither the fold's output (not yet) nor its input (no longer)."""
    listings = iter([["0000-other"], ["0000-other", "0001-output"]])
    monkeypatch.setattr("plugins.parts._names", lambda folder: next(listings))
    assert [part.name for part in list_parts(tmp_path)] == ["0000-other", "0001-output"]


def test_part_that_stays_gone_is_an_error_in_the_end():
    calls = []

    def read():
        calls.append(None)
        raise PartVanished("parts/x is listed and cannot be opened")

    with pytest.raises(PartVanished, match="parts/x"):
        retry_vanished(read, patience_seconds=0.2)
    assert len(calls) > 3


def test_compaction_leaves_at_once_while_another_one_runs(tmp_path):
    write_runs(tmp_path, range(3), each=True)
    handle = os.open(tmp_path / "parts", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    compact(tmp_path)
    assert len(list_parts(tmp_path)) == 3
    os.close(handle)
    compact(tmp_path)
    assert len(list_parts(tmp_path)) == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_winner_is_done_then_latest_then_largest_attempt(tmp_path, order):
    """Whatever the order in which attempts were stored, and however they were folded."""
    attempts = [
        (RuntimeError("late"), 9),
        (store_rows.result(0, value=1.0), 1),
        (store_rows.result(0, value=2.0), 3),
        (RuntimeError("first"), 0),
    ]
    for i in order:
        outcome, minute = attempts[i]
        write_runs(tmp_path, [0], outcome=outcome, minute=minute)

    def winner():
        [row] = load_sweep(tmp_path, status=["ok", "diverged", "failed"]).rows(named=True)
        notes = load_table(tmp_path, name="notes")["note"].to_list()
        return row["status"], row["final"], notes

    expected = ("ok", 2.0, ["2.0 a", "2.0 b"])
    assert winner() == expected
    fold_small(tmp_path, list_parts(tmp_path)[1:3])
    assert winner() == expected
    compact(tmp_path)
    assert winner() == expected
    assert raw_run_ids(tmp_path) == [run_id(0)]


def test_equal_times_are_decided_by_the_attempt(tmp_path):
    write_runs(tmp_path, [0] * 3, each=True)
    attempts = read_keys(list_parts(tmp_path))["attempt"]
    assert load_sweep(tmp_path)["attempt"].to_list() == [attempts.max()]
    compact(tmp_path)
    assert load_sweep(tmp_path)["attempt"].to_list() == [attempts.max()]


def test_compaction_folds_in_bins_and_leaves_large_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("plugins.fold.SMALL_BYTES", 20_000)
    monkeypatch.setattr("plugins.fold.BIN_BYTES", 40_000)
    write_runs(tmp_path, range(12), each=True)
    sizes = [sum(f.stat().st_size for f in part.iterdir()) for part in list_parts(tmp_path)]
    compact(tmp_path)
    assert len(list_parts(tmp_path)) == -(-12 // (40_000 // max(sizes)))
    assert_holds(tmp_path, range(12))
    monkeypatch.setattr("plugins.fold.SMALL_BYTES", 0)
    before = list_parts(tmp_path)
    compact(tmp_path)
    assert list_parts(tmp_path) == before
    write_runs(tmp_path, range(1), minute=1)  # one loser of several: below 25 %
    compact(tmp_path)
    assert set(before) < set(list_parts(tmp_path))
    write_runs(tmp_path, range(2), minute=2)  # two of the first part's: above
    compact(tmp_path)
    assert set(before[1:]) == set(before) & set(list_parts(tmp_path))
    write_runs(tmp_path, range(12), minute=3)  # all lose
    compact(tmp_path)
    assert len(list_parts(tmp_path)) == 1
    assert_holds(tmp_path, range(12))


def raw_run_ids(store: Path) -> list[str]:
    files = [part / "results.parquet" for part in list_parts(store)]
    return sorted(pl.concat(pl.read_parquet(file, columns=["run_id"]) for file in files)["run_id"])


def command(role: str, store: Path, *numbers: int) -> list[str]:
    return [sys.executable, store_rows.__file__, role, str(store), *map(str, numbers)]


def start(role: str, store: Path, *numbers: int) -> subprocess.Popen:
    return subprocess.Popen(
        command(role, store, *numbers), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
