"""Merging stores: whose row is kept, what is reported, what comes along."""

import itertools
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from store_rows import CONFIG, assert_holds, result, run_id, write_runs

from plugins.config_files import ConfigFile
from plugins.load import load_sweep, load_table
from plugins.merge import MergeRefused, compact, main, merge
from plugins.parts import CorruptPart, list_parts
from plugins.result import BOOKKEEPING, RunResult


@pytest.fixture
def a_b(tmp_path):
    """Runs 0..3 and 2..5, equal where both have them."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_runs(a, range(4), plan="1", each=True)
    write_runs(b, range(2, 6), plan="2", minute=5)
    return a, b


def snapshot(store):
    return {
        path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }


def test_each_run_comes_once_and_inputs_stay(tmp_path, a_b):
    before = [snapshot(store) for store in a_b]
    report = merge(a_b, tmp_path / "c")
    assert_holds(tmp_path / "c", range(6))
    assert [snapshot(store) for store in a_b] == before
    assert (report.runs, report.failed, report.overlapping, report.differing) == (6, 0, 2, ())
    expected = f"merged 6 runs (0 failed) into {tmp_path / 'c'}; 2 done in several inputs"
    assert str(report) == f"{expected}, all with equal values"
    assert len(list_parts(tmp_path / "c")) == 1
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("keep", ["last", "first", "error"])
def test_order_of_inputs_does_not_matter_for_equal_values(tmp_path, a_b, keep):
    a, b = a_b
    merge([a, b], tmp_path / "ab", keep)
    merge([b, a], tmp_path / "ba", keep)
    results = ["run_id", "seed", "step", "loss", "final"]
    one, two = (load_sweep(tmp_path / name).sort("run_id") for name in ("ab", "ba"))
    assert one.select(results).equals(two.select(results))
    tables = [
        load_table(tmp_path / name, name="notes").sort("run_id", "number") for name in ("ab", "ba")
    ]
    assert tables[0].equals(tables[1])
    later = one.equals(two)
    assert later == (keep == "error")  # neither input is preferred: the later finished row


def test_run_done_twice_in_one_input_does_not_overlap(tmp_path, a_b):
    write_runs(a_b[0], [0], outcome=result(0, value=-1.0), minute=-1)
    report = merge(a_b, tmp_path / "c", "error")
    assert (report.overlapping, report.differing) == (2, ())
    assert_holds(tmp_path / "c", range(6))


@pytest.mark.parametrize("flip", [False, True])
def test_keep_decides_between_different_values(tmp_path, a_b, flip):
    a, b = a_b
    write_runs(b, [3], outcome=result(3, value=-3.0), minute=9)
    inputs = [b, a] if flip else [a, b]
    for keep, index in (("last", 1), ("first", 0)):
        output = tmp_path / keep
        report = merge(inputs, output, keep)
        kept = load_sweep(output)["final"].to_list()
        assert (-3.0 in kept) == (inputs[index] == b)
        assert ("-3.0 a" in load_table(output, name="notes")["note"]) == (inputs[index] == b)
        assert report.differing == (run_id(3),)
        assert f"; 2 done in several inputs, 1 with different values; kept the {keep}\n" in str(
            report
        )
    with pytest.raises(MergeRefused, match="1 with different values; nothing was written") as error:
        merge(inputs, tmp_path / "c", "error")
    assert f"\n  run {run_id(3)}: final " in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "first", "last"]


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        (RunResult(scalars={"x": math.nan}), RunResult(scalars={"x": math.nan}), True),
        (RunResult(scalars={"x": 1}), RunResult(scalars={"x": 1.0}), True),
        (RunResult(scalars={"x": 1}), RunResult(scalars={"x": 1, "y": 2}), False),
        (RunResult(scalars={"x": 1.0}), RunResult(scalars={"x": math.nan}), False),
        (
            RunResult(curves={"step": [0], "x": [1.0]}),
            RunResult(curves={"step": [1], "x": [1.0]}),
            False,
        ),
        (
            RunResult(curves={"step": [0], "x": [[1.0, math.nan]]}),
            RunResult(curves={"step": [0], "x": np.array([[1, math.nan]], np.float32)}),
            True,
        ),
        (
            RunResult(curves={"step": [0, 1], "x": [[1.0], [2.0]]}),
            RunResult(curves={"step": [0, 1], "x": [[2.0], [1.0]]}),
            False,
        ),
    ],
)
def test_values_are_compared_and_bookkeeping_is_not(tmp_path, one, two, equal):
    other = ConfigFile({"experiment": "toy/run", "seed": 0, "width": 3}, (), 1)
    write_runs(tmp_path / "a", [0], outcome=one)
    write_runs(tmp_path / "b", [0], outcome=two, config=other, plan="other", minute=1)
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert report.overlapping == 1
    assert (report.differing == ()) == equal


def random_outcome(rng, i):
    """Run i's: equal wherever it is asked for; a few scalars, curves and tables of several."""
    values = {"u": i / 7, "v": i, "w": f"{i} ä"}
    scalars = {name: value for name, value in values.items() if rng.random() < 0.7}
    points = int(rng.integers(0, 5))
    curves = {"step": np.arange(points) * 10, "loss": rng.random(points).astype(np.float32)}
    if rng.random() < 0.5:
        curves["spectrum"] = np.where(rng.random((points, 2)) < 0.2, np.nan, i)
    tables = {
        name: {"k": rng.integers(0, 9, size).tolist(), "note": [f"{name}{i}"] * size}
        for name, size in (("short", int(rng.integers(0, 3))), ("long", int(rng.integers(0, 9))))
    }
    status = "diverged" if rng.random() < 0.1 else "ok"
    return RunResult(scalars, curves if rng.random() < 0.8 else {}, tables, status=status)


