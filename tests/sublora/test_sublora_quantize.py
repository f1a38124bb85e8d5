"""Levels and assignments against a slow obvious Lloyd, and what decoding must preserve."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from sublora.quantize import METHODS, nearest, on_levels, quantize


def normal(d, seed=0):
    return np.random.default_rng(seed).normal(size=d).astype(np.float32)


def slow_nearest(w, levels):
    """argmin takes the lower of equals."""
    return np.array([np.argmin([abs(x - level) for level in levels]) for x in w])


def slow_lloyd(w, K):
    levels = [np.quantile(w, (k + 0.5) / K) for k in range(K)]
    for _ in range(100):
        symbols = slow_nearest(w, levels)
        moved = [w[symbols == k].mean() if (symbols == k).any() else levels[k] for k in range(K)]
        if moved == levels:
            break
        levels = moved
    return np.array(levels)


@pytest.mark.parametrize("K", [2, 3, 11, 16])
def test_kmeans_is_lloyd_from_quantiles(K):
    """Sums in another order differ by 1e-15, which may round to the next float16: 1e-3."""
    w = normal(300, seed=K).astype(np.float64)
    levels = METHODS["kmeans"](w, K)
    np.testing.assert_allclose(levels, slow_lloyd(w, K), rtol=1e-12)
    start = np.quantile(w, (np.arange(K) + 0.5) / K)[:, None]
    other, _ = kmeans2(w[:, None], start, iter=100, minit="matrix")
    np.testing.assert_allclose(levels, other[:, 0], rtol=1e-9)
    found = quantize(w, K, "kmeans")
    np.testing.assert_allclose(found.codebook, levels, rtol=2**-11)


def test_kmeans_stays_at_its_fixed_point_and_beats_equal_bins():
    w = normal(2000).astype(np.float64)
    levels = METHODS["kmeans"](w, 11)
    symbols = nearest(w, levels)
    means = [w[symbols == k].mean() for k in range(11)]
    np.testing.assert_allclose(levels, means, rtol=1e-12)
    errors = {m: np.square(quantize(w, 11, m).values - w).mean() for m in METHODS}
    assert errors["kmeans"] < errors["uniform"]


def test_kmeans_ends_after_a_hundred_rounds_at_the_latest():
    """40 levels of 20,000 coordinates are not at rest then: one more round still moves them."""
    w = np.sort(normal(20_000).astype(np.float64))
    levels = np.quantile(w, (np.arange(40) + 0.5) / 40)
    for _ in range(100):
        cuts = np.searchsorted(w, (levels[1:] + levels[:-1]) / 2, side="right")
        moved = np.array([part.mean() for part in np.split(w, cuts)])
        assert not np.array_equal(moved, levels)
        levels = moved
    np.testing.assert_allclose(METHODS["kmeans"](w, 40), levels, rtol=1e-9)


def test_uniform_bins_their_means_and_the_centres_of_empty_ones():
    """Bins [-4, -2], (-2, 0], (0, 2], (2, 4]: what lies on an edge belongs to the lower."""
    w = np.array([-4, -3, -2, 0.5, 1.5, 2.0])
    assert METHODS["uniform"](w, 4).tolist() == [-3, -1, 4 / 3, 3]
    assert METHODS["uniform"](-w, 4).tolist() == [-2, -1, 2, 3.5]


def test_ties_go_to_the_lower_level_also_of_equal_levels():
    levels = np.array([-1.0, 0, 0, 2])
    assert nearest([-0.5, 0.0, 1.0, 1.1, -9, 9, 0.4], levels).tolist() == [0, 1, 1, 3, 0, 3, 1]
    assert nearest([0.0, 3.0], np.array([2.0, -1, 2])).tolist() == [1, 0]


@pytest.mark.parametrize("K", [2, 7, 32])
def test_nearest_is_the_argmin(K):
    w, levels = normal(500), np.sort(normal(K, seed=1)).astype(np.float16)
    assert nearest(w, levels).tolist() == slow_nearest(w, levels.astype(np.float64)).tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("K", [2, 11, 32])
def test_values_are_the_nearest_float16_levels(method, K):
    """After rounding: every coordinate has the nearest of the levels that are sent."""
    w = normal(1000)
    found = quantize(w, K, method)
    assert found.codebook.dtype == np.float16
    assert found.codebook.shape == (K,)
    assert found.values.dtype == np.float32
    assert found.values.tolist() == found.codebook.astype(np.float32)[found.symbols].tolist()
    best = np.abs(w[:, None].astype(np.float64) - found.codebook).min(1)
    assert np.abs(w.astype(np.float64) - found.values).tolist() == best.tolist()


def test_symbols_follow_the_rounded_levels():
    """1.0004 and 1.0008 both round to 1.0 and 1.001; 1.0004 is nearer to the first then."""
    levels = np.array([1.0004, 1.0008])
    found = on_levels(np.array([1.0004, 1.0008, 1.0006]), levels)
    assert found.codebook.tolist() == [1.0, 1.0009765625]
    assert found.symbols.tolist() == [0, 1, 1]
    same = on_levels(np.array([0.9, 1.1]), np.array([1.0001, 1.0002]))
    assert same.symbols.tolist() == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_same_input_same_bits(method):
    a, b = (quantize(normal(1000), 11, method) for _ in range(2))
    assert a.codebook.tobytes() == b.codebook.tobytes()
    assert a.symbols.tolist() == b.symbols.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_few_and_equal_coordinates(method):
    for w in (np.zeros(5), np.full(5, 0.25), np.array([0.5]), np.array([-1.0, 1])):
        assert quantize(w, 11, method).values.tolist() == w.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_sent_is_an_error(method):
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"1 of 3 coordinates are not finite"):
            quantize(np.array([0, bad, 1]), 2, method)
    with pytest.raises(ValueError, match=r"level of 70000 does not fit float16"):
        quantize(np.array([70000.0, -70000]), 2, method)
    assert quantize(np.array([65504.0, 0]), 2, method).values[0] == 65504
