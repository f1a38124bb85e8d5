"""Figures of compressor, read back from their artists against the frame they are drawn from."""

import numpy as np
import polars as pl
import pytest
from artists import (
    assert_inside,
    assert_legend_beside,
    figure_legend_texts,
    figure_legend_title,
    legend_texts,
    legend_title,
)
from compressor_rows import (
    DIM,
    FLOW,
    METHODS,
    costs,
    mean_over_seeds,
    predictor,
    train,
    with_columns,
    write,
)
from scipy.stats import t as student

from analysis.compressor import (
    NotMeasured,
    load_run,
    load_store,
    plot_downstream,
    plot_gap,
    plot_mode_strength,
    plot_nested,
    plot_reconstruction,
    plot_spectrum,
    plot_stage_1b,
    plot_trm,
)
from compressor import theory

RANKS = [1, 4, 16, 48]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Four D', of which 48 = D, by two seeds."""
    folder = tmp_path_factory.mktemp("sizes")
    train(folder, f"model.d_compressed={','.join(map(str, RANKS))}", "train.seed=0,1")
    return load_store(folder)


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory):
    """A nested W of 2, 4 and 8, and W of 4 and 8 trained alone."""
    folder = tmp_path_factory.mktemp("prefixes")
    train(folder, "model.nested=[2,4,8]", "model.d_compressed=8")
    train(folder, "model.d_compressed=4,8")
    return load_store(folder)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """Steps of gradient descent from a small start along the eigenvectors."""
    folder = tmp_path_factory.mktemp("flow")
    train(folder, *FLOW)
    return load_run(load_store(folder))


def lines(ax, linestyle: str) -> list[np.ndarray]:
    """[2, n] of each line in this style, but for levels across the whole axes."""
    drawn = [np.asarray(line.get_data(), float) for line in ax.lines
             if line.get_linestyle() == linestyle]  # fmt: skip
    return [line for line in drawn if line.shape[1] > 2]


def bars(ax) -> np.ndarray:
    """Lower and upper ends of the first line's error bars, [n, 2]."""
    [segments] = [c.get_segments() for c in ax.containers[0].lines[2]]
    return np.array([segment[:, 1] for segment in segments])


def test_reconstruction_draws_means_over_seeds_beside_pca(sizes):
    axes = plot_reconstruction(sizes)
    for ax, name, pca in zip(axes, ("cos", "rel_error"), ("cos_pca", "rel_pca"), strict=False):
        np.testing.assert_allclose(
            lines(ax, "-")[0], mean_over_seeds(sizes.rows, f"{name}_heldout")
        )
        np.testing.assert_allclose(
            lines(ax, "--")[0], mean_over_seeds(sizes.rows, f"{pca}_heldout")
        )
    [alone] = lines(axes[0], "-.")
    assert set(alone[1]) == set(sizes.rows["cos_mean_only_heldout"])
    for style, name in (("-", "variance_ratio_total"), (":", "variance_ratio")):
        [line] = lines(axes[2], style)
        np.testing.assert_allclose(line, mean_over_seeds(sizes.rows, f"{name}_heldout"))
    assert [text.get_text() for text in axes[0].get_xticklabels()] == [
        "1\n48x", "4\n12x", "16\n3x", "48\n1x",
    ]  # fmt: skip
    assert figure_legend_texts(axes[0].figure) == ["trained", "PCA", "mean state alone"]
    assert figure_legend_title(axes[0].figure) == (
        "point: mean of 2 runs (they differ in train.seed) bar: 95 % t interval of the mean"
    )
    assert_legend_beside(axes[0].figure)


def test_bars_are_t_intervals_over_seeds(sizes):
    [ax, *_] = plot_reconstruction(sizes)
    for k, (low, high) in zip(RANKS, bars(ax), strict=True):
        values = sizes.rows.filter(k=k)["cos_heldout"].to_numpy()
        half = student.ppf(0.975, 1) * values.std(ddof=1) / np.sqrt(2)
        np.testing.assert_allclose([low, high], values.mean() + half * np.array([-1, 1]))


