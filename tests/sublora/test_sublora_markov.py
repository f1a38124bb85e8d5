"""The Markov chain: its draws against its law, and its best score against a simulation."""

import numpy as np
import pytest
from scipy import stats

from sublora import markov
from sublora.streams import stream

N = 40_000


@pytest.fixture(scope="module")
def chain():
    return markov.transition()


@pytest.fixture(scope="module")
def documents():
    return markov.documents(N, stream(0, "test"))


def test_first_symbol_is_zipf_and_rows_are_laws(chain):
    first, rows = chain
    assert rows.shape == (63, 63)
    np.testing.assert_allclose(first / first[0], 1 / np.arange(1, 64), rtol=1e-12)
    np.testing.assert_allclose([first.sum(), *rows.sum(1)], 1, rtol=1e-12)
    # A mean of 63 Dirichlet rows with alpha_0 = 3.213; five standard errors.
    mean = (0.05 * 63 * first + 1e-3) / 3.213
    error = np.sqrt(mean * (1 - mean) / 4.213 / 63)
    assert (np.abs(rows.mean(0) - mean) < 5 * error).all()


def test_chain_is_fixed_and_documents_are_by_the_generator(chain, documents):
    np.testing.assert_array_equal(chain[1], markov.transition()[1])
    assert not np.array_equal(chain[1], markov.transition(1)[1])
    again, other = (markov.documents(200, stream(seed, "test")) for seed in (1, 2))
    for first, second in zip(again, markov.documents(200, stream(1, "test")), strict=True):
        np.testing.assert_array_equal(first, second)
    assert [list(d) for d in again] != [list(d) for d in other]


def test_documents_have_ids_below_eot_and_a_cut_geometric_length(documents):
    assert {d.dtype for d in documents} == {np.dtype(np.uint16)}
    assert max(d.max() for d in documents) < markov.EOT == 63 == markov.VOCAB - 1
    lengths = np.array([len(d) for d in documents])
    law = np.array([31 ** (n - 1) / 32**n for n in range(1, 64)])
    expected = N * np.append(law, 1 - law.sum())
    found = np.bincount(lengths, minlength=65)
    assert len(found) == 65
    assert found[0] == 0
    assert stats.chisquare(found[1:], expected).pvalue > 1e-3  # one seed: it holds or it does not


def test_symbols_follow_the_chain(chain, documents):
    """Chi-square of first symbols and of every transition, whatever its place in a document."""
    first, rows = chain
    starts = np.bincount([d[0] for d in documents], minlength=63)
    assert stats.chisquare(starts, N * first).pvalue > 1e-3
    pairs = np.zeros((63, 63))
    for d in documents:
        np.add.at(pairs, (d[:-1], d[1:]), 1)
    assert not pairs[rows == 0].any()
    expected = pairs.sum(1, keepdims=True) * rows
    large = expected > 5
    statistic = ((pairs - expected)[large] ** 2 / expected[large]).sum()
    assert stats.chi2.sf(statistic, large.sum() - 63) > 1e-3
    rare = ~large  # few where few are expected
    assert abs(pairs[rare].sum() - expected[rare].sum()) < 5 * np.sqrt(expected[rare].sum())


def test_symbols_of_probability_zero_are_never_drawn():
    laws = np.array([[0.0, 0.5, 0.0, 0.5, 0.0]])
    uniform = np.array([0.0, 0.25, 0.5, 1 - 2**-53])
    np.testing.assert_array_equal(markov._draw(laws, uniform), [1, 1, 3, 3])
    laws = np.array([[0.1] * 10 + [0.0]])  # ten times 0.1 add up to 1 - 2^-53
    np.testing.assert_array_equal(markov._draw(laws, uniform[-1:]), [9])


def test_entropy_rate_of_a_chain_of_two_states():
    """pi = (b, a) / (a + b) for flips a and b; H = -x log2 x - (1-x) log2 (1-x)."""
    a, b = 0.1, 0.4
    h = lambda x: -x * np.log2(x) - (1 - x) * np.log2(1 - x)
    found = markov.entropy_rate(np.array([[1 - a, a], [b, 1 - b]]))
    assert found == pytest.approx((b * h(a) + a * h(b)) / (a + b), abs=1e-12)


def test_entropy_rate_of_the_default_chain(chain):
    assert markov.entropy_rate(chain[1]) == pytest.approx(2.591, abs=5e-4)
    pi = np.linalg.matrix_power(chain[1], 200)[0]
    row_entropies = stats.entropy(chain[1], axis=1, base=2)
    assert markov.entropy_rate(chain[1]) == pytest.approx(pi @ row_entropies, abs=1e-9)


@pytest.mark.parametrize("unit", ["document", "token"])
def test_best_score_is_what_the_law_itself_scores(chain, documents, unit):
    """Each token of 40,000 documents scored with and without the chance of EOT; 4 errors."""
    first, rows = chain
    costs = [-np.log2(np.append(first[d[0]], rows[d[:-1], d[1:]])) for d in documents]
    lengths = np.array([len(d) for d in documents])
    ends = -np.log2(31 / 32) * (lengths - 1)
    sums = np.array([cost.sum() for cost in costs])
    best = markov.best_score(first, rows, unit)
    for expected, of_document in zip(best, (sums, sums + ends), strict=True):
        if unit == "document":
            of_unit = of_document / lengths
        else:  # a ratio of means, linearised
            of_unit = expected + (of_document - expected * lengths) / lengths.mean()
        error = of_unit.std() / np.sqrt(N)
        assert error < 0.01
        assert abs(of_unit.mean() - expected) < 4 * error


@pytest.mark.parametrize("unit", ["document", "token"])
def test_best_score_of_uniform_symbols_is_their_entropy(unit):
    """log2 63 at every place; the ends add log2(32/31) to all but each document's first symbol."""
    first, rows = np.full(63, 1 / 63), np.full((63, 63), 1 / 63)
    least, true_law = markov.best_score(first, rows, unit)
    assert least == pytest.approx(np.log2(63), abs=1e-12)
    law = np.array([31 ** (n - 1) / 32**n for n in range(1, 64)])
    law, n = np.append(law, 1 - law.sum()), np.arange(1, 65)
    later = 1 - (law / n).sum() if unit == "document" else 1 - 1 / (law @ n)
    assert true_law - least == pytest.approx(later * np.log2(32 / 31), abs=1e-12)
