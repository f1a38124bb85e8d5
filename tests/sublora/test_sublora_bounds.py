"""Bounds against known numbers, their own limits, and simulations in which they must hold."""

import math

import numpy as np
import pytest
from scipy import stats

from sublora.bounds import (
    bound,
    delta_range,
    guess_bits,
    guess_error,
    kl_nats,
    predictable_bound,
    price_bits,
)
from sublora.config import ALPHAS


def test_known_ranges_of_smoothed_losses():
    assert delta_range(ALPHAS, 50257) == pytest.approx(
        [28.904605, 25.581378, 23.253662, 22.246394, 19.864966, 18.786965, 17.202009, 15.617066],
        abs=5e-7,
    )
    assert delta_range(0.1, 257) == pytest.approx(11.176173, abs=5e-7)
    assert delta_range([0.01, 0.1, 0.5], 64) == pytest.approx(
        [12.629584, 9.172428, 6.022368], abs=5e-7
    )


def test_the_range_is_that_of_the_loss_of_a_smoothed_prediction():
    p = np.array([1.0, 0, 0, 0])
    loss = -np.log2(0.9 * p + 0.1 / 4)
    assert np.ptp(loss) == pytest.approx(delta_range(0.1, 4))


def test_known_prices():
    assert price_bits([1, 100, 1000, 10000]) == pytest.approx(
        [2, 113.302068, 1019.933011, 10026.575569], abs=5e-7
    )
    assert price_bits(1000, "paper") == pytest.approx(1000 + 2 * math.log2(1000))


def test_masses_of_all_messages_sum_to_one_and_the_published_ones_to_more():
    """2^L messages of length L; up to 10^6 the sum is 1 - 1/(10^6 + 1), and pi^2/6 - 10^-6.

    2^(L - price) loses 10 digits where L is 10^6: 1e-9.
    """
    L = np.arange(1, 10**6 + 1)
    total = 2 ** (L - price_bits(L))
    assert total.sum() == pytest.approx(1 - 1 / (10**6 + 1), abs=1e-9)
    published = 2 ** (L - price_bits(L, "paper"))
    assert published.sum() == pytest.approx(math.pi**2 / 6 - 1e-6, abs=1e-9)
    assert math.log2(math.pi**2 / 6) == pytest.approx(0.718, abs=5e-4)


def test_known_bounds():
    S = math.log2(240)
    kl = kl_nats(2000, S)
    assert kl == pytest.approx(1406.977305, abs=5e-7)
    large, small = delta_range(0.1, 50257), delta_range(0.1, 64)
    m = 8_009_762
    assert bound(9, kl, m, m, 0.05, S, large) == pytest.approx(9.176253, abs=5e-7)
    assert bound(9, kl, m, 10_000, 0.05, S, large) == pytest.approx(9.563464, abs=5e-7)
    assert bound(4.5, kl, 20_000, 20_000, 0.05, S, small) == pytest.approx(6.222105, abs=5e-7)
    assert bound(4.5, kl, 20_000, 5_000, 0.05, S, small) == pytest.approx(6.493628, abs=5e-7)
    assert bound(0.5, 1000, 10**5, 10**5, 0.05, 0, 1) == pytest.approx(0.570817, abs=5e-7)
    assert bound(0.5, 1000, 10**5, 1000, 0.05, 0, 1) == pytest.approx(0.609746, abs=5e-7)


@pytest.mark.parametrize("n", [1000, 40_000])
def test_bound_of_an_alpha_does_not_depend_on_its_place_in_the_grid(n):
    S = math.log2(len(ALPHAS))
    risk, order = np.linspace(4, 5, len(ALPHAS)), np.random.default_rng(0).permutation(8)

    def bounds(order):
        ranges = delta_range(np.array(ALPHAS)[order], 64)
        return bound(risk[order], kl_nats(5000, S), 40_000, n, 0.05, S, ranges)

    assert bounds(order).tolist() == bounds(np.arange(8))[order].tolist()


def test_arguments_broadcast():
    kl, delta = np.array([[100.0], [200]]), np.array([0.05, 0.1, 0.2])
    for n in (50, 1000):
        table = bound(0.5, kl, 1000, n, delta, 3, 1.0)
        assert table.shape == (2, 3)
        assert table[1, 2] == bound(0.5, 200, 1000, n, 0.2, 3, 1.0)
    table = predictable_bound(0.5, kl, 1000, delta, 1.0, 0.3)
    assert table.shape == (2, 3)
    assert table[1, 2] == predictable_bound(0.5, 200, 1000, 0.2, 1.0, 0.3)


@pytest.mark.parametrize("share", [1, 0.5, 0.1, 0.01, 13.5**-2])
def test_predictable_bound_is_that_of_the_best_lambda(share):
    """With v = share Delta^2, within the grid: cosh(ln 2 / 8) = 1.0038 times the best at most."""
    kl, m, delta, width = 700.0, 50_000, 0.05, 9.0
    best = math.sqrt(share * width**2 * (kl + math.log(16 / delta)) / (2 * m))
    excess = predictable_bound(4.0, kl, m, delta, width, share * width**2) - 4.0
    assert best * (1 - 1e-12) <= excess <= best * math.cosh(math.log(2) / 8)