def test_published_estimates_stand_at_their_ratio(sizes):
    [ax, *_] = plot_reconstruction(sizes)
    [line] = [line for line in ax.lines if line.get_marker() == "x"]
    drawn = dict(zip(*line.get_data(), strict=True))
    assert drawn == {DIM / ratio: cos for ratio, cos in theory.EXPECTED_COSINE.items()}
    assert legend_texts(ax) == ["estimate published for\nSmolLM3-3B (unmeasured)"]


def test_stages_are_not_averaged(sizes):
    """Which run a stage 1b goes on from was taken to tell all that the stage tells."""
    is_1b = pl.col("train.seed") == 1
    store = with_columns(
        sizes,
        **{
            "train.seed": pl.lit(0),
            "stage": pl.when(is_1b).then(pl.lit("1b")).otherwise(pl.lit("1a")),
            "train.init_from": pl.when(is_1b).then(pl.col("run_id")),
        },
    )
    first = store.rows.columns.index("step")  # keys stand before it
    order = [*store.rows.columns[:first], "stage", "train.init_from", "step"]
    store = type(store)(store.path, store.rows.select(*dict.fromkeys(order), pl.exclude(order)))
    axes = plot_reconstruction(store)
    assert figure_legend_texts(axes[0].figure)[:2] == ["1a", "1b"]
    assert figure_legend_title(axes[0].figure) == "point: a single run stage:"
    for line, stage in zip(lines(axes[0], "-"), ("1a", "1b"), strict=True):
        one = store.rows.filter(stage=stage)
        np.testing.assert_allclose(line, mean_over_seeds(one, "cos_heldout"))


def test_seeds_of_stage_1b_are_averaged_though_they_go_on_from_different_runs(sizes):
    rows = sizes.rows.with_columns(pl.col("run_id").alias("train.init_from"))
    first = sizes.rows.columns.index("step")
    keys = [*sizes.rows.columns[:first], "train.init_from"]
    axes = plot_reconstruction(type(sizes)(sizes.path, rows.select(*keys, pl.exclude(keys))))
    assert "mean of 2 runs (they differ in train.seed)" in figure_legend_title(axes[0].figure)


def test_a_diverged_run_counts_in_no_final_number(sizes):
    is_last = pl.col("train.seed") == 1
    status = pl.when(is_last).then(pl.lit("diverged")).otherwise("status")
    [ax, *_] = plot_reconstruction(with_columns(sizes, status=status))
    rest = sizes.rows.filter(~is_last)
    np.testing.assert_allclose(lines(ax, "-")[0], mean_over_seeds(rest, "cos_heldout"))


def test_gap_has_a_line_per_rank_but_for_a_pca_without_error(sizes):
    axes = plot_gap(sizes)
    for ax, curve in zip(axes, ("train_gap", "heldout_gap"), strict=True):
        drawn = lines(ax, "-")
        assert len(drawn) == 3
        for line, k in zip(drawn, (1, 4, 16), strict=True):
            rows = sizes.rows.filter(k=k)
            np.testing.assert_allclose(line[0], rows["step"][0])
            np.testing.assert_allclose(line[1], np.mean(rows[curve].to_list(), 0), rtol=1e-6)
        assert ax.get_yscale() == "log"
    assert figure_legend_texts(axes[0].figure) == [f"{k} (n = 2)" for k in (1, 4, 16)]
    assert_legend_beside(axes[0].figure)


def test_gaps_below_zero_are_drawn_on_an_axis_that_has_them(sizes):
    below = pl.col("heldout_gap").list.eval(pl.element() - pl.element().max())
    axes = plot_gap(with_columns(sizes, heldout_gap=below))
    assert [ax.get_yscale() for ax in axes] == ["log", "symlog"]
    low, high = axes[1].get_ylim()
    assert low < min(line[1].min() for line in lines(axes[1], "-")) < 0 < high


def test_downstream_draws_trained_pca_and_random(sizes):
    store = with_columns(sizes, **costs())
    axes = plot_downstream(store)
    for ax, name in zip(axes, ("kl", "delta_nll", "top1_agree"), strict=True):
        for style, end in (("-", ""), ("--", "_pca"), (":", "_random")):
            drawn = [line for line in lines(ax, style) if line[0][0] == 1]
            np.testing.assert_allclose(drawn[0], mean_over_seeds(store.rows, f"{name}{end}"))
    assert [ax.get_yscale() for ax in axes] == ["log", "log", "linear"]
    assert figure_legend_texts(axes[0].figure) == ["trained", "PCA", "random projector"]
    assert_legend_beside(axes[0].figure)


