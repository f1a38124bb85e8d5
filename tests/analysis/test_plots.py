"""Curves over seeds, read back from their artists."""

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from artists import assert_inside, crosses, curve_lines, legend_texts, legend_title
from matplotlib.colors import to_rgb

from analysis import over_seeds, plot_curves


@pytest.mark.parametrize("log", [False, True])
def test_lines_are_the_means_and_bands_the_intervals(sweep, log):
    """On a log axis not below a tenth of the mean."""
    ax = plot_curves(sweep, "test_loss", "model.gamma", logy=log)
    statistics = over_seeds(sweep, "test_loss", "model.gamma").curves
    groups = statistics.partition_by("model.gamma", maintain_order=True)
    lines = curve_lines(ax)
    assert len(lines) == len(groups) == 4
    for line, group in zip(lines, groups, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), group["step"])
        np.testing.assert_array_equal(line.get_ydata(), group["mean"])
    assert len(ax.collections) == 3  # the single run of gamma = 2 has no band
    for band, group in zip(ax.collections, groups[:3], strict=True):
        vertices = {tuple(v) for path in band.get_paths() for v in path.vertices}
        edges = group.filter(pl.col("high").is_not_null())
        if log:
            assert (edges["low"] < edges["mean"] / 10).any() or group["model.gamma"][0] < 1.5
            edges = edges.with_columns(pl.max_horizontal("low", pl.col("mean") / 10).alias("low"))
        for bound in ("low", "high"):
            assert set(edges.select(pl.col("step").cast(float), bound).rows()) <= vertices


def test_of_two_keys_the_second_is_told_by_the_style(sweep):
    both = pl.concat([sweep.with_columns(pl.lit(lr).alias("training.lr")) for lr in (1e-3, 1e-2)])
    both = both.select("training.lr", *sweep.columns)
    lines = curve_lines(plot_curves(both, "test_loss", ["model.gamma", "training.lr"]))
    styles = [line.get_linestyle() for line in lines]
    colors = [to_rgb(line.get_color()) for line in lines]
    assert styles == ["-", "--"] * 4
    assert colors[::2] == colors[1::2]
    assert len(set(colors)) == 4


def test_legend_names_n_what_is_missing_and_what_the_band_means(sweep):
    ax = plot_curves(sweep, "test_loss", "model.gamma")
    assert legend_texts(ax) == [
        "0.75 (n = 5)",
        "1 (n = 5)",
        "1.5 (n = 5, 1 diverged, 1 failed, 1 ended early)",
        "2 (n = 1)",
        "a run diverged here",
    ]
    assert legend_title(ax) == (
        "line: mean over the runs that have the step (they differ in training.batch_seed) "
        "band: 95 % t interval of the mean (cut at a tenth of the mean) model.gamma:"
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "test_loss")
    other = plot_curves(sweep, "test_loss", level=0.5)
    assert "band: 50 % t interval" in legend_title(other)
    assert "model.gamma, training.batch_seed" in legend_title(other)
    assert legend_texts(other)[0] == "all runs (n = 16, 1 diverged, 1 failed, 1 ended early)"


def test_a_diverged_run_ends_in_a_cross_on_the_mean(sweep):
    mean = over_seeds(sweep, "test_loss", "model.gamma").curves.filter(
        pl.col("model.gamma") == 1.5, pl.col("step") == 40
    )["mean"][0]
    assert crosses(plot_curves(sweep, "test_loss", "model.gamma")) == [(40, mean)]
    alone = sweep.filter(pl.col("status") == "diverged")
    assert crosses(plot_curves(alone, "test_loss")) == [(40, alone["test_loss"][0][-1])]
    assert crosses(plot_curves(sweep.filter(pl.col("status") == "ok"), "test_loss")) == []


