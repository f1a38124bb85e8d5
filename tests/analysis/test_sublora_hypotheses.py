"""H1, H2, H3: against scipy's tests on known data; what is planted is found, a null is not."""

import numpy as np
import polars as pl
import pytest
import sublora_rows as rows
from scipy import stats
from sublora_rows import METHODS, SEEDS, cells, outcome, write, write_grid

from analysis.sublora import differences, gate_tests, load_grid, report, slopes

LAYERS = [0, 1, 2, 3, -1]


def learned_grid(folder, gammas: np.ndarray, d: int = 1000):
    """Runs with learned gates [seeds, layers], the head last."""
    runs = {}
    for seed, gamma in enumerate(gammas):
        run = outcome("learned", d, seed)
        run.tables["gates"] = rows.gates({0: np.full(len(gamma), 0.5), 350: gamma}, LAYERS)
        runs["learned", d, seed] = run
    return load_grid(write(folder, runs))


def with_effect(folder, effect: float, n_seeds: int = 6):
    """BPD of `learned` = that of uniform + effect + a little noise; seeds differ by much more."""
    rng = np.random.default_rng(0)
    runs = {}
    for seed in range(n_seeds):
        of_seed, noise = 4 + rng.normal(), 0.02 * rng.normal(size=2)
        for method, bpd in (("uniform", noise[0]), ("learned", noise[1] + effect)):
            runs[method, 1000, seed] = outcome(
                method, 1000, seed, empirical_bpd=of_seed + bpd, bound_value=of_seed + bpd + 1
            )
    return load_grid(write(folder, runs))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return load_grid(write_grid(tmp_path_factory.mktemp("full")))


