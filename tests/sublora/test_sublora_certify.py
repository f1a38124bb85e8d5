"""Which units are evaluated, and what their losses prove."""

import math

import numpy as np
import pytest
from sublora_cases import config, module_of, set_random

from sublora.bounds import bound, delta_range, kl_nats, predictable_bound
from sublora.certify import certify, draw_sample, measure, n_units, why_invalid
from sublora.config import ALPHAS, BoundConfig
from sublora.dataset import load_dataset, write_dataset
from sublora.evaluate import Losses

TOPS = (1, 2, 5)


class Units:
    """n of m, without tokens."""

    def __init__(self, m, n):
        self.m, self.n = m, n


def losses(risks, misses=(0.5, 0.25, 0.125), squares=None):
    """Two units whose mean is the risk, in bits; the raw one is 1."""

    def spread(values):
        return np.array([[value - 0.1, value + 0.1] for value in values])

    squares = None if squares is None else spread(squares)
    return Losses(spread([1.0])[0], spread(risks), spread(misses), TOPS, squares)


def at(alphas, risk, alpha):
    """Risks far above but at one alpha."""
    return [risk if a == alpha else 99.0 for a in alphas]


# golden


@pytest.mark.parametrize(("n", "expected"), [(8_009_762, 9.176253), (10_000, 9.563464)])
def test_known_bounds_of_gpt2(n, expected):
    """2,000 bits, 30 runs of 8 alphas, a risk of 9 bits at alpha .1, 50,257 outputs."""
    cfg = BoundConfig(n_configs=30)
    row, table = certify(losses(at(ALPHAS, 9, 0.1)), cfg, Units(8_009_762, n), 2000, 50257)
    assert row["kl_divergence"] == pytest.approx(1406.977305, abs=1e-6)
    assert row["search_bits"] == pytest.approx(7.906891, abs=1e-6)
    assert row["bound_value"] == pytest.approx(expected, abs=1e-6)
    assert row["alpha_best"] == 0.1
    assert row["empirical_bpd"] == pytest.approx(9, abs=1e-12)
    assert row["complexity"] == row["bound_value"] - row["empirical_bpd"]
    assert not row["vacuous"]
    assert table["bound"][ALPHAS.index(0.1)] == row["bound_value"]


@pytest.mark.parametrize(("n", "expected"), [(20_000, 6.222105), (5_000, 6.493628)])
def test_known_bounds_of_64_outputs(n, expected):
    cfg = BoundConfig(n_configs=30)
    row, _ = certify(losses(at(ALPHAS, 4.5, 0.1)), cfg, Units(20_000, n), 2000, 64)
    assert row["bound_value"] == pytest.approx(expected, abs=1e-6)
    assert row["vacuous"]  # 6 bits are what guessing needs


def test_known_prices_in_the_row():
    row, _ = certify(losses([3.0]), BoundConfig(alphas=[0.1]), Units(9, 9), 1000, 64)
    assert row["compressed_size_bits"] == 1000
    assert row["price_bits"] == pytest.approx(1019.933011, abs=1e-6)
    assert row["search_bits"] == 0
    assert row["kl_divergence"] == pytest.approx(math.log(2) * 1019.933011, abs=1e-6)


# alphas


@pytest.mark.parametrize("n", [300, 5000])
def test_bound_of_an_alpha_does_not_depend_on_its_place_in_the_grid(n):
    risks = {alpha: 3 + 5 * alpha for alpha in ALPHAS}
    tables = []
    for grid in (ALPHAS, ALPHAS[::-1], (*ALPHAS[3:], *ALPHAS[:3])):
        cfg = BoundConfig(alphas=list(grid), n_configs=5)
        row, table = certify(losses([risks[a] for a in grid]), cfg, Units(5000, n), 900, 64)
        assert table["alpha"] == list(grid)
        tables.append((row, dict(zip(grid, table["bound"], strict=True))))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0][0]["bound_value"] == min(tables[0][1].values())


@pytest.mark.parametrize("n", [300, 5000])
def test_other_alphas_count_through_the_search_bits_alone(n):
    """One alpha of 8 runs is one of 8 alphas of a run."""
    grid, _ = certify(losses(at(ALPHAS, 4, 0.1)), BoundConfig(), Units(5000, n), 900, 64)
    alone, _ = certify(losses([4]), BoundConfig(alphas=[0.1], n_configs=8), Units(5000, n), 900, 64)
    for name in ("bound_value", "kl_divergence", "search_bits"):
        assert alone[name] == grid[name]
    other, _ = certify(losses([4]), BoundConfig(alphas=[0.1]), Units(5000, n), 900, 64)
    assert other["bound_value"] < alone["bound_value"]


