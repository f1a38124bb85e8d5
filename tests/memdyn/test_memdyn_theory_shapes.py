"""Shapes of trajectories: real and exact courses, the level and the power of the U test."""

import numpy as np
import pytest
from memdyn_series import QUICK, long, one_layer
from scipy import stats

from memdyn.theory import analyze_u_shape_trajectory

LONG = np.array([0, 1, 3, 5, 10, 20, 30, 50, 100])
GPT2 = {  # mean nv of 100 trained passages, epochs 1 to 100; SD at epoch 1
    10: ([-6.9219, -7.0194, -7.1293, -7.3022, -7.936, -8.3087, -8.4269, -8.4671], 0.2642),
    0: ([-5.2271, -5.2331, -5.2172, -5.2214, -5.274, -5.3308, -5.3877, -5.4513], 0.2167),
}


def means(y, epochs, **columns):
    return {"epoch": epochs, "nv_rel": np.asarray(y, float)} | columns


def noisy(mean, n, rng, sd=1.0):
    return one_layer(np.asarray(mean)[:, None] + sd * rng.normal(size=(len(mean), n)))


def test_a_saturating_fall_is_no_u_though_quadratic_and_lind_mehlum_say_so():
    found = analyze_u_shape_trajectory(means(-1.5 * (1 - np.exp(-LONG / 15)), LONG))
    assert found.shape == "monotone_decreasing"
    assert found.turning_epoch is None
    assert found.a > 0
    assert found.vertex_inside
    assert found.lind_mehlum_p == pytest.approx(0.006, abs=5e-4)


@pytest.mark.parametrize(("layer", "r_squared"), [(10, 0.972), (0, 0.970)])
def test_falls_of_gpt2_are_monotone_though_the_quadratic_opens_upwards(layer, r_squared):
    y, sd = GPT2[layer]
    found = analyze_u_shape_trajectory(means(y, LONG[1:], sd=[sd] * 8))
    assert found.shape == "monotone_decreasing"
    assert found.a > 0
    assert found.r_squared == pytest.approx(r_squared, abs=5e-4)
    assert found.min_change == pytest.approx(0.1 * sd)
    assert found.p is None
    if layer == 10:
        assert found.lind_mehlum_p == pytest.approx(0.0047, abs=5e-5)


@pytest.mark.parametrize(
    ("y", "shape", "turn"),
    [
        ([0, -1, -2, -1, 0.5], "u_shaped", 3),
        ([0, 1, 2, 1, -0.5], "inverted_u", 3),
        ([0, 0.05, -0.04, 0.03, 0], "flat", None),
        ([0, -1, -0.95, -1.5, -2], "monotone_decreasing", None),
        ([0, 1, 0.95, 1.5, 2], "monotone_increasing", None),
        ([0, -1, -0.5, -1.5, -2], "unclear", None),
        ([0, -2, 2, 1, 0.5], "unclear", None),
        ([0, -2, -1, 0], "too_few", None),
    ],
)
def test_shapes_of_means(y, shape, turn):
    """SD 1: changes count from .1 on."""
    epochs = np.array([0, 1, 3, 10, 20])[: len(y)]
    found = analyze_u_shape_trajectory(means(y, epochs, sd=np.ones(len(y))))
    assert (found.shape, found.turning_epoch) == (shape, turn)
    assert (found.reason is None) == (shape not in ("unclear", "too_few") and found.p is not None)


def test_falling_and_rising_are_mirror_images():
    rng = np.random.default_rng(0)
    data = noisy([1, 0.5, 0, -0.3, -0.5, -0.3, 0.2, 0.6, 1], 40, rng)
    u = analyze_u_shape_trajectory(data)
    mirrored = analyze_u_shape_trajectory(data | {"nv_rel": -data["nv_rel"]})
    assert (u.shape, mirrored.shape) == ("u_shaped", "inverted_u")
    assert (u.p, u.p_inverted) == (mirrored.p_inverted, mirrored.p)
    assert (u.fall, u.turning_epoch) == (mirrored.rise, mirrored.turning_epoch)


def test_p_is_the_smallest_of_the_interior_epochs_times_their_number():
    """Against scipy's paired t tests, arm by arm."""
    y = np.random.default_rng(3).normal(size=(9, 30)) + np.square(np.linspace(-1, 1, 9))[:, None]
    by_epoch = [
        max(stats.ttest_rel(y[end], y[t], alternative="greater").pvalue for end in (0, -1))
        for t in range(1, 8)
    ]
    found = analyze_u_shape_trajectory(one_layer(y))
    assert found.p == pytest.approx(7 * min(by_epoch), rel=1e-10)


@pytest.mark.parametrize("start", [0, 5, -5])  # noise; a fall, a rise that has levelled off
def test_courses_without_a_u_are_called_u_shaped_in_at_most_five_percent(start):
    """1000 courses of 9 epochs and 20 passages; three standard errors above 5 % are 7.1 %."""
    rng = np.random.default_rng(start + 10)
    mean = [start] + [0] * 8
    shapes = [analyze_u_shape_trajectory(noisy(mean, 20, rng)).shape for _ in range(1000)]
    turning = shapes.count("u_shaped") + shapes.count("inverted_u")
    assert turning <= 50
    assert start != 0 or turning <= 20  # on plain noise Bonferroni's bound is far off


