"""What a merge says about runs whose results differ between its inputs."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import run_id, write_runs

from plugins.fold import compact
from plugins.merge import MergeRefused, merge
from plugins.parts import list_parts
from plugins.result import RunResult

TABLE = {"number": [7, 8], "note": ["7", "8"]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scalars": {"final": 0.25}}, "final 1.0 in {a}, 0.25 in {b}"),
        ({"scalars": {"final": math.nan}}, "final 1.0 in {a}, nan in {b}"),
        ({"scalars": {}}, "final 1.0 in {a}, absent in {b}"),
        ({"scalars": {"final": 1.0, "kind": "x"}}, "kind absent in {a}, x in {b}"),
        (
            {"curves": {"step": [0, 10, 30], "loss": [1, 2, 3.5], "pair": [[1, 2]] * 3}},
            "loss at step 30 3.0 in {a}, 3.5 in {b}",
        ),
        (
            {"curves": {"step": [0, 10], "loss": [1, 2], "pair": [[1, 2]] * 2}},
            "loss at step 30 3.0 in {a}, absent in {b} (and 2 more results)",
        ),
        (
            {"curves": {"step": [0, 10, 30], "loss": [1, 2, 3], "pair": [[1, 2], [1, 5], [1, 2]]}},
            "pair at step 10 [1, 2] in {a}, [1, 5] in {b}",
        ),
        (
            {"curves": {"step": [0, 20, 30], "loss": [1, 2, 3], "pair": [[1, 2]] * 3}},
            "step[1] 10 in {a}, 20 in {b}",
        ),
        (
            {"curves": {"step": range(0), "loss": [], "pair": np.ones((0, 2), int)}},
            "loss at step 0 1.0 in {a}, absent in {b} (and 2 more results)",
        ),
        (
            {"tables": {"notes": TABLE | {"note": ["7", "eight"]}}},
            "notes/note[1] 8 in {a}, eight in {b}",
        ),
        ({"tables": {}}, "notes/number[0] 7 in {a}, absent in {b} (and 1 more result)"),
        (
            {"scalars": {"final": 2.0}, "tables": {}},
            "final 1.0 in {a}, 2.0 in {b} (and 2 more results)",
        ),
    ],
)
def test_report_says_what_differs_and_both_values(tmp_path, changes, expected):
    """Also among equal runs, in another part than the run's, and with --keep error."""
    curves = {"step": [0, 10, 30], "loss": [1.0, 2, 3], "pair": [[1, 2]] * 3}
    parts = {"scalars": {"final": 1.0}, "curves": curves, "tables": {"notes": TABLE}}
    a, b = tmp_path / "a", tmp_path / "b"
    for store in (a, b):
        write_runs(store, [0, 1, 3], plan=store.name, outcome=RunResult(**parts))
    write_runs(a, [2, 4], plan="a", outcome=RunResult(**parts))
    write_runs(b, [5, 2], plan="b", outcome=RunResult(**(parts | changes)))
    report = merge([a, b], tmp_path / "c")
    expected = expected.format(a=a, b=b)
    assert (report.overlapping, report.differing) == (4, (run_id(2),))
    assert report.examples == (f"run {run_id(2)}: {expected}",)
    with pytest.raises(MergeRefused, match="nothing was written") as error:
        merge([a, b], tmp_path / "d", "error")
    assert str(error.value).splitlines()[1:] == [f"  run {run_id(2)}: {expected}"]


def test_curve_without_records_differs_from_none_at_all(tmp_path):
    empty = RunResult(curves={"step": [], "loss": np.array([], float)})
    write_runs(tmp_path / "a", [0], outcome=empty)
    write_runs(tmp_path / "b", [0], outcome=RunResult())
    [text] = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c").examples
    assert f"loss [] in {tmp_path / 'a'}, absent in {tmp_path / 'b'}" in text


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({}, {"t": {"k": [1]}}, "t/k[0] absent in {a}, 1 in {b}"),
        (
            {"t": {"k": [1]}},
            {"u": {"k": [1]}},
            "t/k[0] 1 in {a}, absent in {b} (and 1 more result)",
        ),
        ({"t": {"seed": [1]}}, {"t": {"seed": [2]}}, "t/seed[0] 1 in {a}, 2 in {b}"),
    ],
)
def test_tables_alone_are_compared_by_name_and_with_columns_named_as_keys(
    tmp_path, one, two, expected
):
    a, b = tmp_path / "a", tmp_path / "b"
    for store, tables in ((a, one), (b, two)):
        write_runs(store, [0], outcome=RunResult(tables=tables))
    [text] = merge([a, b], tmp_path / "c").examples
    assert text == f"run {run_id(0)}: {expected.format(a=a, b=b)}"


def test_all_stores_of_a_run_and_the_first_few_runs_are_named(tmp_path):
    stores = [tmp_path / name for name in "abc"]
    for value, store in enumerate(stores):
        write_runs(store, range(8), outcome=RunResult(scalars={"x": value % 2}))
    report = merge(stores, tmp_path / "d")
    assert report.differing == tuple(map(run_id, range(8)))
    a, b, c = stores
    lines = [f"  run {run_id(i)}: x 0 in {a}, 1 in {b}, 0 in {c}" for i in range(5)]
    assert str(report).splitlines()[1:] == [*lines, "  ..."]
    assert "8 with different values; kept the last" in str(report)


def test_values_are_compared_in_every_batch_and_across_batches(tmp_path, monkeypatch):
    """Tables of five rows in batches of two; the rows of a table may have another order."""
    monkeypatch.setattr("plugins.columns.ROW_GROUP", 2)

    def outcome(i, last, order=1):
        table = {"k": list(range(5)), "v": [i] * 4 + [last]}
        table = {name: values[::order] for name, values in table.items()}
        return RunResult(scalars={"x": i}, tables={"t": table})

    for i in range(7):
        write_runs(tmp_path / "a", [i], outcome=outcome(i, last=i))
        write_runs(tmp_path / "b", [i], outcome=outcome(i, last=-1 if i in (2, 5) else i, order=-1))
    compact(tmp_path / "a")
    compact(tmp_path / "b")
    assert pq.read_metadata(list_parts(tmp_path / "a")[0] / "t.parquet").num_row_groups == 18
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert report.differing == (run_id(2), run_id(5))
