"""SweepWriter: what a row holds, when it is published, what becomes of files."""

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from store_rows import (
    CONFIG,
    NOON,
    PROVENANCE,
    append,
    assert_holds,
    dot_entries,
    result,
    run_id,
    write_runs,
)

from plugins import parts as parts_module
from plugins import store as store_module
from plugins.config_files import write_config
from plugins.load import load_sweep, load_table
from plugins.merge import compact
from plugins.parts import list_parts
from plugins.result import BOOKKEEPING, RunResult
from plugins.store import SweepWriter
from plugins.winners import stored_runs


@pytest.fixture
def writer(tmp_path):
    """Flushes only when told; its store is `tmp_path`."""
    write_config(tmp_path, CONFIG)
    return SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=1e9)


def stored(store) -> pl.DataFrame:
    """All rows of all parts, as they lie on disk."""
    files = [part / "results.parquet" for part in list_parts(store)]
    return pl.concat([pl.read_parquet(file) for file in files], how="diagonal")


def test_row_holds_bookkeeping_keys_curves_and_scalars(tmp_path, writer):
    append(writer, 7, minute=2)
    writer.flush()
    [row] = stored(tmp_path).rows(named=True)
    assert list(row) == [*BOOKKEEPING, "seed", "step", "loss", "final"]
    finished = datetime(2026, 1, 1, 12, 2, tzinfo=UTC)
    assert {key: row[key] for key in ("started", "finished", "seconds", "plan", "index")} == {
        "started": finished,
        "finished": finished,
        "seconds": 0.0,
        "plan": "p",
        "index": 7,
    }
    assert {key: row[key] for key in PROVENANCE} == PROVENANCE
    assert (row["status"], row["error"], row["config_id"]) == ("ok", None, CONFIG.config_id)


def test_types_of_columns(tmp_path, writer):
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    outcome = RunResult(
        scalars={"a": 1, "b": np.float32(0.5), "c": "text", "d": np.bool_(True)},
        curves={
            "step": np.arange(3, dtype=np.int32),
            "half": np.ones(3, np.float16),
            "single": np.ones(3, np.float32),
            "double": [0.1, 0.2, math.nan],
            "count": np.ones(3, np.int16),
            "spectrum": matrix,
            "pairs": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        },
    )
    append(writer, 0, outcome, lr=1.0, layers=[1, 2], model={"h": 3}, name="x", nothing=None)
    writer.flush()
    frame = stored(tmp_path)
    expected = {
        "seed": pl.Int64,
        "lr": pl.Float64,
        "layers": pl.String,
        "model": pl.String,
        "name": pl.String,
        "a": pl.Int64,
        "b": pl.Float64,
        "c": pl.String,
        "d": pl.Boolean,
        "step": pl.List(pl.Int64),
        "half": pl.List(pl.Float32),
        "single": pl.List(pl.Float32),
        "double": pl.List(pl.Float64),
        "count": pl.List(pl.Int16),
        "spectrum": pl.List(pl.List(pl.Float32)),
        "pairs": pl.List(pl.List(pl.Float64)),
        "started": pl.Datetime("us", "UTC"),
        "index": pl.Int64,
    }
    assert {name: frame.schema[name] for name in expected} == expected
    assert "nothing" not in frame.columns
    assert frame["spectrum"].to_list() == [matrix.tolist()]
    assert json.loads(frame["model"][0]) == {"h": 3}


def test_rows_without_a_column_have_null_there(tmp_path, writer):
    for i, curves in enumerate([{}, {"step": [0], "x": [[1.0]]}, {}, {"step": [], "y": []}]):
        append(writer, i, RunResult(curves=curves))
    writer.flush()
    frame = stored(tmp_path)
    assert frame["x"].to_list() == [None, [[1.0]], None, None]
    assert frame["y"].to_list() == [None, None, None, []]


def test_numbers_widen_within_a_sweep_and_stay_wide(tmp_path, writer):
    append(writer, 0, RunResult(scalars={"x": 1}), lr=1)
    append(writer, 1, RunResult(scalars={"x": 1.5}), lr=0.5)
    writer.flush()
    append(writer, 2, RunResult(scalars={"x": 2}), lr=2)
    writer.flush()
    for part in list_parts(tmp_path):
        schema = pq.read_schema(part / "results.parquet")
        assert {str(schema.field(name).type) for name in ("x", "lr")} == {"double"}


