"""Prediction of memorization: the batched regression, and what a gain over nll may claim."""

import numpy as np
import pytest
from memdyn_series import long, run_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memdyn.theory import predict_memorization
from memdyn.theory.prediction import (
    FOLDS,
    PERMUTATION_REPEATS,
    cross_validated_auroc,
    permutation_p,
    ridge_logistic,
    stratified_folds,
)


def two_epochs(scores, nll, memorized):
    """Features at epoch 0, labels at epoch 5. scores [L, n], trained passages only."""
    n = len(memorized)
    accuracy = np.stack([np.zeros(n), memorized])
    return long(np.stack([scores, scores], 1), accuracy, [nll, nll], epochs=(0, 5), n_trained=n)


def drawn(rng, n=60, gain=0.0):
    """Labels from nll, and from the first layer's score where gain > 0."""
    nll, scores = rng.normal(size=n), rng.normal(size=(3, n))
    memorized = nll + gain * scores[0] + rng.normal(size=n) > 0
    return two_epochs(scores, nll, memorized)


@pytest.mark.parametrize("noise", [0.0, 0.5, 3.0])  # 0: separable, Newton's hardest case
def test_regressions_are_scikit_learns(noise):
    """Decision functions of 15 parts, scales of features from .01 to 100: to 1e-4."""
    rng = np.random.default_rng(0)
    scale = 10 ** rng.uniform(-2, 2, 6)
    X = rng.normal(size=(70, 6)) * scale + 50
    y = (X - 50) / scale @ rng.normal(size=6) + noise * rng.normal(size=70) > 0.5
    train = rng.random((15, 70)) < 0.8
    scores = ridge_logistic(X, np.tile(y, (15, 1)), train)
    for part, score in zip(train, scores, strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=1000))
        model.fit(X[part], y[part])
        np.testing.assert_allclose(score, model.decision_function(X), atol=1e-4)


def test_a_feature_that_is_constant_in_the_training_part_counts_for_nothing():
    rng = np.random.default_rng(1)
    X = np.stack([rng.normal(size=40), np.append(np.zeros(39), 1.0), np.full(40, 7.0)], 1)
    y, train = rng.random((1, 40)) < 0.5, np.arange(40)[None] < 30
    alone = ridge_logistic(X[:, :1], y, train)
    np.testing.assert_allclose(ridge_logistic(X, y, train), alone, atol=1e-6)


def test_aurocs_are_scikit_learns_of_every_test_part_ties_included():
    rng = np.random.default_rng(2)
    y = rng.random(53) < 0.4
    X = np.round(np.stack([y + rng.normal(size=53), rng.normal(size=53)], 1))
    folds = np.stack([stratified_folds(y, rng) for _ in range(2)])
    found = cross_validated_auroc(X, y, folds)
    for r in range(2):
        for fold in range(FOLDS):
            test = folds[r] == fold
            model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10))
            score = model.fit(X[~test], y[~test]).decision_function(X[test])
            expected = roc_auc_score(y[test], np.round(score, 6))  # ties despite rounding
            assert found[r, fold] == pytest.approx(expected, abs=1e-12)


def test_a_permutation_moves_passages_against_labels_and_folds():
    """Against one permutation after the other, of the features' rows."""
    rng = np.random.default_rng(6)
    y = rng.random(40) < 0.5
    X = 0.5 * y[:, None] + rng.normal(size=(40, 2))
    folds = np.stack([stratified_folds(y, rng) for _ in range(PERMUTATION_REPEATS)])
    orders = np.stack([rng.permutation(40) for _ in range(50)])
    measured = cross_validated_auroc(X, y, folds).mean()
    chance = [cross_validated_auroc(X[np.argsort(order)], y, folds).mean() for order in orders]
    expected = (1 + sum(one >= measured for one in chance)) / 51
    assert 1 / 51 < expected < 0.9
    assert permutation_p(X, y, folds, orders) == expected


def test_folds_are_stratified_and_even():
    y = np.arange(53) < 17
    folds = stratified_folds(y, np.random.default_rng(3))
    for kind in (y, ~y, y | ~y):
        sizes = np.bincount(folds[kind], minlength=FOLDS)
        assert np.ptp(sizes) <= 1


def test_geometry_that_adds_to_nll_shows_a_gain():
    found = predict_memorization(drawn(np.random.default_rng(4), n=150, gain=2.0), 0)
    assert found.auroc_both > found.auroc_nll + 0.1
    assert found.gain == pytest.approx(found.auroc_both - found.auroc_nll)
    assert found.gain_low > 0
    assert found.p_scores < 0.05
    assert found.p_nll < 0.05


def test_geometry_that_tells_nothing_shows_none():
    """40 seeded cases: p of the scores <= .05 in a few, an interval of the gain above 0 in none."""
    rng = np.random.default_rng(5)
    found = [predict_memorization(drawn(rng), 0, n_permutations=99) for _ in range(40)]
    assert sum(one.gain_low > 0 for one in found) == 0
    assert sum(one.p_scores <= 0.05 for one in found) <= 6
    assert np.mean([one.auroc_scores for one in found]) == pytest.approx(0.5, abs=0.05)


def test_the_label_is_read_where_a_quarter_to_three_quarters_are_memorized():
    data = run_of(n=40)
    found = predict_memorization(data, 1)
    trained = (data["layer"] == 0) & (data["group"] == "trained")
    rates = {
        epoch: (data["accuracy"][trained & (data["epoch"] == epoch)] >= 0.6).mean()
        for epoch in np.unique(data["epoch"])
    }
    assert found.label_epoch == next(e for e, rate in rates.items() if 0.25 <= rate <= 0.75)
    assert found.n == 40
    assert found.n_memorized == round(40 * rates[found.label_epoch])
    assert predict_memorization(data, 1, label_epoch=12).label_epoch == 12
    later = predict_memorization(data, found.label_epoch)  # no prediction of its own epoch
    assert later.label_epoch is None or later.label_epoch > found.label_epoch


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        ({"accuracy": 0.1}, {}, "at no epoch after 0 25 to 75 %"),
        ({"accuracy": 0.1}, {"label_epoch": 20}, "0 of 40 passages memorized at epoch 20: 10 of"),
        ({"nv_rel": np.nan}, {}, "no finite nv_rel at epoch 0"),
    ],
)
def test_an_undefined_prediction_says_why(change, arguments, reason):
    data = run_of(n=40)
    n = len(data["epoch"])
    data |= {name: np.full(n, value) for name, value in change.items()}
    found = predict_memorization(data, 0, **arguments)
    assert found.auroc_scores is None
    assert found.gain is None
    assert reason in found.reason


def test_without_nll_the_scores_stand_alone():
    data = run_of(n=40)
    whole = predict_memorization(data, 0)
    del data["nll"]
    found = predict_memorization(data, 0)
    assert (found.auroc_scores, found.p_scores) == (whole.auroc_scores, whole.p_scores)
    assert (found.auroc_nll, found.gain) == (None, None)
    assert found.reason == "data has no column nll"


def test_epochs_that_were_not_measured_are_refused():
    with pytest.raises(ValueError, match="label_epoch=7 was not measured"):
        predict_memorization(run_of(n=12), 0, label_epoch=7)
