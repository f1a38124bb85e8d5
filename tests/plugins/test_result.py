import math

import pytest

from plugins.result import Curves, RunResult


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"scalars": {"a.b": 1}}, "does not match"),
        ({"scalars": {"Loss": 1}}, "does not match"),
        ({"scalars": {"run_id": 1}}, "reserved"),
        ({"curves": {"loss": [1]}}, "lack their axis 'step'"),
        ({"curves": {"step": [0, 1], "loss": [1]}}, "different lengths"),
        ({"scalars": {"loss": 1}, "curves": {"step": [0], "loss": [1]}}, "both scalars and curves"),
        ({"tables": {"t": {"a": [1], "b": [1, 2]}}}, "different lengths"),
        ({"tables": {"t": {"attempt": [1]}}}, "reserved"),
        ({"tables": {"results": {"a": [1]}}}, "cannot be named 'results'"),
        ({"status": "failed"}, "neither 'ok' nor 'diverged'"),
    ],
)
def test_what_the_store_cannot_hold_is_refused(kwargs, text):
    with pytest.raises(ValueError, match=text):
        RunResult(**kwargs)


def test_curves_have_one_axis_with_nan_where_nothing_was_measured():
    curves = Curves()
    curves.log(2, {"loss": 0.5})
    curves.log(0, {"loss": 1.0, "norm": 3.0})
    curves.log(2, {"norm": 4.0})
    curves.log(1, {"norm": 3.5})
    got = curves.as_dict()
    assert got["step"] == [0, 1, 2]
    assert got["norm"] == [3.0, 3.5, 4.0]
    assert got["loss"][0::2] == [1.0, 0.5]
    assert math.isnan(got["loss"][1])
    assert Curves().as_dict() == {}
