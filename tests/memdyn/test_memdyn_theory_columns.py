"""Columns of a run as arrays: any frame, any order of rows, clear errors."""

import sys
from subprocess import run

import numpy as np
import polars as pl
import pytest
from memdyn_series import long, run_of

from memdyn.theory import analyze_u_shape_trajectory, generate_summary_report
from memdyn.theory.columns import grid, series


def test_rows_in_any_order_give_the_same_array():
    values = np.random.default_rng(0).normal(size=(2, 9, 6))
    data = long(values)
    order = np.random.default_rng(1).permutation(len(data["epoch"]))
    shuffled = {name: column[order] for name, column in data.items()}
    np.testing.assert_array_equal(grid(shuffled).by_layer("nv_rel"), values)
    assert grid(shuffled).is_trained.tolist() == [True] * 3 + [False] * 3


def test_frames_and_lists_with_nulls_are_read_like_arrays():
    data = run_of(n=10)
    data["nv_rel"][5] = np.nan
    lists = {name: column.tolist() for name, column in data.items()}
    lists["nv_rel"][5] = None
    expected = generate_summary_report(data)
    assert generate_summary_report(lists) == expected
    assert generate_summary_report(pl.DataFrame(lists)) == expected


def test_a_passage_or_an_epoch_without_values_is_left_out():
    values = np.random.default_rng(0).normal(size=(1, 9, 6))
    values[0, 4] = np.nan  # the states of that epoch were broken
    values[0, 2, 1] = np.nan
    trained = series(long(values), "nv_rel")["trained"]
    kept = np.delete(values[0], 4, 0)
    assert trained.epochs.tolist() == [0, 1, 3, 5, 10, 12, 15, 20]
    np.testing.assert_allclose(trained.means, kept[:, [0, 2]].mean(1), rtol=1e-14)


def test_means_come_with_their_group_and_layer():
    data = {
        "epoch": [1, 0, 0, 1, 0],
        "group": ["trained", "novel", "trained", "novel", "trained"],
        "layer": [0, 0, 0, 0, 1],
        "nv": [2.0, 5.0, 1.0, 6.0, 9.0],
    }
    groups = series(data, "nv", 0)
    assert groups["trained"].means.tolist() == [1, 2]
    assert groups["novel"].means.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"metric": "nv_rell"}, "no column 'nv_rell'; did you mean 'nv_rel'.*columns: acc"),
        ({}, {"layer": None}, "data has layers 0, 1, 2: choose one with layer="),
        ({}, {"layer": 7}, "layer=7 is none of 0, 1, 2"),
        ({"group": "test"}, {}, "group must be trained or novel, got .*test"),
        ({"epoch": 0}, {}, "two rows of one epoch, passage and layer"),
    ],
)
def test_what_cannot_be_read_is_named(change, arguments, message):
    data = run_of(n=4)
    n = len(data["epoch"])
    data |= {name: np.full(n, value) for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        analyze_u_shape_trajectory(data, **{"layer": 1, "metric": "nv_rel"} | arguments)


def test_two_means_of_one_epoch_are_refused():
    with pytest.raises(ValueError, match="two rows of one epoch for group trained"):
        series({"epoch": [0, 0], "nv": [1.0, 2.0]}, "nv")


def test_the_theory_needs_neither_torch_nor_scikit_learn():
    code = "import sys, memdyn.theory; print({'torch', 'sklearn', 'polars'} & set(sys.modules))"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