@pytest.mark.parametrize("measure", ["bound_value", "empirical_bpd"])
def test_differences_are_paired_by_seed(full, measure):
    found = differences(full).filter(measure=measure)
    assert len(found) == 2 * 2 * 4
    for row in found.rows(named=True):
        ours, theirs = (
            [outcome(method, row["d"], seed).scalars[measure] for seed in SEEDS]
            for method in (row["method"], row["minus"])
        )
        test = stats.ttest_rel(ours, theirs)
        assert row["values"] == pytest.approx(np.subtract(ours, theirs))
        assert row["mean"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert (row["low"], row["high"]) == pytest.approx(test.confidence_interval(0.95))
    pairs = set(found.select("method", "minus").rows())
    references = ("uniform", "fixed_0.5")
    assert pairs == {(m, ref) for ref in references for m in METHODS if m != ref}


def test_a_planted_difference_is_found_though_seeds_differ_more(tmp_path):
    grid = with_effect(tmp_path, -0.2)
    [bound, bpd] = differences(grid).rows(named=True)
    for row in (bound, bpd):
        assert row["low"] < -0.2 < row["high"] < 0
    [of_seeds] = (
        grid.rows.filter(pl.col("allocation.name") == "uniform")
        .select(pl.col("empirical_bpd").std())
        .row(0)
    )
    assert of_seeds > 0.5
    assert "front of (KL, BPD) at d = 1000: " in report(grid)


def test_no_difference_is_found_where_there_is_none(tmp_path):
    for row in differences(with_effect(tmp_path, 0)).rows(named=True):
        assert row["low"] < 0 < row["high"]


def test_a_seed_without_its_partner_does_not_count(tmp_path):
    runs = cells(["uniform", "fixed_0.5"], [1000], SEEDS)
    runs.remove(("uniform", 1000, 123))
    runs.remove(("fixed_0.5", 1000, 999))
    found = differences(load_grid(write_grid(tmp_path, runs)))
    expected = [
        outcome("fixed_0.5", 1000, 42).scalars[name] - outcome("uniform", 1000, 42).scalars[name]
        for name in ("bound_value", "empirical_bpd")
    ]
    assert [row["values"] for row in found.rows(named=True)] == [
        pytest.approx([sign * value]) for sign in (1, -1) for value in expected
    ]
    assert found["low"].null_count() == 4


def test_gates_are_tested_per_layer_against_one_half(tmp_path):
    gammas = 0.5 + np.random.default_rng(1).normal(0.05, 0.1, size=(5, 5))
    found = gate_tests(learned_grid(tmp_path, gammas))
    assert found["layer"].to_list() == LAYERS
    test = stats.ttest_1samp(gammas, 0.5)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(found["mean"], gammas.mean(axis=0) - 0.5)
    np.testing.assert_allclose(found["low"], interval.low - 0.5)
    np.testing.assert_allclose(found["high"], interval.high - 0.5)
    np.testing.assert_allclose(found["p"], test.pvalue)
    np.testing.assert_allclose(found["q"], benjamini_hochberg(test.pvalue))


def benjamini_hochberg(p: np.ndarray) -> list[float]:
    """q_i = min over j with p_j >= p_i of p_j n / (the number of p <= p_j)."""
    return [min(1, min(x * len(p) / np.sum(p <= x) for x in p[p >= p_i])) for p_i in p]


def test_layers_of_each_budget_are_controlled_apart(full):
    found = gate_tests(full)
    for d in (1000, 2000):
        of = found.filter(d=d)
        np.testing.assert_allclose(of["q"], benjamini_hochberg(of["p"].to_numpy()))


def test_planted_gates_are_found_and_others_are_not(tmp_path):
    gammas = 0.5 + 0.02 * np.random.default_rng(3).normal(size=(6, 5))
    gammas[:, [1, 4]] += 0.2
    grid = learned_grid(tmp_path, gammas)
    assert gate_tests(grid).filter(pl.col("q") < 0.05)["layer"].to_list() == [1, -1]
    assert "d = 1000, layers with q < 0.05: 1, head\n" in report(grid)


def test_gates_equal_in_all_seeds_are_not_tested(tmp_path):
    """The t test calls them certain: p = 0, though one step of k may part the next seed."""
    gammas = 0.6 + 0.02 * np.random.default_rng(3).normal(size=(3, 5))
    gammas[:, 2] = 1
    grid = learned_grid(tmp_path, gammas)
    found = gate_tests(grid)
    assert found["p"].is_null().to_list() == [False, False, True, False, False]
    tested = found.drop_nulls("p")
    np.testing.assert_allclose(tested["q"], benjamini_hochberg(tested["p"].to_numpy()))
    assert "d = 1000, equal in all seeds, so not tested: 2\n" in report(grid)
    assert found["mean"][2] == 0.5


def test_slopes_leave_the_head_out(tmp_path):
    rng = np.random.default_rng(4)
    gammas = 0.3 + 0.1 * np.arange(4) + 0.01 * rng.normal(size=(4, 4))
    gammas = np.column_stack([gammas, np.zeros(4)])
    grid = learned_grid(tmp_path, gammas)
    [row] = slopes(grid).rows(named=True)
    expected = np.polyfit(range(4), gammas[:, :4].T, 1)[0]
    np.testing.assert_allclose(row["values"], expected)
    interval = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert "d = 1000, towards the head: rises" in report(grid)


@pytest.mark.parametrize(("slope", "says"), [(-0.1, "falls"), (0.0, "no change is shown")])
def test_slopes_say_which_way(tmp_path, slope, says):
    noise = np.array([[1, -1, 1, -1, 0], [-1, 1, -1, 1, 0], [1, 1, 1, 1, 0]]) / 100
    grid = learned_grid(tmp_path, 0.5 + slope * np.arange(5) + noise)
    assert f"d = 1000, towards the head: {says}" in report(grid)


def test_under_three_seeds_values_and_no_interval(tmp_path):
    grid = load_grid(write_grid(tmp_path, cells(["uniform", "learned"], [1000], [42, 123])))
    for found in (differences(grid), gate_tests(grid), slopes(grid)):
        assert len(found) > 0
        assert set(found["values"].list.len()) == {2}
        assert found["low"].null_count() == found["high"].null_count() == len(found)
    text = report(grid)
    for row in differences(grid).rows(named=True):
        assert ", ".join(f"{value:+.4f}" for value in row["values"]) in text
    assert " .. " not in text
    assert "of fewer the values are listed" in text


def test_report_names_who_is_dominated_by_whom(tmp_path):
    points = {"uniform": (1000, 4.0), "fixed_0.5": (900, 4.5), "learned": (1100, 4.2)}
    runs = {
        (method, 1000, seed): outcome(
            method, 1000, seed, kl_divergence=kl + seed, empirical_bpd=bpd
        )
        for method, (kl, bpd) in points.items()
        for seed in range(2)
    }
    text = report(load_grid(write(tmp_path, runs)))
    assert "front of (KL, BPD) at d = 1000: uniform, fixed_0.5\n" in text
    assert "learned is dominated by uniform\n" in text
    assert text.count("is dominated by") == 1


def test_what_no_run_tells_is_said(tmp_path):
    text = report(load_grid(write_grid(tmp_path, cells(["fixed_0.2"]))))
    assert "no run of uniform or fixed_0.5 beside another method" in text
    assert "not told: no learned gates\n" in text
    assert "not told: no learned gates in two layers" in text