def test_costs_near_zero_make_the_axis_linear_there(sizes):
    """At D' = D PCA costs nothing: a logarithm of rounding is no height."""
    store = with_columns(sizes, **costs() | {"kl_pca": pl.lit(-2e-9)})
    [ax, *_] = plot_downstream(store)
    assert ax.get_yscale() == "symlog"
    low, high = ax.get_ylim()
    assert -1e-2 < low < 0
    assert high > 3


def test_modes_follow_gradient_flow(flow):
    """The closed form is drawn from each mode's own start; Euler's error is O(lr lambda / D)."""
    [ax] = plot_mode_strength(flow)
    drawn, predicted = lines(ax, "-")[:3], lines(ax, "--")
    assert len(predicted) == 3
    for i, (line, curve) in enumerate(zip(drawn, predicted, strict=True)):
        np.testing.assert_allclose(
            line, [flow.row["step"], [s[i] for s in flow.row["mode_strength"]]]
        )
        start = line[1][0]
        assert start == pytest.approx(0.01, rel=1e-4)
        by_theory = theory.mode_strength(0.1 * curve[0], flow.eigenvalues[i], start, 8)
        np.testing.assert_allclose(curve[1], by_theory)
        at = theory.mode_strength(0.1 * line[0], flow.eigenvalues[i], start, 8)
        assert np.abs(at - line[1]).max() < 0.03
        assert line[1][-1] > 0.9
    assert "dashed: gradient flow" in legend_title(ax)
    assert legend_texts(ax)[0] == f"1 ($\\lambda$ = {flow.eigenvalues[0]:.3g})"
    assert_inside(ax.figure)


def test_modes_without_a_closed_form_say_what_it_needs(sizes):
    run = load_run(sizes, sizes.rows.filter(k=4)["run_id"][0])
    [ax] = plot_mode_strength(run)
    assert lines(ax, "--") == []
    assert len(lines(ax, "-")) == 16
    assert legend_texts(ax)[-1] == "5 to 16"
    for needed in (
        "train.optimizer=sgd (is adamw)",
        "train.schedule=constant (is cosine)",
        "train.clip=none (is 1.0)",
        "model.init=pca (is orthogonal)",
    ):
        assert needed in legend_title(ax)
    assert_inside(ax.figure)


def test_spectrum_marks_rank_and_participation(sizes):
    run = load_run(sizes, sizes.rows.filter(k=4)["run_id"][0])
    [ax] = plot_spectrum(run)
    values, rank, participation = (np.asarray(line.get_data(), float) for line in ax.lines)
    np.testing.assert_array_equal(values, [range(1, DIM + 1), run.eigenvalues])
    assert set(rank[0]) == {4}
    np.testing.assert_allclose(participation[0], run.row["participation_train"])
    kept = 100 * run.eigenvalues[:4].sum() / run.eigenvalues.sum()
    assert f"$D'$ = 4:\n{kept:.3g} % of the sum" in legend_texts(ax)[1]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert_inside(ax.figure)


def test_prefixes_stand_beside_those_trained_alone(prefixes):
    axes = plot_nested(prefixes)
    table = prefixes.table("nested").filter(split="heldout").sort("k")
    [of_prefixes] = lines(axes[1], "-")
    np.testing.assert_allclose(of_prefixes, table.select("k", "mse").to_numpy().T)
    alone = prefixes.rows.filter(pl.col("model.nested") == "[]")
    [_, drawn] = [c.lines[0].get_data() for c in axes[1].containers]
    np.testing.assert_allclose(drawn, mean_over_seeds(alone, "mse_heldout"))
    gaps = prefixes.table("nested").filter(split="train").sort("k")
    np.testing.assert_allclose(lines(axes[0], "-")[0], gaps.select("k", "gap_pca").to_numpy().T)
    assert figure_legend_texts(axes[0].figure) == ["prefix of a nested W", "trained alone", "PCA"]
    assert_legend_beside(axes[0].figure)