def test_a_steady_fall_with_noise_is_never_called_u_shaped():
    """SD .3 of independent noise, a fall of .08 per epoch: noise makes the mean rise in between."""
    rng = np.random.default_rng(5)
    mean = -0.08 * np.array(QUICK)
    shapes = [analyze_u_shape_trajectory(noisy(mean, 50, rng, 0.3)).shape for _ in range(200)]
    assert set(shapes) <= {"monotone_decreasing", "unclear"}
    assert shapes.count("monotone_decreasing") > 100


def test_a_real_u_is_found():
    """Depth .7 SD, 50 passages: in at least 80 % of 100 courses, turning near its bottom."""
    rng = np.random.default_rng(6)
    mean = 0.7 * np.square(np.linspace(-1, 1, 9))
    found = [analyze_u_shape_trajectory(noisy(mean, 50, rng)) for _ in range(100)]
    assert sum(one.shape == "u_shaped" for one in found) >= 80
    turns = [one.turning_epoch for one in found if one.shape == "u_shaped"]
    assert np.mean([5 <= turn <= 12 for turn in turns]) > 0.9


def test_a_u_below_the_least_effect_is_none():
    """A proven but tiny dip: .05 SD between passages, nearly equal courses."""
    rng = np.random.default_rng(7)
    level = rng.normal(size=100)
    y = level + 0.05 * np.square(np.linspace(-1, 1, 9))[:, None] + 1e-3 * rng.normal(size=(9, 100))
    found = analyze_u_shape_trajectory(one_layer(y))
    assert found.p < 1e-6
    assert found.shape == "flat"
    assert analyze_u_shape_trajectory(one_layer(y), min_effect=0.02).shape == "u_shaped"


def test_quadratics_and_lines_are_recovered():
    e = np.array(QUICK, float)
    found = analyze_u_shape_trajectory(means(0.02 * e**2 - 0.3 * e + 1, QUICK))
    np.testing.assert_allclose([found.a, found.b, found.c], [0.02, -0.3, 1], atol=1e-12)
    assert found.vertex == pytest.approx(7.5)
    assert found.r_squared == pytest.approx(1)
    tent = analyze_u_shape_trajectory(means(np.abs(e - 8) * np.where(e < 8, 2, 3), QUICK))
    np.testing.assert_allclose(tent.two_lines["epoch"], (-2, 3), atol=1e-12)
    log = np.log1p(e)
    bent = analyze_u_shape_trajectory(means(np.abs(log - log[4]) * 4, QUICK))
    np.testing.assert_allclose(bent.two_lines["ln(1+epoch)"], (-4, 4), atol=1e-12)


def test_lind_mehlum_is_the_t_test_of_the_end_slopes():
    """Against the covariance (X'X)^-1 s^2 written out."""
    rng = np.random.default_rng(8)
    e = np.array(QUICK, float)
    y = 0.01 * (e - 9) ** 2 + 0.3 * rng.normal(size=9)
    X = np.stack([e**2, e, np.ones(9)], 1)
    beta = np.linalg.inv(X.T @ X) @ X.T @ y
    covariance = np.linalg.inv(X.T @ X) * np.square(y - X @ beta).sum() / 6
    ends = [np.array([2 * e[i], 1, 0]) for i in (0, -1)]
    low, high = (end @ beta / np.sqrt(end @ covariance @ end) for end in ends)
    expected = max(stats.t.cdf(low, 6), stats.t.sf(high, 6))
    found = analyze_u_shape_trajectory(means(y, QUICK))
    assert found.lind_mehlum_p == pytest.approx(expected, rel=1e-8)


def test_the_difference_of_the_groups_has_a_welch_interval():
    values = np.random.default_rng(9).normal(size=(1, 9, 25))
    found = analyze_u_shape_trajectory(long(values, n_trained=10), alpha=0.1)
    welch = stats.ttest_ind(values[0, :, :10], values[0, :, 10:], axis=1, equal_var=False)
    interval = welch.confidence_interval(0.9)
    np.testing.assert_allclose(found.difference_low, interval.low, rtol=1e-10)
    np.testing.assert_allclose(found.difference_high, interval.high, rtol=1e-10)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_passages_and_equal_ones_give_a_shape_without_warnings(n, recwarn):
    y = np.zeros((9, n))
    found = analyze_u_shape_trajectory(one_layer(y)) if n else None
    assert not n or found.shape == "flat"
    if n == 1:
        assert found.reason == "no test: fewer than 2 passages known"
    nothing = analyze_u_shape_trajectory(long(np.zeros((1, 9, 4)), n_trained=0))
    assert nothing.shape == "too_few"
    assert "no trained passage" in nothing.reason
    assert not recwarn.list