@pytest.mark.parametrize("keep", ["last", "first", "error"])
@pytest.mark.parametrize("seed", range(4))
def test_merging_commutes_where_equal_ids_hold_equal_values(tmp_path, monkeypatch, keep, seed):
    """Random overlapping stores of several parts, failed, repeated and compacted rows."""
    monkeypatch.setattr("plugins.columns.ROW_GROUP", 3)
    rng = np.random.default_rng(seed)
    done = {}
    for store in "ab":
        for part in range(4):
            for i in rng.choice(20, size=6, replace=False).tolist():
                failed = rng.random() < 0.2
                outcome = random_outcome(np.random.default_rng([seed, i]), i)
                done.setdefault(i, None)
                if failed:
                    outcome = RuntimeError(f"{store}{part}")
                else:
                    done[i] = outcome
                write_runs(tmp_path / store, [i], outcome=outcome, minute=float(rng.random()))
        if rng.random() < 0.5:
            compact(tmp_path / store)
    reports, rows, tables, failures = [], [], [], []
    for order in ("ab", "ba"):
        output = tmp_path / order
        reports.append(merge([tmp_path / store for store in order], output, keep))
        frame = load_sweep(output).sort("run_id")
        rows.append(frame.select("run_id", *sorted(set(frame.columns) - set(BOOKKEEPING))))
        tables.append([load_table(output, name=n).sort("run_id") for n in ("long", "short")])
        failures.append(sorted(load_sweep(output, status=["failed"])["run_id"]))
        compact(output)
        assert load_sweep(output).sort("run_id").equals(frame)
    assert rows[0].equals(rows[1])
    assert all(one.equals(two) for one, two in zip(*tables, strict=True))
    finished = sorted(i for i, outcome in done.items() if outcome)
    assert rows[0]["run_id"].to_list() == [run_id(i) for i in finished]
    assert rows[0]["u"].to_list() == [done[i].scalars.get("u") for i in finished]
    length = sum(len(done[i].tables["long"]["k"]) for i in finished)
    assert len(tables[0][0]) == length > 0
    assert failures[0] == failures[1] == [run_id(i) for i in sorted(done) if not done[i]]
    assert reports[0].differing == reports[1].differing == ()
    assert reports[0].overlapping == reports[1].overlapping > 0


@pytest.mark.parametrize("keep", ["last", "first", "error"])
def test_done_rows_come_before_failed_ones(tmp_path, keep):
    write_runs(tmp_path / "a", [0], outcome=RuntimeError("a"), minute=1)
    write_runs(tmp_path / "a", [1])
    write_runs(tmp_path / "a", [2], outcome=RuntimeError("late"), minute=9)
    write_runs(tmp_path / "b", [0])
    write_runs(tmp_path / "b", [1], outcome=RuntimeError("b"), minute=1)
    write_runs(tmp_path / "b", [2], outcome=RuntimeError("early"), minute=2)
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c", keep)
    assert (report.runs, report.failed, report.overlapping) == (3, 1, 0)
    assert load_sweep(tmp_path / "c")["seed"].to_list() == [0, 1]
    assert "late" in load_sweep(tmp_path / "c", status=["failed"])["error"][0]


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_three_inputs_with_different_columns_and_fixed_values(tmp_path, order):
    """A key fixed at different values becomes a column of the merged sweep."""
    for i, name in enumerate("abc"):
        file = ConfigFile({"experiment": "toy/run", "width": i, "depth": 2}, ("seed",), 1)
        scalars = {"a": i, **({name: i} if i else {})}
        write_runs(tmp_path / name, [i], outcome=RunResult(scalars=scalars), config=file, seed=7)
    merge([tmp_path / name for name in order], tmp_path / "out")
    frame = load_sweep(tmp_path / "out").sort("a")
    assert frame.columns[:2] == ["seed", "width"]
    rows = [(7, 0, 0, None, None), (7, 1, 1, 1, None), (7, 2, 2, None, 2)]
    assert frame.select("seed", "width", "a", "b", "c").rows() == rows


