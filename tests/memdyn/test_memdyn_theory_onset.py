"""Onsets of memorization, their Kaplan-Meier curve and the concordance with a score."""

from itertools import combinations

import numpy as np
import pytest
from memdyn_series import long, run_of
from scipy import stats

from memdyn.theory import analyze_memorization_onset

EPOCHS = (0, 1, 3, 5, 10)


def courses(*hits, scores=None, epochs=EPOCHS):
    """Trained passages, memorized at the epochs marked 1."""
    accuracy = np.array([[float(hit) for hit in course] for course in hits]).T
    if scores is None:
        scores = np.arange(len(hits))
    values = np.broadcast_to(np.asarray(scores, float), (1, *accuracy.shape))
    return long(values, accuracy, epochs=epochs, n_trained=len(hits))


def test_an_onset_opens_a_lasting_run():
    found = analyze_memorization_onset(
        courses("00111", "01011", "00100", "00001", "11111", "10000", "00000")
    )
    assert found.onsets == {0: (1, 3, True), 1: (3, 5, True), 3: (5, 10, False)}
    assert (found.n_events, found.n_censored, found.n_already) == (3, 2, 2)


def test_a_run_that_the_last_epoch_cuts_short_is_unconfirmed():
    found = analyze_memorization_onset(courses("00011", "00111", "01101"), persistence=3)
    assert found.onsets == {0: (3, 5, False), 1: (1, 3, True), 2: (5, 10, False)}


def test_memorized_is_counted_anew_from_the_threshold():
    data = courses("00111") | {"memorized": [False] * 5}
    data["accuracy"] = 0.7 * data["accuracy"]
    assert analyze_memorization_onset(data, threshold=0.7).n_events == 1
    assert analyze_memorization_onset(data, threshold=0.71).n_events == 0


def test_the_curve_is_kaplan_meiers():
    """Against scipy's ecdf of censored data; novel passages and those at 0 are in neither."""
    data = run_of(n=40)
    data["accuracy"] = np.where(data["passage_id"] % 3, data["accuracy"], 0.1)
    found = analyze_memorization_onset(data, 1)
    events = [epoch for _, epoch, _ in found.onsets.values()]
    assert found.n_censored > 10
    censored = stats.CensoredData.right_censored(
        events + [20] * found.n_censored, [False] * len(events) + [True] * found.n_censored
    )
    curve = stats.ecdf(censored).sf
    np.testing.assert_array_equal(found.times, curve.quantiles[:-1])  # its last is the censoring
    np.testing.assert_allclose(found.survival, curve.probabilities[:-1], atol=1e-12)
    assert found.median == curve.quantiles[curve.probabilities <= 0.5][0]


def test_no_median_where_fewer_than_half_are_memorized():
    found = analyze_memorization_onset(courses("00111", "00000", "00000"))
    assert found.median is None
    assert found.survival.tolist() == pytest.approx([2 / 3])
    assert analyze_memorization_onset(courses("00111", "00000")).median == 3  # exactly half


def test_concordance_counts_pairs():
    """Pair by pair, with ties of the score and of the onset, and passages that never memorize."""
    rng = np.random.default_rng(0)
    onset = rng.integers(1, 6, 30)  # 5 = never
    hits = ["".join(str(int(e >= first)) for e in range(5)) for first in onset]
    scores = rng.integers(0, 6, 30) - 0.5 * onset
    won = []
    for i, j in combinations(range(30), 2):
        if onset[i] != onset[j]:
            early, late = (i, j) if onset[i] < onset[j] else (j, i)
            won.append(0.5 + 0.5 * np.sign(scores[early] - scores[late]))
    found = analyze_memorization_onset(courses(*hits, scores=scores))
    assert found.concordance == pytest.approx(np.mean(won), rel=1e-12)
    mirrored = analyze_memorization_onset(courses(*hits, scores=-scores))
    assert mirrored.concordance == pytest.approx(1 - found.concordance)
    assert mirrored.p == found.p


def test_lower_compression_that_memorizes_earlier_is_below_one_half():
    found = analyze_memorization_onset(run_of(), 1)
    assert found.concordance < 0.35
    assert found.p == pytest.approx(1 / 1001)


def test_unrelated_scores_have_uniform_p_values():
    """p <= .1 in about a tenth of 200 seeded cases (three standard errors: 6 %)."""
    rng = np.random.default_rng(1)
    hits = ["0" * first + "1" * (5 - first) for first in rng.integers(1, 6, 25)]
    p = [
        analyze_memorization_onset(courses(*hits, scores=rng.normal(size=25)), n_permutations=99).p
        for _ in range(200)
    ]
    assert 0.04 < np.mean(np.array(p) <= 0.1) < 0.16


@pytest.mark.parametrize(
    ("hits", "arguments", "reason"),
    [
        (["00111"] * 9 + ["00000"], {}, "9 onsets with a finite nv_rel at epoch 0, 10 needed"),
        (["00111"] * 12, {}, "all passages memorize at the same measured epoch"),
    ],
)
def test_an_undefined_concordance_says_why(hits, arguments, reason):
    found = analyze_memorization_onset(courses(*hits), **arguments)
    assert (found.concordance, found.p, found.reason) == (None, None, reason)
    assert found.median == 3


def test_a_baseline_that_was_not_measured_is_refused():
    data = courses("011", epochs=(1, 3, 5))
    with pytest.raises(ValueError, match=r"baseline_epoch=0 was not measured \(epochs: 1, 3, 5\)"):
        analyze_memorization_onset(data)
    assert analyze_memorization_onset(data, baseline_epoch=1).onsets == {0: (1, 3, True)}
