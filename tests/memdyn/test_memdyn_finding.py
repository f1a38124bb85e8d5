"""What docs/memdyn.md says of SmolLM2: four stored runs, each with passages of its own."""

import numpy as np
import pytest
from scipy import stats

from analysis import load_sweep
from analysis.memdyn import (
    analyze_layer_temporal_patterns,
    analyze_memorization_onset,
    analyze_u_shape_trajectory,
    passage_data,
)

MIDDLE, LAST = 14, 28


@pytest.fixture(scope="module")
def runs(root):
    return load_sweep(root / "docs/data/memdyn_smollm2")


@pytest.fixture(scope="module")
def data(root, runs):
    return [passage_data(root / "docs/data/memdyn_smollm2", run) for run in runs["run_id"]]


def interval(values):
    """Mean and 95 % t interval with runs as units."""
    values = np.array(values)
    half = stats.t.isf(0.025, len(values) - 1) * stats.sem(values)
    return pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=6e-4)


def courses(data, layer, metric):
    return [analyze_u_shape_trajectory(run, layer, metric) for run in data]


def gaps(data, layer, metric):
    """Change from epoch 0 to 12, trained minus novel."""
    found = courses(data, layer, metric)
    return interval([one.difference[-1] - one.difference[0] for one in found])


def test_nearly_all_trained_passages_are_memorized_and_no_novel_one(runs):
    assert runs["final_memorization_rate"].to_list() == [1, 1, 15 / 16, 1]
    assert runs["final_novel_rate"].max() == 0
    assert runs["km_median_onset"].to_list() == [8, 10, 7, 8]


def test_middle_layer_falls_without_a_turn(data):
    found = courses(data, MIDDLE, "nv")
    assert {one.shape for one in found} == {"monotone_decreasing"}
    assert all(one.a > 0 and one.r_squared > 0.95 for one in found)
    assert interval([one.means[-1] - one.means[0] for one in found]) == (-0.2165, -0.2496, -0.1833)
    assert gaps(data, MIDDLE, "nv") == (-0.0153, -0.0194, -0.0112)


def test_trained_passages_spread_more_from_layer_12_on(data):
    gaps = [analyze_layer_temporal_patterns(run).difference[:, -1] for run in data]  # [runs, L]
    q = stats.false_discovery_control(stats.ttest_1samp(gaps, 0).pvalue)
    assert q[12:28].max() < 0.05 < q[28]
    means = np.mean(gaps, 0)
    assert means[12:28].max() < -0.009
    assert means[23:26] == pytest.approx([-0.05] * 3, abs=4e-3)


def test_last_layer_turns_for_both_groups_alike(data):
    found = courses(data, LAST, "nv")
    assert {one.shape for one in found} == {"u_shaped"}
    assert sorted(one.turning_epoch for one in found) == [6, 6, 7, 7]
    assert max(one.p for one in found) < 1e-3
    assert gaps(data, LAST, "nv") == (0.0240, -0.0048, 0.0527)
    assert {one.shape for one in courses(data, LAST, "nv_contract")} == {"monotone_increasing"}
    assert gaps(data, LAST, "nv_contract") == (0.0621, 0.0504, 0.0738)


def test_nv_rel_follows_a_few_tokens(data):
    largest = [run.filter(layer=MIDDLE, epoch=0)["max_share"].max() for run in data]
    assert largest == pytest.approx([0.481, 0.530, 0.001, 0.935], abs=1e-3)
    shapes = [one.shape for one in courses(data, MIDDLE, "nv_rel")]
    assert shapes == ["unclear", "inverted_u", "monotone_decreasing", "inverted_u"]


def test_tighter_passages_memorize_earlier(data):
    found = [analyze_memorization_onset(run, MIDDLE).concordance for run in data]
    assert interval(found) == (0.6382, 0.5542, 0.7221)