def test_empty_stores_merge(tmp_path, a_b):
    write_runs(tmp_path / "none", [])
    assert merge([tmp_path / "none"], tmp_path / "c").runs == 0
    assert load_sweep(tmp_path / "c").is_empty()
    (tmp_path / "d").mkdir()  # an empty folder will do
    assert merge([tmp_path / "none", a_b[0]], tmp_path / "d").runs == 4
    assert_holds(tmp_path / "d", range(4))


def test_merged_store_can_be_merged_again(tmp_path, a_b):
    merge(a_b, tmp_path / "c")
    report = merge([tmp_path / "c", *a_b], tmp_path / "d", "error")
    assert (report.runs, report.overlapping, report.differing) == (6, 6, ())
    assert_holds(tmp_path / "d", range(6))


def test_artifacts_of_the_kept_run_come_along(tmp_path, a_b):
    for store in a_b:
        for i in (2, 3):
            file = store / "artifacts" / run_id(i) / "deep" / "model.bin"
            file.parent.mkdir(parents=True)
            file.write_text(store.name)
    shutil.rmtree(a_b[1] / "artifacts" / run_id(3))
    merge(a_b, tmp_path / "c")
    kept = {
        p.relative_to(tmp_path / "c"): p.read_text() for p in tmp_path.glob("c/artifacts/**/*.bin")
    }
    assert {str(path): text for path, text in kept.items()} == {
        f"artifacts/{run_id(2)}/deep/model.bin": "b"
    }


def test_large_inputs_become_several_parts(tmp_path, a_b, monkeypatch):
    monkeypatch.setattr("plugins.fold.BIN_BYTES", 20_000)
    merge(a_b, tmp_path / "c")
    assert len(list_parts(tmp_path / "c")) > 1
    assert_holds(tmp_path / "c", range(6))


def test_refusals(tmp_path, a_b):
    with pytest.raises(FileNotFoundError, match=r"there is no store .*gone"):
        merge([a_b[0], tmp_path / "gone"], tmp_path / "c")
    with pytest.raises(FileExistsError, match="exists and is not an empty folder"):
        merge(a_b, a_b[0])
    with pytest.raises(ValueError, match="keep='newest' is none of"):
        merge(a_b, tmp_path / "c", "newest")
    file = list_parts(a_b[0])[0] / "notes.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CorruptPart) as error:
        merge(a_b, tmp_path / "c")
    assert str(file) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_merge_that_was_killed_leaves_nothing_that_the_next_one_minds(tmp_path, a_b):
    (tmp_path / ".tmp-c" / "parts").mkdir(parents=True)
    (tmp_path / ".tmp-c" / "parts" / "0001-x").touch()
    merge(a_b, tmp_path / "c")
    assert_holds(tmp_path / "c", range(6))


def test_command_line(tmp_path, a_b, capsys):
    a, b = map(str, a_b)
    command = [
        sys.executable,
        "-m",
        "plugins.merge",
        a,
        b,
        "-o",
        str(tmp_path / "c"),
        "--keep=first",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("merged 6 runs (0 failed) into ")
    assert done.stdout.count("\n") == 1
    assert_holds(tmp_path / "c", range(6))
    assert main(["--compact", a]) == 0
    assert capsys.readouterr().out == f"compacted {a}: 4 parts -> 1\n"
    write_runs(a_b[1], [3], outcome=result(3, value=-3.0), minute=9)
    assert main([a, b, "-o", str(tmp_path / "d"), "--keep", "error"]) == 1
    assert "1 with different values" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["A"],
        ["-o", "C"],
        ["A", "-o", "C", "--compact", "A"],
        ["A", "--compact", "A"],
        ["A", "-o", "C", "--keep", "newest"],
        ["gone", "-o", "C"],
        ["A", "-o", "A"],
        ["--compact", "gone"],
    ],
)
def test_bad_usage_exits_with_2(tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "A", [0])
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["A"]


def test_configs_of_all_inputs_come_along(tmp_path, a_b):
    other = ConfigFile({"experiment": "toy/run"}, ("seed",), 1)
    write_runs(a_b[1], [9], config=other, seed=9)
    merge(a_b, tmp_path / "c")
    names = {path.stem for path in (tmp_path / "c" / "configs").iterdir()}
    assert names == {CONFIG.config_id, other.config_id}
