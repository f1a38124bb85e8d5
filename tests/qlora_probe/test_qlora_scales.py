"""Noise scale, stability limits, clipping, barriers and rank correlation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from qlora_probe.theory import (
    adam_limit,
    clip_coefficient,
    gradient_descent_limit,
    loss_barrier,
    noise_scale,
    rank_correlation,
)


def test_noise_scale_of_given_norms():
    found = noise_scale([260], [72.5], 4, 16)
    assert (found.n, found.G2, found.S, found.ratio) == pytest.approx((1, 10, 1000, 100))


def test_norms_of_the_theory_give_back_gradient_and_noise():
    """E|g_b|^2 = |G|^2 + tr(Sigma) / b, for any sizes, also ones that change."""
    b, B = np.array([1, 2, 4, 1]), np.array([16, 16, 64, 3])
    found = noise_scale(3 + 50 / b, 3 + 50 / B, b, B)
    assert (found.G2, found.S, found.ratio) == pytest.approx((3, 50, 50 / 3))


@pytest.mark.parametrize("parts", [[4, 4, 4, 4], [4, 4, 2]])
def test_noise_scale_of_drawn_gradients(parts):
    """Gaussian gradients of known mean and covariance; unequal parts by their harmonic mean.

    20,000 steps: standard errors of at most .03 for G2 and .09 for S.
    """
    rng = np.random.default_rng(0)
    G, spread = np.array([3.0, -1, 2]), np.array([1.0, 3, 2])
    g = G + spread * rng.normal(size=(20_000, sum(parts), 3))
    micro = np.split(g, np.cumsum(parts)[:-1], axis=1)
    small = np.mean([np.square(part.mean(1)).sum(1) for part in micro], axis=0)
    big = np.square(g.mean(1)).sum(1)
    b = 1 / np.mean([1 / n for n in parts])
    found = noise_scale(small, big, b, sum(parts))
    assert found.n == 20_000
    assert (found.G2, found.S, found.ratio) == pytest.approx((14, 14, 1), rel=0.05)


def test_means_are_taken_before_the_ratio():
    """Steps of (G2, S) = (1, 30) and (3, 10): 20 / 2, not the mean of 30 and 10 / 3."""
    G2, S = np.array([1, 3]), np.array([30, 10])
    assert noise_scale(G2 + S / 2, G2 + S / 8, 2, 8).ratio == pytest.approx(10)


def test_noise_scale_is_undefined_without_two_sizes_or_a_gradient():
    alone = noise_scale([5.0, 6.0], [5.0, 6.0], 4, 4)
    assert (alone.n, alone.G2, alone.S, alone.ratio) == (0, None, None, None)
    assert noise_scale([], [], 1, 4).ratio is None
    noise_only = noise_scale([8.0], [1.9], 1, 4)
    assert (noise_only.n, noise_only.ratio) == (1, None)
    assert noise_only.G2 < 0 < noise_only.S
    # One step of a single micro-batch, one that broke, one that counts.
    mixed = noise_scale([8, math.inf, 260], [8, math.nan, 72.5], 4, [4, 16, 16])
    assert (mixed.n, mixed.ratio) == pytest.approx((1, 100))


def test_limits_of_two_optimisers():
    assert gradient_descent_limit(0.01) == 200
    assert adam_limit(2e-4, 0.9) == pytest.approx(38 / 2e-4)
    assert adam_limit(0.01, 0) == gradient_descent_limit(0.01)


@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("share", "grows"), [(0.99, False), (1.01, True)])
def test_the_limit_divides_decay_from_growth(b1, share, grows):
    """x <- x - lr m, m <- b1 m + (1 - b1) h x: Adam with a fixed preconditioner of 1."""
    lr = 0.01
    h = share * adam_limit(lr, b1)
    x, m = 1.0, 0.0
    for _ in range(2000):
        m = b1 * m + (1 - b1) * h * x
        x -= lr * m
    assert (abs(x) > 1) is grows


def test_clip_coefficient():
    assert clip_coefficient(5, 1) == pytest.approx(0.2, abs=1e-6)
    assert clip_coefficient([0.5, 0, 10, math.inf], 1).tolist() == pytest.approx([1, 1, 0.1, 0])


@pytest.mark.parametrize("norm", [0.3, 5.0])
def test_clip_coefficient_is_torchs(norm):
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([0.6, 0.8], dtype=torch.float64) * norm
    torch.nn.utils.clip_grad_norm_([p], 1.0)
    assert p.grad.norm().item() == pytest.approx(norm * clip_coefficient(norm, 1.0), rel=1e-12)


def test_barrier_of_a_double_well():
    """(2a - 1)^2 turned over: 1 above the line at a = 1/2; a slope between the ends is no part."""
    a = np.linspace(-0.5, 1.5, 21)
    assert loss_barrier(a, 4 * a * (1 - a) + 3 + 2 * a) == pytest.approx(1)
    assert loss_barrier(a, (a - 0.5) ** 2) == pytest.approx(0)  # a basin: below the line
    outside = np.where((a < -0.01) | (a > 1.01), 99, 1.0)
    assert loss_barrier(a, outside) == pytest.approx(0)


def test_barrier_without_ends_or_numbers():
    with pytest.raises(ValueError, match="needs a = 0 and a = 1"):
        loss_barrier([0, 0.5], [1, 2])
    assert math.isnan(loss_barrier([0, 0.5, 1], [1, math.nan, 1]))


def test_rank_correlation_of_few_points_has_an_exact_p():
    """Four in order: 2 of 24 orders are as extreme. The t approximation says 0."""
    found = rank_correlation([1, 2, 3, 4], [1, 8, 27, 64])
    assert (found.n, found.rho) == (4, pytest.approx(1))
    assert found.p == pytest.approx(2 / 24)
    assert rank_correlation([1, 2, 3, 4, 5], [9, 7, 5, 3, 1]).p == pytest.approx(2 / 120)


def test_rank_correlation_is_spearmans_and_the_same_every_time():
    """p against the t approximation, which is good at 40 points; 9,999 pairings: se .004."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 12, 40)  # ties
    y = x + 30 * rng.normal(size=40)
    found, (rho, p) = rank_correlation(x, y), stats.spearmanr(x, y)
    assert found.rho == pytest.approx(rho)
    assert found.p == pytest.approx(p, abs=0.02)
    assert 0.01 < p < 0.5
    assert found == rank_correlation(x, y)


def test_rank_correlation_leaves_out_what_is_missing():
    x, y = [1, 2, math.nan, 3, 4, 5], [1, 2, 3, math.inf, 5, 7]
    assert rank_correlation(x, y) == rank_correlation([1, 2, 4, 5], [1, 2, 5, 7])
    three = rank_correlation(x[:5], y[:5])
    assert (three.n, three.rho, three.p) == (3, None, None)
    constant = rank_correlation([1, 2, 3, 4], [2, 2, 2, 2])
    assert (constant.n, constant.rho, constant.p) == (4, None, None)
