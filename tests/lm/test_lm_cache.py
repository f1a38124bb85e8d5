"""The cache of folders: built once, never half, again when damaged."""

import json
import multiprocessing
import time

import pytest

from plugins.lm.cache import cache_folder, cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNASCOPE_CACHE", str(tmp_path))


def write(text):
    return lambda folder: (folder / "text").write_text(text)


def refuse(folder):
    raise AssertionError("built again")


def test_equal_keys_build_once_others_apart():
    first = cached("texts", {"a": 1, "b": [2.5]}, write("x"))
    assert cached("texts", {"b": [2.5], "a": 1}, refuse) == first
    others = [{"a": 1}, {"a": 1, "b": [2]}, {"a": "1", "b": [2.5]}]
    folders = {cached("texts", key, write("y")) for key in others}
    folders.add(cached("other", {"a": 1, "b": [2.5]}, write("z")))
    assert len(folders | {first}) == 5
    assert (first / "text").read_text() == "x"


def test_failed_build_leaves_nothing():
    with pytest.raises(OSError, match="no space"):
        cached("texts", {"a": 1}, lambda folder: (_ for _ in ()).throw(OSError("no space")))
    assert list((cache_folder() / "texts").iterdir()) == []
    assert (cached("texts", {"a": 1}, write("x")) / "text").read_text() == "x"


@pytest.mark.parametrize("damage", ["shorter", "missing", "manifest", "extra"])
def test_damaged_folder_is_built_again(damage):
    folder = cached("texts", {"a": 1}, write("whole"))
    if damage == "shorter":
        (folder / "text").write_text("who")
    elif damage == "missing":
        (folder / "text").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        (folder / "more").write_text("x")
    with pytest.warns(UserWarning, match="damaged and is built again"):
        assert cached("texts", {"a": 1}, write("again")) == folder
    assert (folder / "text").read_text() == "again"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_manifest_tells_the_key():
    folder = cached("texts", {"a": 1}, write("x"))
    assert json.loads((folder / "manifest.json").read_text())["key"] == '{"a":1}'


def slow_build(number, results):
    def build(folder):
        time.sleep(0.3)
        (folder / "text").write_text(str(number))

    results.put((cached("texts", {"a": 1}, build) / "text").read_text())


def test_of_processes_that_race_one_wins_for_all():
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    racers = [context.Process(target=slow_build, args=(i, results)) for i in range(4)]
    for racer in racers:
        racer.start()
    texts = {results.get(timeout=30) for _ in racers}
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    assert len(texts) == 1
    assert len(list((cache_folder() / "texts").iterdir())) == 1