def test_predictable_bound_at_the_worst_ranges_is_the_plain_one_with_ln_16():
    plain = bound(4.0, 700 + math.log(16), 50_000, 50_000, 0.05, 3, 9.0)
    assert predictable_bound(4.0, 700, 50_000, 0.05, 9.0, 81.0) == pytest.approx(plain, rel=1e-12)


def test_guessing():
    assert guess_bits(64) == 6
    assert guess_error(16, 64) == 0.75


# Simulations: losses of hypotheses that are all equally good, so that choosing by the training loss
# overfits. A hypothesis' training losses enter by their sum.


def test_bound_holds_for_the_best_of_256_coins_and_not_without_the_kl():
    """256 hypotheses at 8 bits, m = 200, delta = 0.1, 2,000 repeats.

    The exact rates are 1 - P(no violation)^256; simulated ones differ by 5 standard errors at most.
    """
    m, delta, repeats = 200, 0.1, 2000
    least = np.random.default_rng(0).binomial(m, 0.5, (repeats, 256)).min(1)
    rates = {}
    for kl in (8 * math.log(2), 0.0):
        rate = np.mean(bound(least / m, kl, m, m, delta, 0, 1) < 0.5)
        violating = bound(np.arange(m + 1) / m, kl, m, m, delta, 0, 1) < 0.5
        exact = 1 - (1 - stats.binom.pmf(np.arange(m + 1), m, 0.5)[violating].sum()) ** 256
        assert rate == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / repeats))
        rates[kl] = rate
    assert rates[8 * math.log(2)] <= delta
    assert rates[0.0] > 0.9


def test_bound_of_a_subsample_holds_and_not_without_the_search_bits():
    """4,096 runs, each with one hypothesis; the best by n = 50 of m = 2,000 units, delta = 0.1.

    The published second root knows nothing of that choice: its bound fails in most repeats.
    """
    m, n, delta, S, repeats = 2000, 50, 0.1, 12, 500
    generator = np.random.default_rng(0)
    errors = generator.binomial(m, 0.5, (repeats, 2**S))
    # Apart for each hypothesis: their losses are independent, so one subsample for all is the same.
    least = generator.hypergeometric(errors, m - errors, n).min(1) / n
    kl = S * math.log(2)
    assert np.mean(bound(least, kl, m, n, delta, S, 1) < 0.5) <= delta
    assert np.mean(bound(least, kl, m, n, delta, 0, 1) < 0.5) > 0.9
    assert np.mean(bound(least, 0.0, m, n, delta, 0, 1) < 0.5) > 0.9


@pytest.mark.parametrize("n", [100, 150, 199])
def test_bound_of_a_subsample_holds_for_the_best_by_training_loss_and_not_without_the_kl(n):
    """2^30 hypotheses at 30 bits; the best on all m = 200 units, bounded by n of them.

    The least of N independent losses is drawn by its distribution function 1 - (1 - F)^N.
    """
    m, delta, kl, repeats = 200, 0.1, 30 * math.log(2), 2000
    generator = np.random.default_rng(1)
    quantile = -np.expm1(np.log1p(-generator.random(repeats)) / 2**30)
    least = stats.binom.ppf(quantile, m, 0.5).astype(int)
    risk = generator.hypergeometric(least, m - least, n) / n
    assert np.mean(bound(risk, kl, m, n, delta, 0, 1) < 0.5) <= delta
    assert np.mean(bound(risk, 0.0, m, n, delta, 0, 1) < 0.5) > 5 * delta


def test_predictable_bound_holds_where_contexts_differ_and_not_without_the_kl():
    """Token i loses 0 or Delta_i, each with 1/2; Delta_i is 1 with 1/10, else 0.1, known before."""
    m, delta, repeats, kl = 400, 0.1, 2000, 8 * math.log(2)
    generator = np.random.default_rng(2)
    wide = generator.binomial(m, 0.1, (repeats, 1))
    narrow = m - wide
    losses = generator.binomial(wide, 0.5, (repeats, 256)) * 1.0
    losses += generator.binomial(narrow, 0.5, (repeats, 256)) * 0.1
    risk, truth = losses.min(1) / m, (wide + 0.1 * narrow)[:, 0] / (2 * m)
    v = (wide + 0.01 * narrow)[:, 0] / m
    found = predictable_bound(risk, kl, m, delta, 1.0, v)
    assert np.mean(found < truth) <= delta
    assert found.mean() < bound(risk, kl, m, m, delta, 0, 1.0).mean()  # what it is for
    # Without KL and grid, at the best lambda of each repeat.
    assert np.mean(risk + np.sqrt(v * math.log(1 / delta) / (2 * m)) < truth) > 0.9