def test_exception_is_a_failed_row_with_its_traceback(tmp_path, writer):
    def broken():
        raise RuntimeError("no \ud800 luck")

    try:
        broken()
    except RuntimeError as error:
        append(writer, 0, error)
    writer.flush()
    [row] = stored(tmp_path).rows(named=True)
    assert row["status"] == "failed"
    assert "in broken" in row["error"]
    assert "RuntimeError: no" in row["error"]
    assert row["seed"] == 0


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (RunResult(scalars={"seed": 1.0}), "'seed' has the name of a config key"),
        (RunResult(curves={"step": [0], "seed": [1]}), "'seed' has the name of a config key"),
        (RunResult(scalars={"x": object()}), "scalar 'x': a object is no number"),
        (RunResult(scalars={"x": 2**70}), "scalar 'x': 1180591620717411303424 does not fit"),
        (RunResult(scalars={"x": "\ud800"}), "surrogates"),
        (RunResult(scalars={"final": "soon"}), "'final' holds text, and numbers in earlier runs"),
        (RunResult(curves={"step": [0, 1], "x": [[1], [2, 3]]}), "curve 'x' makes no array"),
        (RunResult(curves={"step": [0], "x": ["a"]}), "curve 'x' holds neither numbers nor"),
        (RunResult(curves={"step": [0], "loss": [[1.0]]}), "'loss' holds lists of lists"),
        (RunResult(tables={"t": {"c": [object()]}}), "table column 'c' cannot be stored"),
        (RunResult(artifacts=["/etc/passwd"]), "is not in the run's workdir"),
        (RunResult(artifacts=["work/0000000000000001/gone"]), "FileNotFoundError"),
    ],
)
def test_result_that_cannot_be_stored_fails_its_run_alone(
    tmp_path, writer, monkeypatch, outcome, message
):
    monkeypatch.chdir(tmp_path)
    append(writer, 0)
    append(writer, 1, outcome)
    append(writer, 2)
    writer.flush()
    assert_holds(tmp_path, [0, 2])
    [failed] = load_sweep(tmp_path, status=["failed"]).rows(named=True)
    assert message in failed["error"]
    assert failed["seed"] == 1


def test_key_that_cannot_be_stored_loses_no_other_row(tmp_path, writer):
    append(writer, 0)
    with pytest.raises(ValueError, match=r"config key 'x': .* does not fit into 64 bits"):
        append(writer, 1, x=2**64)
    writer.flush()
    assert_holds(tmp_path, [0])


def test_text_after_numbers_in_a_key_starts_a_new_part(tmp_path, writer):
    append(writer, 0, x=1)
    append(writer, 1, x="full")
    writer.flush()
    schemas = [pq.read_schema(part / "results.parquet") for part in list_parts(tmp_path)]
    assert [str(schema.field("x").type) for schema in schemas] == ["int64", "string"]
    compact(tmp_path)  # leaves them apart
    assert len(list_parts(tmp_path)) == 2


def test_flush_happens_when_the_first_row_has_waited(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    writer = SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=5)

    def published_after(*appends):
        before = len(list_parts(tmp_path))
        for i, seconds in enumerate(appends):
            now[0] = seconds
            append(writer, i)
        writer.flush_if_due()
        return len(list_parts(tmp_path)) - before

    assert published_after(100, 102, 104.9) == 0
    assert published_after(105) == 1
    assert published_after(200) == 0
    now[0] = 205
    writer.flush_if_due()
    assert len(list_parts(tmp_path)) == 2
    assert published_after(601, 630) == 0  # ten minutes old: 30 s
    assert published_after(631) == 1


def test_flush_happens_at_32_mebibytes(tmp_path):
    writer = SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=1e9)
    for i in range(5):
        values = np.zeros(1 << 20)  # with its steps 16 MiB
        append(writer, i, RunResult(curves={"step": np.arange(1 << 20), "x": values}))
    assert [pq.read_metadata(p / "results.parquet").num_rows for p in list_parts(tmp_path)] == [
        2,
        2,
    ]


def test_leaving_publishes_also_when_an_exception_passes(tmp_path):
    write_config(tmp_path, CONFIG)

    def interrupted():
        with SweepWriter(tmp_path, "p", PROVENANCE) as writer:
            append(writer, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_holds(tmp_path, [0])


def test_rows_survive_a_flush_that_fails(tmp_path, writer, monkeypatch):
    append(writer, 0)

    def full(path):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            writer.flush()
    assert dot_entries(tmp_path) == []
    writer.flush()
    assert_holds(tmp_path, [0])


def test_unit_has_few_parts(tmp_path):
    """At most 17 small parts while it runs, one at its end."""
    write_config(tmp_path, CONFIG)
    with SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=0) as writer:
        for i in range(50):
            append(writer, i)
            assert len(list_parts(tmp_path)) <= 17
    assert len(list_parts(tmp_path)) == 1
    assert_holds(tmp_path, range(50))


def test_writer_goes_on_when_a_compaction_took_its_parts(tmp_path):
    write_config(tmp_path, CONFIG)
    with SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=0) as writer:
        for i in range(40):
            append(writer, i)
            if i % 7 == 3:
                compact(tmp_path)
    assert_holds(tmp_path, range(40))