def test_every_row_of_the_table_is_the_bound_of_its_alpha():
    cfg, risks = BoundConfig(delta=0.01, n_configs=3), [4 - a for a in ALPHAS]
    _, table = certify(losses(risks), cfg, Units(5000, 700), 900, 64)
    search = math.log2(24)
    for alpha, risk, range_, value in zip(*table.values(), strict=True):
        assert range_ == delta_range(alpha, 64)
        expected = bound(risk, kl_nats(900, search), 5000, 700, 0.01, search, range_)
        assert value == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(table["risk"], risks)


def test_bits_of_a_uniform_prediction_are_vacuous_and_less_are_not():
    for risk, is_vacuous in [(6 - 1e-9, True), (5.0, False)]:
        cfg = BoundConfig(alphas=[0.5])
        row, _ = certify(losses([risk]), cfg, Units(10**9, 10**9), 100, 64)
        assert row["vacuous"] == is_vacuous


# errors of the k most likely


@pytest.mark.parametrize("n", [700, 5000])
def test_errors_have_range_1_and_pay_for_the_runs_only(n):
    row, _ = certify(losses([4.0] * 8), BoundConfig(n_configs=30), Units(5000, n), 900, 64)
    kl = math.log(2) * (900 + math.log2(900 * 901) + math.log2(30))
    for k, error in zip(TOPS, (0.5, 0.25, 0.125), strict=True):
        assert row[f"err_top{k}"] == pytest.approx(error)
        r = n / (n + 5000)
        if n == 5000:
            expected = error + math.sqrt((kl + math.log(20)) / 10_000)
        else:
            expected = error + math.sqrt((kl + math.log(20 / r)) / 10_000)
            expected += math.sqrt((math.log(30) + math.log(20 / (1 - r))) / 1400)
        assert row[f"bound_top{k}"] == pytest.approx(expected, rel=1e-12)
        assert row[f"vacuous_top{k}"] == (expected >= 1 - k / 64)


# predictable ranges


def test_predictable_ranges_of_tokens():
    cfg = BoundConfig(level="token", delta_i="predictable", n=10**6)
    squares = [5.0 + a for a in ALPHAS]
    found = losses([4.0] * 8, squares=squares)
    row, table = certify(found, cfg, Units(10**6, 10**6), 900, 64)
    ranges = delta_range(np.array(ALPHAS), 64)
    expected = predictable_bound(4.0, kl_nats(900, 3), 10**6, 0.05, ranges, np.array(squares))
    np.testing.assert_allclose(table["bound"], expected, rtol=1e-12)
    assert row["bound_value"] == pytest.approx(expected.min())


def test_predictable_ranges_need_all_tokens(data):
    """The theorem is about the m tokens: a mean over n of them is none of it."""
    m = n_units("token", data, 16)
    cfg = BoundConfig(level="token", delta_i="predictable", n=m - 1)
    with pytest.raises(ValueError, match=r"bound\.delta_i=predictable"):
        draw_sample(cfg, data, 16)
    draw_sample(BoundConfig(level="token", delta_i="predictable", n=m), data, 16)


# what proves nothing


def test_the_published_price_is_lower_and_invalid(folder):
    cfg = config(folder, bound={"price": "paper"})
    paper, _ = certify(losses([4.0] * 8), cfg.bound, Units(300, 100), 900, 64)
    ours, _ = certify(losses([4.0] * 8), BoundConfig(n=100), Units(300, 100), 900, 64)
    assert paper["price_bits"] == pytest.approx(900 + 2 * math.log2(900))
    assert paper["bound_value"] < ours["bound_value"]
    assert "bound.price=paper" in why_invalid(cfg, True)
    assert why_invalid(config(folder), True) == ""


def test_another_training_set_is_invalid(folder):
    assert "training set" in why_invalid(config(folder), False)


def test_a_model_with_a_past_is_invalid_unless_its_owner_vouches_for_it(folder):
    model = {"source": "hf", "path": "x"}
    assert "bound.prior_independent" in why_invalid(config(folder, model=model), True)
    vouched = config(folder, model=model, bound={"prior_independent": True})
    assert why_invalid(vouched, True) == ""


# samples


@pytest.mark.parametrize("level", ["document", "sequence", "token"])
def test_number_of_units(data, level):
    m = n_units(level, data, 16)
    expected = {
        "document": int((data.doc_lengths > 0).sum()),
        "sequence": (len(data.train) - 1) // 16,
        "token": len(data.train) - len(data.eot_indices),
    }
    assert m == expected[level]
    sample = draw_sample(BoundConfig(level=level, n=m, stride=6), data, 16)
    assert (sample.n, sample.m) == (m, m)
    units = np.concatenate([piece.units for piece in sample.pieces])
    assert set(units.tolist()) == set(range(m))


