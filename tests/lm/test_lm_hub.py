"""Rows of files and of data sets in the library's cache; what is said where there is neither."""

import json
import os
import subprocess
import sys
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.lm import hub
from plugins.lm.hub import train_rows
from plugins.registry import UnknownName

ROWS = [{"id": i, "trace": f"t{i}", "more": [i]} for i in range(40)]


@pytest.fixture(autouse=True)
def cache(cached_data_set):
    return cached_data_set


@pytest.fixture(params=["a.jsonl", "a.parquet", "folder"])
def place(request, tmp_path):
    """ROWS in a file, or in two files of a folder."""
    path = tmp_path / request.param
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".jsonl":
        write(path, ROWS)
    else:
        path.mkdir()
        write(path / "a.jsonl", ROWS[:20])
        write(path / "b.jsonl", ROWS[20:])
    return str(path)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ids(place, seed=None):
    return [row["id"] for row in train_rows(place, None, ["id"], "x", shuffle_seed=seed)]


def test_rows_in_their_order_with_the_columns_asked_for(place):
    rows = list(train_rows(place, None, ["trace", "id"], "x"))
    assert rows == [{"trace": row["trace"], "id": row["id"]} for row in ROWS]


def test_shuffled_by_seed(place):
    first, again, other = ids(place, 0), ids(place, 0), ids(place, 1)
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(40))
    assert first != list(range(40))


def test_shuffling_holds_no_more_rows_than_its_buffer(tmp_path, monkeypatch):
    """The library adds a buffer's rows to the half of one that it has kept."""
    monkeypatch.setattr(hub, "BUFFER", 8)
    write(tmp_path / "a.jsonl", ROWS)
    found = ids(str(tmp_path / "a.jsonl"), 0)
    assert sorted(found) == list(range(40)) != found
    assert all(row < i + 12 for i, row in enumerate(found))


@pytest.mark.parametrize("seed", [None, 0])
def test_unknown_field_is_named_with_its_neighbour(place, seed):
    message = r"has no field 'trase'; did you mean 'trace'\? \(known: id, more, trace\)"
    with pytest.raises(UnknownName, match=message):
        next(train_rows(place, None, ["id", "trase"], "x", shuffle_seed=seed))


@pytest.mark.parametrize("seed", [None, 0])
def test_downloaded_data_set_is_read_without_a_connection(cache, seed):
    cache("owner/some-set", "default", ROWS)
    rows = list(train_rows("owner/some-set", None, ["trace"], "x", shuffle_seed=seed))
    assert (rows == [{"trace": row["trace"]} for row in ROWS]) == (seed is None)
    assert len(rows) == 40


def test_configuration_of_a_data_set(cache):
    cache("owner/set", "small", ROWS[:3])
    cache("owner/set", "large", ROWS[3:])
    assert [row["id"] for row in train_rows("owner/set", "small", ["id"], "x")] == [0, 1, 2]
    assert next(train_rows("owner/set", "large", ["id"], "x")) == {"id": 3}


@pytest.mark.parametrize("seed", [None, 0])
def test_hub_that_is_not_there_names_what_works(seed):
    message = r"^the hub's data set owner/set cannot be read: .+; without a connection: data=x; or"
    with pytest.raises(OSError, match=message):
        next(train_rows("owner/set", None, ["id"], "data=x", shuffle_seed=seed))


def test_refused_connection_ends_within_seconds():
    """Where the library itself tries for 23."""
    code = (
        "import time, datasets\n"
        "from plugins.lm.hub import train_rows\n"
        "start = time.monotonic()\n"
        "try:\n"
        "    next(train_rows('owner/set', None, ['id'], 'data=x', shuffle_seed=0))\n"
        "except OSError as error:\n"
        "    print(error)\n"
        "print(time.monotonic() - start)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    message, seconds = done.stdout.splitlines()
    assert "owner/set cannot be read: [Errno" in message
    assert "without a connection: data=x" in message
    assert float(seconds) < 10
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "a.txt",
            "text",
            r"a\.txt cannot be read: its name must end in \.jsonl, \.json, \.parquet",
        ),
        ("a.jsonl", "", r"a\.jsonl cannot be read: it is empty"),
        ("a.jsonl", '{"id": 1}\n{\n', r"a\.jsonl cannot be read: JSON parse error"),
        ("a.jsonl", "3\n", r"a\.jsonl cannot be read: JSON parse error"),
        ("a.parquet", "PAR", r"a\.parquet cannot be read: "),
    ],
)
def test_file_that_is_no_table_is_named(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        next(train_rows(str(tmp_path / file), None, ["id"], "x"))


@pytest.mark.parametrize("place", ["a.jsonl", "a.parquet"], indirect=True)
def test_stopping_early_ends_the_process_in_peace_and_at_once(place):
    """The library waits for 5 s where it reads several Parquet files at a time."""
    code = (
        "import sys, time, datasets\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "from plugins.lm.hub import train_rows\n"
        "start = time.monotonic()\n"
        "rows = train_rows(sys.argv[1], None, ['id'], 'x', shuffle_seed=0)\n"
        "next(rows)\n"
        "rows.close()\n"
        "print(time.monotonic() - start)\n"
        "print(datasets.are_progress_bars_disabled(), are_progress_bars_disabled())\n"
        "print(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    seconds, *silent = done.stdout.splitlines()
    assert float(seconds) < 4
    assert silent == ["True True", "False"]


def test_rows_are_read_one_after_the_other(tmp_path):
    """The second file of a folder is broken: nobody sees it who stops before."""
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.jsonl", ROWS)
    (tmp_path / "d" / "b.jsonl").write_text("{")
    rows = islice(train_rows(str(tmp_path / "d"), None, ["id"], "x"), 10)
    assert [row["id"] for row in rows] == list(range(10))