def test_stored_runs_gives_winners(tmp_path):
    assert stored_runs(tmp_path / "absent").is_empty()
    assert stored_runs(tmp_path).columns == ["run_id", "attempt", "status", "seconds", "config_id"]
    write_runs(tmp_path, [0, 1])
    write_runs(tmp_path, [1, 2], outcome=RuntimeError(), minute=5)
    runs = stored_runs(tmp_path).sort("run_id")
    assert runs["run_id"].to_list() == [run_id(0), run_id(1), run_id(2)]
    assert runs["status"].to_list() == ["ok", "ok", "failed"]
    assert runs["attempt"].is_unique().all()


@pytest.mark.parametrize("links", [True, False])
def test_artifacts_are_kept_and_workdirs_of_done_runs_go(tmp_path, writer, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    for i in range(3):
        folder = tmp_path / "work" / run_id(i) / "deep"
        folder.mkdir(parents=True)
        (folder / "model.bin").write_text(f"model {i}")
        (folder / "scratch").write_text("")
        outcome = [result(0), RunResult(status="diverged"), RuntimeError("lost")][i]
        if i < 2:
            outcome.artifacts = [folder / "model.bin"]
        append(writer, i, outcome)
        assert folder.is_dir()
    writer.flush()
    kept = sorted(
        p.relative_to(tmp_path) for p in (tmp_path / "artifacts").rglob("*") if p.is_file()
    )
    assert [str(path) for path in kept] == [f"artifacts/{run_id(i)}/deep/model.bin" for i in (0, 1)]
    assert (tmp_path / kept[1]).read_text() == "model 1"
    assert [path.name for path in (tmp_path / "work").iterdir()] == [run_id(2)]


def test_compaction_removes_workdirs_that_a_crash_left(tmp_path):
    """Those of done runs, but not one touched after its run: a repetition may be at work there."""
    now = datetime.now(UTC)
    minutes = (now - NOON).total_seconds() / 60
    write_runs(tmp_path, [0], minute=minutes + 60)
    write_runs(tmp_path, [1, 2], minute=minutes - 60)
    write_runs(tmp_path, [3], outcome=RuntimeError(), minute=minutes + 60)
    for i in range(5):
        (tmp_path / "work" / run_id(i)).mkdir(parents=True)
        (tmp_path / "work" / run_id(i) / "state").touch()
    two_days_ago = now.timestamp() - 2 * 24 * 3600
    for path in (tmp_path / "work" / run_id(2) / "state", tmp_path / "work" / run_id(2)):
        os.utime(path, (two_days_ago, two_days_ago))
    compact(tmp_path)
    left = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert left == [run_id(1), run_id(3), run_id(4)]


def test_tables_hold_text_numbers_lists_and_gaps(tmp_path, writer):
    table = {
        "text": ["a", None],
        "number": np.array([1, 2], np.int32),
        "maybe": [None, 0.5],
        "vector": np.ones((2, 3), np.float32),
        "nothing": [None, None],
    }
    append(writer, 0, RunResult(tables={"t": table, "empty": {"x": []}}))
    append(writer, 1, RunResult(tables={"t": {"text": ["c"], "number": [1.5]}}))
    writer.flush()
    assert load_table(tmp_path, name="t").rows() == [
        (run_id(0), "a", 1.0, None, [1.0, 1.0, 1.0]),
        (run_id(0), None, 2.0, 0.5, [1.0, 1.0, 1.0]),
        (run_id(1), "c", 1.5, None, None),
    ]
    [part] = list_parts(tmp_path)
    assert sorted(file.name for file in part.iterdir()) == ["results.parquet", "t.parquet"]


def test_leftovers_of_dead_processes_go_and_of_live_ones_stay(tmp_path):
    write_runs(tmp_path, [0])
    [part] = list_parts(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    head, _, number, random = part.name.rsplit("-", 3)
    elsewhere = "-".join([*head.split("-", 2)[:2], "another-host"])
    own, dead = f"{head}-{os.getpid()}", f"{head}-{ended.pid}"
    names = {
        "own": f".tmp-{own}-{number}-{random}",
        "dead": f".tmp-{dead}-{number}-{random}",
        "other": f".tmp-{elsewhere}-{ended.pid}-{number}-{random}",
        "old": f".tmp-{elsewhere}-{os.getpid()}-9-{random}",
        "marked": f".dead-{own}-{number}-{random}",
    }
    for name in names.values():
        (tmp_path / "parts" / name).mkdir()
        (tmp_path / "parts" / name / "results.parquet").touch()
    os.utime(tmp_path / "parts" / names["old"], (0, 0))
    compact(tmp_path)
    assert sorted(dot_entries(tmp_path)) == sorted([names["own"], names["other"]])
    assert_holds(tmp_path, [0])