def test_empty_documents_are_no_units(tmp_path):
    documents = [[1, 2], [], [3], [], []]
    write_dataset(tmp_path, documents, [[1]], {"vocab_size": 5, "eot": 4})
    data = load_dataset(tmp_path)
    assert n_units("document", data, 4) == 2
    assert n_units("token", data, 4) == 3
    sample = draw_sample(BoundConfig(n=2), data, 4)
    assert [piece.ids.tolist() for piece in sample.pieces] == [[4, 1, 2], [4, 3]]


def scored(sample):
    """Every scored token with what is read before it."""
    return [
        tuple(piece.ids[: place + 1]) for piece in sample.pieces for place in piece.places.tolist()
    ]


@pytest.mark.parametrize("level", ["document", "sequence", "token"])
def test_sample_is_drawn_without_replacement_from_the_units(data, level):
    m = n_units(level, data, 16)
    everything = draw_sample(BoundConfig(level=level, n=m, stride=6), data, 16)
    by_unit = {}
    for piece in everything.pieces:
        for place, unit in zip(piece.places.tolist(), piece.units.tolist(), strict=True):
            by_unit.setdefault(unit, []).append(tuple(piece.ids[: place + 1]))
    part = draw_sample(BoundConfig(level=level, n=m // 3, stride=6), data, 16)
    chosen = {}
    for piece in part.pieces:
        for place, unit in zip(piece.places.tolist(), piece.units.tolist(), strict=True):
            chosen.setdefault(unit, []).append(tuple(piece.ids[: place + 1]))
    assert sorted(chosen) == list(range(m // 3))
    # In their order, each unit of the sample is a later one of all.
    whole = iter(by_unit[i] for i in range(m))
    for i in range(m // 3):
        assert any(unit == chosen[i] for unit in whole)


@pytest.mark.parametrize("level", ["document", "sequence", "token"])
def test_losses_of_a_sample_are_those_of_its_units(data, folder, level):
    """Token by token or document by document, whatever else is evaluated."""
    module = module_of(config(folder, model={"init_std": 0.3}))
    set_random(module)
    m = n_units(level, data, 16)
    cfg = BoundConfig(level=level, n=m, stride=6)
    everything = measure(module, cfg, draw_sample(cfg, data, 16), 64).raw
    cfg.n = m // 2
    part = measure(module, cfg, draw_sample(cfg, data, 16), 64).raw
    assert len(part) == m // 2
    at = 0
    for value in part:  # the sample keeps the order of the units
        while abs(everything[at] - value) > 1e-5 * value:
            at += 1
        at += 1


def test_tokens_are_scored_as_in_their_documents(data):
    m = n_units("token", data, 16)
    of_tokens = draw_sample(BoundConfig(level="token", n=m, stride=6), data, 16)
    of_documents = draw_sample(BoundConfig(n=300, stride=6), data, 16)
    assert scored(of_tokens) == scored(of_documents)
    units = np.concatenate([piece.units for piece in of_tokens.pieces])
    assert units.tolist() == list(range(m))


def test_sequences_are_consecutive_blocks_of_the_stream(data):
    m = n_units("sequence", data, 16)
    sample = draw_sample(BoundConfig(level="sequence", n=m), data, 16)
    for i, piece in enumerate(sample.pieces):
        assert piece.ids.tolist() == data.train[16 * i : 16 * i + 17].tolist()
        assert piece.places.tolist() == list(range(1, 17))
        assert piece.units.tolist() == [i] * 16


def test_sample_follows_from_its_seed_alone(data):
    def drawn(seed, **changes):
        return scored(draw_sample(BoundConfig(n=100, sample_seed=seed, **changes), data, 16))

    assert drawn(0) == drawn(0, delta=0.5, n_configs=9)
    assert drawn(0) != drawn(1)


def test_every_document_is_as_likely_as_any_other(tmp_path):
    """10 of 30, 600 seeds: 200 +- 11.5 times each; 5 standard deviations."""
    write_dataset(tmp_path, [[i] for i in range(30)], [[1]], {"vocab_size": 31, "eot": 30})
    data, counts = load_dataset(tmp_path), np.zeros(30, int)
    for seed in range(600):
        chosen = [
            piece.ids[1]
            for piece in draw_sample(BoundConfig(n=10, sample_seed=seed), data, 4).pieces
        ]
        assert len(set(chosen)) == 10
        counts[chosen] += 1
    assert np.abs(counts - 200).max() < 5 * 11.5
    assert counts.std() > 11.5 / 2


@pytest.mark.parametrize("level", ["document", "sequence", "token"])
def test_more_units_than_there_are_are_refused(data, level):
    m = n_units(level, data, 16)
    with pytest.raises(ValueError, match=rf"bound\.n={m + 1} must be in 1\.\.{m}"):
        draw_sample(BoundConfig(level=level, n=m + 1), data, 16)


def test_data_shorter_than_a_sequence_is_refused(data):
    with pytest.raises(ValueError, match=r"bound\.n=1 "):
        draw_sample(BoundConfig(level="sequence", n=1), data, len(data.train))
