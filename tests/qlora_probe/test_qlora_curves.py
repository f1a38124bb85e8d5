"""The scalars of a loss curve, one rule after another."""

import math

import numpy as np
import pytest

from qlora_probe.theory import curve_summary

KEYS = [
    "initial_eval_loss",
    "final_eval_loss",
    "min_loss",
    "max_loss",
    "reduction",
    "reduction_class",
    "plateau",
    "overfit",
    "steps_to_80",
    "diverged",
]


def test_a_straight_descent():
    """From 10 to 4 in 25 steps: 80 % of the fall is 5.2."""
    loss = np.linspace(10, 4, 25)
    found = curve_summary(loss, 10, 4)
    assert list(found) == KEYS
    assert found == {
        "initial_eval_loss": 10,
        "final_eval_loss": 4,
        "min_loss": 4,
        "max_loss": 10,
        "reduction": 0.6,
        "reduction_class": "strong",
        "plateau": False,
        "overfit": False,
        "steps_to_80": 21,
        "diverged": False,
    }
    assert loss[20] <= 5.2 < loss[19]


def test_values_are_plain_python():
    """They go into a row, whatever the curve came as."""
    found = curve_summary(np.full(20, 3, np.float32), np.float32(4), np.float32(3), np.float32(3))
    assert {type(value) for value in found.values()} == {float, str, bool, int}


@pytest.mark.parametrize(
    ("final", "reduction", "kind"),
    [
        (4.9, 0.51, "strong"),
        (5, 0.5, "moderate"),
        (7.9, 0.21, "moderate"),
        (8, 0.2, "limited"),
        (10, 0, "limited"),
        (12, -0.2, "limited"),
    ],
)
def test_classes_of_reduction(final, reduction, kind):
    found = curve_summary([10.0], 10, final)
    assert found["reduction"] == pytest.approx(reduction)
    assert found["reduction_class"] == kind


def test_a_plateau_is_two_equal_halves_of_the_last_fifth():
    fall = np.linspace(9, 2, 80)
    for tail, plateau in (
        (np.full(20, 2), True),
        (np.r_[np.full(10, 2), np.full(10, 1.985)], True),
        (np.r_[np.full(10, 2), np.full(10, 1.97)], False),
        (np.r_[np.full(10, 1.97), np.full(10, 2)], False),  # rising is none either
        (np.tile([1, 3], 10), True),  # noise that averages out
        (np.zeros(20), True),
    ):
        assert curve_summary(np.r_[fall, tail], 9, 2)["plateau"] is plateau


def test_a_plateau_needs_four_points():
    assert curve_summary([2.0] * 19, 9, 2)["plateau"] is None
    assert curve_summary([2.0] * 20, 9, 2)["plateau"] is True


def test_overfit_compares_with_the_last_fifth_or_the_final_model():
    loss = np.r_[np.full(8, 5), [1, 3]]  # the mean of the last two is 2
    assert curve_summary(loss, 5, 2.19)["overfit"] is False
    assert curve_summary(loss, 5, 2.21)["overfit"] is True
    assert curve_summary(loss, 5, 2.21, final_train=2.1)["overfit"] is False
    assert curve_summary([5.0, 2.0], 5, 2.21)["overfit"] is True  # the last step of a short run
    assert curve_summary(loss, 5, 2, final_train=math.nan)["overfit"] is None


def test_steps_to_80_is_the_first_step_below():
    """80 % of 10 -> 5 is 6; held-out losses decide the fall, training losses the step."""
    assert curve_summary([9, 6.01, 6, 7, 5], 10, 5)["steps_to_80"] == 3
    assert curve_summary([5.5, 6, 6], 10, 5)["steps_to_80"] == 1
    assert curve_summary([9, 8, 7], 10, 5)["steps_to_80"] is None


@pytest.mark.parametrize("final", [10, 11])
def test_what_did_not_fall_has_no_80_percent(final):
    """Every loss is below 10 + .8: the rule alone would answer 1."""
    assert curve_summary([9.0, 9.0], 10, final)["steps_to_80"] is None


def test_diverged_is_half_again_the_first_loss_or_no_number():
    assert curve_summary([2.0], 2, 3)["diverged"] is False
    assert curve_summary([2.0], 2, 3.01)["diverged"] is True
    assert curve_summary([2.0, math.nan, 2.0], 2, 1)["diverged"] is True
    assert curve_summary([2.0], 2, math.inf)["diverged"] is True


def test_a_run_that_broke_keeps_what_it_had():
    found = curve_summary([5, 4, 7, math.inf, math.nan], 5, math.nan)
    assert found == {
        "initial_eval_loss": 5,
        "final_eval_loss": None,
        "min_loss": 4,
        "max_loss": 7,
        "reduction": None,
        "reduction_class": None,
        "plateau": None,
        "overfit": None,
        "steps_to_80": None,
        "diverged": True,
    }
    found = curve_summary([math.nan] * 30, 5, math.nan)
    assert (found["min_loss"], found["max_loss"], found["plateau"]) == (None, None, None)


def test_nothing_to_reduce():
    found = curve_summary([0.0], 0, 0)
    assert (found["reduction"], found["reduction_class"], found["diverged"]) == (None, None, False)
