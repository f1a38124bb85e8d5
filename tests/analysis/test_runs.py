"""One frame from every form of runs."""

import numpy as np
import polars as pl
import pytest

from analysis.runs import frame_of, is_one_run, labelled_frame, row_of
from plugins.result import RunResult


def result(*loss: float, status: str = "ok") -> RunResult:
    return RunResult(
        curves={"test_loss": np.array(loss, np.float32), "step": np.arange(len(loss))},
        status=status,
    )


def test_a_result_is_a_row_with_step_first_and_its_status():
    row = row_of(result(2.0, 0.5, status="diverged"))
    assert list(row.items()) == [
        ("step", [0, 1]),
        ("test_loss", [2.0, 0.5]),
        ("status", "diverged"),
    ]


def test_all_forms_of_one_run_are_one_run(sweep):
    row = sweep.row(0, named=True)
    for form in (row, sweep[0], result(1.0)):
        assert is_one_run(form)
        assert len(frame_of(form)) == 1
    for form in (sweep, [row], {"a": row}):
        assert not is_one_run(form)
    assert row_of(sweep[0]) == row_of(row) == row


def test_lists_of_rows_are_the_frame_they_came_from(sweep):
    frame, by = labelled_frame(list(sweep.iter_rows(named=True)))
    assert by == []
    assert frame.cast(dict(sweep.schema)).equals(sweep)
    assert labelled_frame(sweep)[0] is sweep


def test_labels_are_a_key_in_the_order_given_before_all_keys_of_the_parts(sweep):
    """The second part has a key and a curve that the first has not."""
    other = pl.DataFrame(
        {"lr": [0.1], "step": [[0]], "norm": [[1.0]], "test_loss": [[3.0]], "status": ["ok"]}
    )
    frame, by = labelled_frame({"z": sweep[:2], "a": other, "m": [result(1.0), result(2.0)]})
    assert by == ["label"]
    assert frame.sort("label")["label"].to_list() == ["z", "z", "a", "m", "m"]
    keys = ["label", "model.gamma", "training.batch_seed", "lr"]
    assert frame.columns[:5] == [*keys, "step"]
    assert frame["test_loss"].to_list()[2:] == [[3.0], [1.0], [2.0]]
    assert frame["norm"].to_list() == [None, None, [1.0], None, None]


def test_no_runs_several_runs_for_one_and_no_runs_at_all_are_errors(sweep):
    for empty in ([], sweep.clear(), {}, {"a": []}):
        with pytest.raises(ValueError, match="no runs"):
            labelled_frame(empty)
    with pytest.raises(ValueError, match="one run is drawn here, the frame has 16 rows"):
        row_of(sweep)
    with pytest.raises(ValueError, match="a float is no run"):
        frame_of([1.5])
