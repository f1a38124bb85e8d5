"""Figures of sublora, read back from their artists against the rows they are drawn from."""

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from artists import (
    assert_inside,
    assert_legend_beside,
    dashed_levels,
    figure_legend_texts,
    figure_legend_title,
)
from matplotlib.colors import to_hex
from sublora_rows import BUDGETS, METHODS, SEEDS, VOCAB, cells, outcome, write, write_grid

from analysis.measured import NotMeasured
from analysis.sublora import (
    front_of,
    load_grid,
    plot_allocations,
    plot_compression,
    plot_gate_trend,
    plot_gates,
    plot_pareto,
)

KL, BPD, BOUND, SIZE = "kl_divergence", "empirical_bpd", "bound_value", "compressed_size_bits"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return load_grid(write_grid(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """uniform, d = 2000, has one seed, and fixed_0.8, d = 2000, none; a seed lacks its gates."""
    kept = {cell: outcome(*cell) for cell in cells()}
    for seed in SEEDS:
        del kept["fixed_0.8", 2000, seed]
    for seed in SEEDS[1:]:
        del kept["uniform", 2000, seed]
    del kept["learned", 2000, 123]
    return load_grid(write(tmp_path_factory.mktemp("gaps"), kept))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return load_grid(write_grid(tmp_path_factory.mktemp("alone"), [("learned", 500, 1)]))


def values(measure: str, method: str, d: int, seeds=SEEDS) -> np.ndarray:
    return np.array([outcome(method, d, seed).scalars[measure] for seed in seeds])


def points(ax) -> list[tuple[float, float]]:
    """Of each container of error bars, its one point."""
    return [tuple(c.lines[0].get_xydata()[0]) for c in ax.containers]


def spans(ax) -> list[list[np.ndarray]]:
    """Of each container, the ends of its bars along x and along y."""
    return [
        [np.array(b.get_segments()[0])[:, axis] for axis, b in enumerate(c.lines[2])]
        for c in ax.containers
    ]


def test_pareto_draws_mean_and_standard_deviation_of_each_method(full):
    for d in BUDGETS:
        ax = plot_pareto(full, d)
        expected = [(values(KL, m, d).mean(), values(BPD, m, d).mean()) for m in METHODS]
        np.testing.assert_allclose(points(ax), expected)
        for method, bars in zip(METHODS, spans(ax), strict=True):
            for measure, bar in zip((KL, BPD), bars, strict=True):
                of_seeds = values(measure, method, d)
                ends = of_seeds.mean() + of_seeds.std(ddof=1) * np.array([-1, 1])
                np.testing.assert_allclose(bar, ends)
        assert (ax.get_xlabel(), ax.get_ylabel()) == (
            "KL (nats)",
            "empirical BPD (bits per token)",
        )
        assert ax.get_title() == f"subspace.d = {d}"
        assert_legend_beside(ax.figure)


def test_pareto_joins_what_none_dominates_in_order(full):
    for d in BUDGETS:
        ax = plot_pareto(full, d)
        joined = ax.lines[0].get_xydata()
        front = [method for method, by in front_of(full, d).items() if not by]
        expected = sorted((values(KL, m, d).mean(), values(BPD, m, d).mean()) for m in front)
        np.testing.assert_allclose(joined, expected)
        for (x, y), (u, v) in pairwise(joined):
            assert x < u
            assert y > v


def test_legend_says_n_and_what_the_bars_are(full, gaps, alone):
    figure = plot_pareto(full, 1000).figure
    assert figure_legend_texts(figure) == [f"{m} (n = 3)" for m in METHODS] + ["dominated by none"]
    assert figure_legend_title(figure) == (
        "point: mean over n seeds bar: +- standard deviation (divisor n - 1) "
        "smaller is better in both"
    )
    figure = plot_pareto(gaps, 2000).figure
    assert figure_legend_texts(figure)[:-1] == [
        "uniform (n = 1)", "fixed_0.2 (n = 3)", "fixed_0.5 (n = 3)", "learned (n = 2)",
    ]  # fmt: skip
    assert "none if n = 1" in figure_legend_title(figure)
    figure = plot_pareto(alone, 500).figure
    assert figure_legend_title(figure).startswith("point: a single seed")


def test_one_seed_has_no_bars(gaps):
    ax = plot_pareto(gaps, 2000)
    bars = [len(container.lines[2]) for container in ax.containers]
    assert bars == [0, 2, 2, 2]


def test_methods_keep_colour_and_marker_where_one_is_missing(full, gaps):
    def marks(figure) -> dict:
        [legend] = figure.legends
        handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
        return {t.get_text().split()[0]: (h.get_color(), h.get_marker()) for t, h in handles}

    whole, part = (marks(plot_pareto(grid, 2000).figure) for grid in (full, gaps))
    assert set(whole) - set(part) == {"fixed_0.8"}
    assert all(whole[name] == mark for name, mark in part.items())
    assert len({mark for name, mark in whole.items() if name in METHODS}) == len(METHODS)


def test_compression_has_three_panels_of_means(full):
    d = 2000
    axes = plot_compression(full, d)
    mean = {m: {k: values(k, m, d).mean() for k in (KL, BPD, BOUND, SIZE)} for m in METHODS}
    for ax, y in zip(axes, (BPD, BOUND), strict=False):
        np.testing.assert_allclose(points(ax), [(mean[m][KL], mean[m][y]) for m in METHODS])
    expected = [(mean[m][SIZE] / 8192, mean[m][y]) for m in METHODS for y in (BOUND, BPD)]
    np.testing.assert_allclose(points(axes[2]), expected)
    for (method, y), bars in zip(
        [(m, y) for m in METHODS for y in (BOUND, BPD)], spans(axes[2]), strict=True
    ):
        for measure, scale, bar in zip((SIZE, y), (1 / 8192, 1), bars, strict=True):
            std = values(measure, method, d).std(ddof=1)
            ends = scale * (mean[method][measure] + std * np.array([-1, 1]))
            np.testing.assert_allclose(bar, ends)
    by_size = sorted(METHODS, key=lambda m: mean[m][SIZE])
    for style, y in (("-", BOUND), ("--", BPD)):
        [line] = [
            line.get_xydata()
            for line in axes[2].lines
            if line.get_linestyle() == style and len(line.get_xdata()) == len(METHODS)
        ]
        np.testing.assert_allclose(line, [(mean[m][SIZE] / 8192, mean[m][y]) for m in by_size])
    assert axes[2].get_xscale() == "log"
    assert [ax.get_xlabel() for ax in axes] == [
        "KL (nats)", "KL (nats)", "size of the message (KB of 8192 bits, log)",
    ]  # fmt: skip
    assert_legend_beside(axes[0].figure)


def test_log2_of_the_vocabulary_is_a_labelled_line(full):
    axes = [*plot_compression(full, 1000)[1:], plot_allocations(full)[1]]
    for ax in axes:
        levels = [line for line in ax.lines if set(line.get_ydata()) == {math.log2(VOCAB)}]
        assert len(levels) == 1
        assert ax.get_ylim()[0] < math.log2(VOCAB) < ax.get_ylim()[1]
        assert r"$\log_2 V$" in [text.get_text() for text in ax.texts]
        names = figure_legend_texts(ax.figure)
        assert r"$\log_2 V$ = 6 (V = 64): vacuous from here" in names


def test_sizes_of_one_budget_have_plain_numbers_on_their_log_axis(full):
    ax = plot_compression(full, 1000)[2]
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    shown = [t.get_text() for t in ax.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert len(shown) >= 2
    assert all(low <= float(text) <= high for text in shown)


def heights(ax) -> dict[tuple[float, str], float]:
    """Under the middle of each bar and its colour."""
    return {
        (round(bar.get_x() + bar.get_width() / 2, 2), to_hex(bar.get_facecolor())): bar.get_height()
        for bar in ax.patches
    }


BLUE, RED = "#0072b2", "#d55e00"


def test_allocations_have_a_bar_per_method_and_budget(full):
    axes = plot_allocations(full)
    for ax, measure in zip(axes, (BPD, BOUND, SIZE), strict=False):
        found = heights(ax)
        assert len(found) == 10
        assert [label.get_text() for label in ax.get_xticklabels()] == list(METHODS)
        for i, method in enumerate(METHODS):
            for d, shift, color in zip(BUDGETS, (-0.21, 0.21), (BLUE, RED), strict=True):
                assert found[round(i + shift, 2), color] == pytest.approx(
                    values(measure, method, d).mean()
                )
        assert ax.get_ylim()[0] == 0
    found = heights(axes[3])
    assert [label.get_text() for label in axes[3].get_xticklabels()] == list(METHODS[1:])
    for i, method in enumerate(METHODS[1:]):
        u, x = values(BPD, "uniform", 1000), values(BPD, method, 1000)
        assert found[round(i - 0.21, 2), BLUE] == pytest.approx((100 * (u - x) / u).mean())
    assert figure_legend_title(axes[0].figure).endswith("(divisor n - 1) n = 3")
    assert figure_legend_texts(axes[0].figure)[:2] == [f"subspace.d = {d}" for d in BUDGETS]
    assert_legend_beside(axes[0].figure)


def test_bars_of_allocations_are_standard_deviations_over_seeds(full):
    [ax, *_] = plot_allocations(full)
    errors = [c for c in ax.containers if hasattr(c, "has_yerr")]
    ends = {
        round(segment[0][0], 2): segment[:, 1]
        for c in errors
        for segment in np.array(c.lines[2][0].get_segments())
    }
    assert len(ends) == 10
    for i, method in enumerate(METHODS):
        of_seeds = values(BPD, method, 2000)
        expected = of_seeds.mean() + of_seeds.std(ddof=1) * np.array([-1, 1])
        np.testing.assert_allclose(ends[round(i + 0.21, 2)], expected)


def test_a_missing_cell_is_a_gap_with_a_word(gaps):
    axes = plot_allocations(gaps)
    for ax in axes[:3]:
        found = heights(ax)
        assert len(found) == 9
        assert (3.21, RED) not in found
        assert 0 not in found.values()
        assert [t.get_text() for t in ax.texts].count("no usable run") == 1
    title = figure_legend_title(axes[0].figure)
    cells_apart = "uniform, d = 2000: 1 fixed_0.8, d = 2000: 0 learned, d = 2000: 2"
    assert f"n = 3, but of {cells_apart} (%: of the seeds that uniform has too)" in title
    assert_legend_beside(axes[0].figure)


def test_means_above_bars_cover_no_other(full):
    for ax in plot_allocations(full):
        ax.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_without_uniform_there_is_no_improvement(tmp_path):
    grid = load_grid(write_grid(tmp_path, cells(["fixed_0.2", "learned"])))
    ax = plot_allocations(grid)[3]
    assert not ax.patches
    assert [t.get_text() for t in ax.texts] == ["no uniform"] * 4
    assert ax.get_title() == "no run beside one of uniform"
    assert "%" not in figure_legend_title(ax.figure)


def test_heatmap_has_a_cell_per_seed_and_layer_with_its_number(full):
    for d in BUDGETS:
        ax = plot_gates(full, d)
        meshes = ax.collections
        assert len(meshes) == 3 * 5
        found = np.array([mesh.get_array().item() for mesh in meshes]).reshape(3, 5)
        for row, seed in zip(found, SEEDS, strict=True):
            table = outcome("learned", d, seed).tables["gates"]
            np.testing.assert_array_equal(row, table["gamma"][-5:])
        assert [text.get_text() for text in ax.texts] == [f"{x:.2f}" for x in found.flat]
        assert {(mesh.norm.vmin, mesh.norm.vmax) for mesh in meshes} == {(0, 1)}
        assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "3", "head"]
        assert [t.get_text() for t in ax.get_yticklabels()] == [str(seed) for seed in SEEDS]
        assert_inside(ax.figure)


def test_the_head_stands_apart(full):
    places = plot_gates(full, 1000).get_xticks()
    assert np.diff(places).tolist() == [1, 1, 1, 1.5]


def test_heatmap_leaves_the_row_of_a_seed_without_gates_empty(gaps):
    ax = plot_gates(gaps, 2000)
    assert len(ax.collections) == 2 * 5
    [missing] = [text for text in ax.texts if text.get_text() == "no usable run"]
    assert missing.get_position()[1] == SEEDS.index(123)


def test_trend_is_the_mean_over_seeds_with_the_head_apart(full):
    ax = plot_gate_trend(full)
    drawn = [(c.lines[0].get_ydata(), c.lines[2][0], c.lines[0].get_color()) for c in ax.containers]
    assert len(drawn) == 4
    for d, color, (blocks, head) in zip(BUDGETS, (BLUE, RED), (drawn[:2], drawn[2:]), strict=True):
        gammas = np.array([outcome("learned", d, s).tables["gates"]["gamma"][-5:] for s in SEEDS])
        for part, of in ((blocks, gammas[:, :4]), (head, gammas[:, 4:])):
            np.testing.assert_allclose(part[0], of.mean(axis=0))
            ends = [segment[:, 1] for segment in part[1].get_segments()]
            half = of.std(axis=0, ddof=1)
            np.testing.assert_allclose(np.diff(ends).ravel(), 2 * half)
            assert to_hex(part[2]) == color
    assert dashed_levels(ax) == [0.5]
    assert figure_legend_texts(ax.figure) == [
        *(f"subspace.d = {d} (n = 3)" for d in BUDGETS), "0.5: as much to A as to B",
    ]  # fmt: skip
    assert_legend_beside(ax.figure)


def test_trend_of_a_single_seed_has_no_bars(alone):
    ax = plot_gate_trend(alone)
    assert all(not container.lines[2] for container in ax.containers)
    assert figure_legend_title(ax.figure) == "point: a single seed"


@pytest.mark.parametrize("draw", [plot_pareto, plot_compression, plot_gates])
def test_a_budget_without_runs_is_not_drawn(alone, draw):
    with pytest.raises(NotMeasured, match=r"subspace\.d=7"):
        draw(alone, 7)
    assert not plt.get_fignums()


def test_without_learned_gates_there_is_no_trend(tmp_path):
    grid = load_grid(write_grid(tmp_path, cells(["uniform"])))
    with pytest.raises(NotMeasured, match="learned gates"):
        plot_gate_trend(grid)
    with pytest.raises(NotMeasured, match="learned gates"):
        plot_gates(grid, 1000)


def test_one_method_one_budget_one_seed_is_drawn(alone):
    for ax in (plot_pareto(alone, 500), plot_compression(alone, 500)[0], plot_gate_trend(alone)):
        assert_legend_beside(ax.figure)
    assert_legend_beside(plot_allocations(alone)[0].figure)
    assert_inside(plot_gates(alone, 500).figure)


def test_many_methods_and_layers_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("sublora_rows.N_LAYER", 30)
    methods = ["uniform", *(f"fixed_0.{i}" for i in range(1, 10)), "learned"]
    grid = load_grid(write_grid(tmp_path, cells(methods, [100, 500, 1000], range(2))))
    for ax in (plot_pareto(grid, 500), plot_compression(grid, 500)[0], plot_allocations(grid)[0]):
        assert_legend_beside(ax.figure)
    ax = plot_gate_trend(grid)
    assert_legend_beside(ax.figure)
    boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
