"""Scores, flips, verdicts and intervals of what a model forgot."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from qlora_probe.theory import measure_forgetting, verdict

SUITE = ["math"] * 4 + ["reasoning"] * 3 + ["code"] * 3 + ["knowledge"] * 4


def lose(*rows, category=SUITE):
    """All prompts passed by the base, all but these rows by the tuned model."""
    tuned = np.ones(len(category), bool)
    tuned[list(rows)] = False
    return measure_forgetting(category, np.ones(len(category), bool), tuned)


@pytest.mark.parametrize(
    ("rows", "change", "name"),
    [
        ((), 0, "none"),
        ((0,), -1 / 16, "minor"),
        ((4,), -1 / 12, "minor"),
        ((4, 5), -1 / 6, "significant"),
        ((4, 7), -1 / 6, "significant"),
        ((0, 13), -1 / 8, "minor"),
        ((0, 1, 2), -3 / 16, "significant"),
    ],
)
def test_flips_of_the_fourteen_prompts(rows, change, name):
    found = lose(*rows)
    assert found.change == pytest.approx(change, abs=1e-12)
    assert found.verdict == name
    assert (found.n, found.base_correct, found.lost, found.gained) == (14, 14, len(rows), 0)
    assert found.forgetting_rate == len(rows) / 14


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (0.3, "none"),
        (-0.05, "none"),
        (-0.0500000000001, "none"),
        (-0.050001, "minor"),
        (-0.15, "minor"),
        (-0.1500000000001, "minor"),
        (-0.150001, "significant"),
    ],
)
def test_thresholds_belong_to_the_milder_verdict(change, name):
    assert verdict(change) == name


def test_a_score_that_falls_by_exactly_a_threshold():
    """Ways to lose 12 of 4 x 20 (-.15) or 4 of them (-.05), and one more."""
    category = np.repeat(list("abcd"), 20)
    missed = 0
    for losses in combinations_with_replacement(range(13), 4):
        total = sum(losses)
        if total not in (4, 5, 12, 13):
            continue
        found = lose(
            *(20 * c + i for c, n in enumerate(losses) for i in range(n)), category=category
        )
        expected = {4: "none", 5: "minor", 12: "minor", 13: "significant"}[total]
        assert found.verdict == expected
        missed += found.change < {4: -0.05, 12: -0.15}.get(total, -2)
    assert missed > 0  # else the test says nothing about rounding


def test_score_is_the_mean_of_categories_not_of_prompts():
    found = measure_forgetting(["a", "b", "b", "b"], [1, 0, 0, 1], [0, 1, 1, 1])
    assert found.base_score == pytest.approx((1 + 1 / 3) / 2)
    assert found.tuned_score == pytest.approx(1 / 2)
    assert found.change == pytest.approx(-1 / 6)
    assert (found.lost, found.gained, found.base_correct) == (1, 2, 2)
    assert found.forgetting_rate == 0.5
    assert found.verdict == "significant"  # more gained than lost, in a category of more prompts


def test_rows_may_stand_in_any_order():
    order = np.random.default_rng(0).permutation(14)
    base, tuned = np.arange(14) % 3 > 0, np.arange(14) % 4 > 0
    shuffled = measure_forgetting(np.array(SUITE)[order], base[order], tuned[order])
    assert shuffled == measure_forgetting(SUITE, base, tuned)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(5, 0, 1 / 32), (4, 0, 1 / 16), (0, 0, 1), (0, 3, 1), (3, 1, 5 / 16), (2, 2, 11 / 16)],
)
def test_sign_test_counts_flips_only(lost, gained, p):
    base = np.array([1] * lost + [0] * gained + [1, 1, 0])
    tuned = np.array([0] * lost + [1] * gained + [1, 1, 0])
    found = measure_forgetting(["a"] * len(base), base, tuned)
    assert (found.lost, found.gained) == (lost, gained)
    assert found.p == pytest.approx(p, rel=1e-12)


def test_who_knew_nothing_forgets_nothing():
    found = measure_forgetting(["a", "a", "b"], [0, 0, 0], [0, 1, 0])
    assert (found.verdict, found.forgetting_rate) == ("undetermined", None)
    assert (found.base_correct, found.gained, found.change) == (0, 1, 0.25)


def test_interval_of_one_category_without_gains_is_wilsons():
    """3 of 10 lost: Wilson .1078 .. .6032 for the losses, 0 .. .2775 for the gains."""
    found = lose(0, 1, 2, category=["a"] * 10)
    assert found.change_low == pytest.approx(-0.6032, abs=5e-5)
    expected = -0.3 + np.hypot(0.2775, 0.3 - 0.1078)
    assert found.change_high == pytest.approx(expected, abs=1e-4)


def test_interval_contains_the_change_and_no_flip_leaves_doubt():
    nothing, all_of_it = lose(), lose(*range(14))
    assert -0.3 < nothing.change_low < -0.2
    assert nothing.change_high == pytest.approx(-nothing.change_low)
    assert all_of_it.change_low == all_of_it.change == -1
    assert -0.7 < all_of_it.change_high < -0.5
    more = lose(category=SUITE * 6)
    assert -0.1 < more.change_low < 0  # six times the prompts


def test_swapping_the_models_mirrors_the_interval():
    base, tuned = np.arange(14) % 3 > 0, np.arange(14) % 4 > 0
    there, back = measure_forgetting(SUITE, base, tuned), measure_forgetting(SUITE, tuned, base)
    assert (there.change_low, there.change_high) == pytest.approx(
        (-back.change_high, -back.change_low)
    )


@pytest.mark.parametrize(("lost", "gained"), [(0.05, 0.0), (0.1, 0.02), (0.3, 0.3)])
def test_interval_covers_the_true_change_as_it_says(lost, gained):
    """4 x 20 prompts, 95 % claimed; 200 samples have a standard error of .015 there."""
    rng = np.random.default_rng(0)
    category = np.repeat(list("abcd"), 20)
    hits = 0
    for _ in range(200):
        kind = rng.choice(3, len(category), p=[lost, gained, 1 - lost - gained])
        found = measure_forgetting(category, kind != 1, kind != 0)
        hits += found.change_low <= gained - lost <= found.change_high
    assert hits >= 180