def test_single_runs_and_groups_without_a_record(sweep):
    ax = plot_curves(sweep, "test_loss", ["model.gamma", "training.batch_seed"])
    assert "1.5, 2 (n = 1, 1 failed, no record)" in legend_texts(ax)
    assert legend_title(ax).startswith("line: a single run")
    assert "band" not in legend_title(ax)
    assert len(curve_lines(ax)) == 15
    with pytest.raises(ValueError, match="none of the 1 runs has a record of 'test_loss'"):
        plot_curves(sweep.filter(pl.col("status") == "failed"), "test_loss")


def test_log_axis_where_positive_means_span_a_decade(sweep):
    assert plot_curves(sweep, "test_loss").get_yscale() == "log"
    assert plot_curves(sweep, "test_loss", logy=False).get_yscale() == "linear"
    assert plot_curves(sweep, "weight_norm").get_yscale() == "linear"
    assert plot_curves(sweep, "weight_norm", logy=True).get_yscale() == "log"


def test_an_interval_that_almost_touches_zero_does_not_stretch_the_log_axis():
    """Mean 1 at both steps, low 1e-9 at step 1: nine empty decades without a limit."""
    half = 12.706204736174698  # t_{1}(0.975); half interval of two runs = t |difference| / 2
    gap = (1 - 1e-9) / half
    values = [[1.0, 1 + gap, 20.0], [1.0, 1 - gap, 20.0]]
    df = pl.DataFrame({"seed": [0, 1], "step": [[0, 1, 2]] * 2, "y": values})
    assert over_seeds(df, "y").curves["low"][1] < 1e-8
    ax = plot_curves(df, "y")
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[0] == pytest.approx(0.1)


def test_numeric_keys_run_from_dark_to_light_and_texts_have_distinct_colours(sweep):
    lines = curve_lines(plot_curves(sweep, "test_loss", "model.gamma"))
    luminance = [np.dot(to_rgb(line.get_color()), [0.2126, 0.7152, 0.0722]) for line in lines]
    assert luminance == sorted(luminance)
    assert luminance[-1] < 0.75  # still seen on white paper
    named = sweep.with_columns(pl.format("g{}", "model.gamma").alias("name"))
    colors = [line.get_color() for line in curve_lines(plot_curves(named, "test_loss", "name"))]
    assert len(set(colors)) == 4


def test_values_that_agree_in_four_digits_are_told_apart():
    df = pl.DataFrame({"lr": [0.1, 0.100001], "step": [[0, 1]] * 2, "y": [[1.0, 2.0], [3.0, 4.0]]})
    assert legend_texts(plot_curves(df, "y", "lr")) == ["0.1 (n = 1)", "0.100001 (n = 1)"]
    df = df.with_columns(pl.Series("lr", [0.1, 1 / 3]))
    assert legend_texts(plot_curves(df, "y", "lr")) == ["0.1 (n = 1)", "0.3333 (n = 1)"]


def test_a_long_legend_lists_some_groups_and_says_so():
    df = pl.DataFrame({"seed": range(100), "step": [[0, 1]] * 100, "y": [[1.0, 2.0]] * 100})
    ax = plot_curves(df, "y", "seed")
    texts = legend_texts(ax)
    assert (len(texts), texts[0], texts[-1]) == (20, "0 (n = 1)", "99 (n = 1)")
    assert "20 of the 100 groups are listed" in legend_title(ax)


def test_nothing_of_the_figure_is_clipped(sweep):
    """Long keys, long legend: every text lies inside the figure."""
    long = sweep.rename({"model.gamma": "student.initialisation.gamma_of_all_layers"})
    keys = ["student.initialisation.gamma_of_all_layers", "training.batch_seed"]
    for by in ([], keys[:1], keys):
        figure = plot_curves(long, "test_loss", by).figure
        assert_inside(figure)


def test_draws_on_given_axes_and_returns_them(sweep):
    figure, axes = plt.subplots(1, 2)
    assert plot_curves(sweep, "test_loss", ax=axes[1]) is axes[1]
    assert plt.get_fignums() == [figure.number]
