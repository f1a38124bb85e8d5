"""Which layers part first, and which go with accuracy."""

import numpy as np
import pytest
from memdyn_series import QUICK, long, run_of
from scipy import stats

from memdyn.theory import analyze_layer_temporal_patterns, layer_correlations


def parting(*starts, n=40, seed=0):
    """Layers in which trained passages move away from the given epoch on; None: never."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(starts), len(QUICK), 2 * n))
    for layer, start in enumerate(starts):
        if start is not None:
            values[layer, np.array(QUICK) >= start, :n] += 3
    return long(values)


@pytest.mark.parametrize(
    ("starts", "pattern"),
    [
        ((3, 5, 10, 15), "early_first"),
        ((15, 10, 5, 3), "late_first"),
        ((5, 10, 12, 5), "simultaneous"),
        ((5, None, None, None), "early_only"),
        ((None, None, None, 5), "late_only"),
        ((None, None, None, None), "no_differences"),
        ((None, 5, None), "simultaneous"),  # the middle one of three is in both halves
        ((3, 5, 10), "early_first"),
    ],
)
def test_patterns(starts, pattern):
    found = analyze_layer_temporal_patterns(parting(*starts))
    assert found.emergence == starts
    assert (found.pattern, found.reason) == (pattern, None)


def test_a_difference_at_one_epoch_alone_is_no_emergence():
    data = parting(None, None)
    blip = (data["epoch"] == 5) | (data["epoch"] == 20)
    data["nv_rel"] += 3 * (blip & (data["group"] == "trained"))
    found = analyze_layer_temporal_patterns(data)
    assert (found.q[:, [2, -1]] < 0.05).all()
    assert found.pattern == "no_differences"


def test_statistics_are_those_of_scipy():
    """Welch's p, and q by Benjamini & Hochberg over the whole grid; g by its definition."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 9, 25))
    values[..., :10] *= 2
    found = analyze_layer_temporal_patterns(long(values, n_trained=10))
    change = values[:, 1:] - values[:, :1]
    trained, novel = change[..., :10], change[..., 10:]
    welch = stats.ttest_ind(trained, novel, axis=-1, equal_var=False)
    np.testing.assert_allclose(found.p, welch.pvalue, rtol=1e-10)
    q = stats.false_discovery_control(welch.pvalue, axis=None)
    np.testing.assert_allclose(found.q.ravel(), q, rtol=1e-10)
    pooled = np.sqrt((9 * trained.var(-1, ddof=1) + 14 * novel.var(-1, ddof=1)) / 23)
    d = (trained.mean(-1) - novel.mean(-1)) / pooled
    np.testing.assert_allclose(found.g, d * (1 - 3 / (4 * 23 - 1)), rtol=1e-3)  # approximation
    np.testing.assert_allclose(found.difference, trained.mean(-1) - novel.mean(-1), atol=1e-12)


def test_noise_gives_no_pattern():
    """Emergence asks for two epochs in a row: at most 5 % of 100 seeded cases."""
    patterns = [
        analyze_layer_temporal_patterns(parting(None, None, None, seed=seed)).pattern
        for seed in range(100)
    ]
    assert patterns.count("no_differences") >= 95


def test_a_layer_with_missing_values_leaves_the_others_alone():
    data = parting(3, 5)
    whole = analyze_layer_temporal_patterns(data)
    broken = (data["layer"] == 1) & (data["epoch"] == 8)
    found = analyze_layer_temporal_patterns(
        data | {"nv_rel": np.where(broken, None, data["nv_rel"])}
    )
    assert np.isnan(found.p[1, 3])
    assert np.isnan(found.q[1, 3])
    np.testing.assert_array_equal(found.p[0], whole.p[0])
    assert found.emergence == (3, 10)


@pytest.mark.parametrize(
    ("values", "epochs", "n_trained", "reason"),
    [
        (np.ones((2, 1, 6)), (0,), 3, "2 epochs and 2 passages of each group"),
        (np.random.default_rng(0).normal(size=(2, 2, 6)), (0, 1), 3, "2 epochs after the first"),
        (np.random.default_rng(0).normal(size=(2, 9, 6)), QUICK, 6, "2 passages of each group"),
        (np.full((2, 9, 6), np.nan), QUICK, 3, "2 passages of each group with nv_rel"),
    ],
)
def test_an_undefined_pattern_says_why(values, epochs, n_trained, reason, recwarn):
    found = analyze_layer_temporal_patterns(long(values, epochs=epochs, n_trained=n_trained))
    assert found.pattern is None
    assert reason in found.reason
    assert not recwarn.list


def test_correlations_are_spearmans_over_trained_passages():
    data = run_of(n=30, n_layers=4)
    found = layer_correlations(data, 8)
    rows = (data["epoch"] == 8) & (data["group"] == "trained")
    for layer in range(4):
        own = rows & (data["layer"] == layer)
        rho, p = stats.spearmanr(data["nv_rel"][own], data["accuracy"][own])
        np.testing.assert_allclose([found.rho[layer], found.p[layer]], [rho, p], rtol=1e-12)
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))
    assert found.best_layer == found.p.argmin()


def test_constant_accuracy_has_no_best_layer(recwarn):
    data = run_of(n=10)
    found = layer_correlations(data | {"accuracy": np.zeros(len(data["epoch"]))}, 0)
    assert found.best_layer is None
    assert found.reason == "nv_rel or accuracy is constant, or known for fewer than 3 passages"
    assert np.isnan(found.rho).all()
    with pytest.raises(ValueError, match="epoch=2 was not measured"):
        layer_correlations(data, 2)
    assert not recwarn.list