def test_stage_1b_shows_the_error_before_and_after(sizes):
    before, k = pl.lit(0.5), pl.col("k").cast(pl.Float64)
    store = with_columns(sizes, mse_1a_before=before, mse_1a_after=0.5 + 0.25 / k)
    axes = plot_stage_1b(store)
    np.testing.assert_allclose(lines(axes[0], "-")[0][1], [0.5 + 0.25 / k for k in RANKS])
    np.testing.assert_allclose(lines(axes[0], ":")[0][1], 0.5)
    assert legend_texts(axes[0]) == ["after stage 1b", "before it"]
    for style, split in (("-", "heldout"), (":", "train")):
        expected = mean_over_seeds(store.rows, f"gap_pca_{split}")
        np.testing.assert_allclose(lines(axes[1], style)[0], expected)
    assert_legend_beside(axes[0].figure)


def test_trm_draws_each_run_and_their_mean(tmp_path):
    write(tmp_path, *(({"trm.seed": seed}, predictor(seed)) for seed in range(3)))
    axes = plot_trm(load_store(tmp_path))
    for ax, above in zip(axes, (0, 0.05), strict=True):
        points = [line.get_data() for line in ax.lines if line.get_marker() == "o"]
        assert len(points) == len(METHODS)
        for i, (x, y) in enumerate(points):
            assert set(x) == {i}
            np.testing.assert_allclose(y, 0.1 * (i + 1) + 0.01 * np.arange(3) + above)
        np.testing.assert_allclose(
            [c.lines[0].get_ydata()[0] for c in ax.containers], 0.1 * np.arange(1, 7) + 0.01 + above
        )
    # SD .01 in each: half an interval of three runs is 4.303 * .01 / sqrt(3)
    half = student.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    np.testing.assert_allclose(np.diff(bars(axes[0])), 2 * half)
    assert [text.get_text().split("\n")[0] for text in axes[0].get_xticklabels()] == [
        "train", "copy", "ridge", "one pass,", "one pass,", "recursive",
    ]  # fmt: skip
    assert "mean of 3 runs (they differ in trm.seed)" in figure_legend_title(axes[0].figure)
    assert_legend_beside(axes[0].figure)


def test_trm_of_two_sizes_are_not_averaged(tmp_path):
    write(tmp_path, *(({"model.d_compressed": k}, predictor(k)) for k in (4, 16)))
    axes = plot_trm(load_store(tmp_path))
    assert figure_legend_texts(axes[0].figure) == ["4", "16"]
    assert len([line for line in axes[0].lines if line.get_marker() == "o"]) == 2 * len(METHODS)


def test_groups_of_two_keys_have_colours_of_their_own(tmp_path):
    pairs = [("depth", 4), ("depth", 16), ("next", 4)]
    write(tmp_path, *(({"task": t, "model.d_compressed": k}, predictor(k)) for t, k in pairs))
    [legend] = plot_trm(load_store(tmp_path))[0].figure.legends
    assert len({handle.get_color() for handle in legend.legend_handles}) == 3


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (plot_downstream, "none of the 8 runs has kl"),
        (plot_nested, "has a table nested"),
        (plot_stage_1b, "none of the 8 runs has mse_1a_before"),
        (plot_trm, "no finished run of compressor/trm"),
    ],
)
def test_what_was_not_measured_is_said(sizes, draw, message):
    with pytest.raises(NotMeasured, match=message):
        draw(sizes)


def test_gap_needs_an_error_of_pca(sizes):
    store = type(sizes)(sizes.path, sizes.rows.filter(k=DIM))
    with pytest.raises(NotMeasured, match="PCA has no error"):
        plot_gap(store)


def test_final_numbers_need_a_run_that_ended_well(sizes):
    with pytest.raises(NotMeasured, match="every run of compressor/train diverged"):
        plot_reconstruction(with_columns(sizes, status=pl.lit("diverged")))


def test_spectrum_needs_the_artifact(sizes, tmp_path):
    run = load_run(sizes)
    with pytest.raises(NotMeasured, match=r"there is no .*eigenvalues\.npy"):
        plot_spectrum(type(run)(tmp_path, run.row))
