"""Figures of many panels, read back from their artists."""

import numpy as np
import polars as pl
import pytest
from artists import (
    assert_inside,
    assert_legend_beside,
    crosses,
    curve_lines,
    figure_legend_texts,
    figure_legend_title,
)

from analysis import over_seeds, plot_run
from analysis.panels import MAX_PANELS, Variant, plot_groups
from plugins.result import RunResult


def test_plot_run_has_a_panel_per_curve_and_a_line_per_component(sweep):
    row = sweep.row(1, named=True)
    loss, norm, spectrum = plot_run(row)
    assert [ax.get_title() for ax in (loss, norm)] == ["test_loss", "weight_norm"]
    assert spectrum.get_title() == "singular_values (2 components, first darkest)"
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), row["step"])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), row["test_loss"])
    assert (loss.get_yscale(), norm.get_yscale()) == ("log", "linear")
    components = [line.get_ydata().tolist() for line in spectrum.lines]
    assert components == [[float(s) for s in row["step"]], [1.0] * len(row["step"])]
    assert loss.figure.get_suptitle() == "one run: model.gamma = 1, training.batch_seed = 1"


def test_plot_run_takes_a_row_a_frame_of_one_row_or_a_result(sweep):
    row = sweep.row(0, named=True)
    names = ("test_loss", "weight_norm", "singular_values")
    result = RunResult(curves={name: row[name] for name in (*names, "step")})
    forms = [plot_run(form) for form in (row, sweep[0], result)]
    for panels in forms[1:]:
        for ax, expected in zip(panels, forms[0], strict=True):
            assert ax.get_title() == expected.get_title()
            np.testing.assert_array_equal(ax.lines[0].get_data(), expected.lines[0].get_data())


def test_plot_run_skips_records_that_were_not_measured_and_crosses_the_end(sweep):
    with_nan = sweep.row(14, named=True)
    assert 50 not in plot_run(with_nan)[0].lines[0].get_xdata()
    diverged = sweep.filter(pl.col("status") == "diverged")
    panels = plot_run(diverged)
    assert crosses(panels[0]) == [(40, diverged["test_loss"][0][-1])]
    assert panels[0].figure.get_suptitle().endswith("(diverged after step 40)")


def test_plot_run_refuses_several_rows_and_runs_without_curves(sweep):
    with pytest.raises(ValueError, match="has 16 rows"):
        plot_run(sweep)
    with pytest.raises(ValueError, match=r"batch_seed = 2 \(failed\) .*RuntimeError: no memory"):
        plot_run(sweep.filter(pl.col("status") == "failed"))
    with pytest.raises(ValueError, match="no curve but 'step'"):
        plot_run(RunResult(curves={"step": [0, 1]}))


def test_numbered_curves_of_one_metric_share_a_panel():
    step = [0, 1, 2]
    curves = {
        "step": step, "norm_0": [1.0, 2.0, 3.0], "loss": [1.0, 1.0, 1.0],
        "norm_1": [4.0, 5.0, 6.0], "lonely_0": [0.0, 0.0, 0.0], "gap_0": step, "gap_2": step,
    }  # fmt: skip
    panels = {ax.get_title(): ax for ax in plot_run(RunResult(curves=curves))}
    assert list(panels) == [
        "norm_0 ... 1 (2 components, first darkest)", "loss", "lonely_0", "gap_0", "gap_2",
    ]  # fmt: skip
    norms = panels["norm_0 ... 1 (2 components, first darkest)"]
    assert [list(line.get_ydata()) for line in norms.lines] == [curves["norm_0"], curves["norm_1"]]


def test_a_run_with_a_whole_config_is_named_by_its_id(sweep):
    row = {f"key_{i}": i for i in range(30)} | sweep.row(0, named=True)
    assert plot_run(row)[0].figure.get_suptitle() == "one run: 0000000000000000"


def test_what_is_no_run_is_an_error():
    with pytest.raises(ValueError, match="a str is no run: give a row of a frame of load_sweep"):
        plot_run("outputs/dln/gph")


def test_nothing_of_a_run_is_clipped(sweep):
    long = sweep.rename({"model.gamma": "student.initialisation.gamma_of_all_layers"})
    assert_inside(plot_run(long[0])[0].figure)


def test_panels_of_groups_hold_the_means_of_each_curve(sweep):
    panels = {name: {name: Variant()} for name in ("test_loss", "weight_norm")}
    axes = plot_groups(sweep, ["model.gamma"], panels)
    assert [ax.get_title() for ax in axes] == ["test_loss", "weight_norm"]
    assert [ax.get_yscale() for ax in axes] == ["log", "linear"]
    for ax, y in zip(axes, panels, strict=True):
        statistics = over_seeds(sweep, y, "model.gamma").curves
        groups = statistics.partition_by("model.gamma", maintain_order=True)
        for line, group in zip(curve_lines(ax), groups, strict=True):
            np.testing.assert_array_equal(
                line.get_data(), group.select("step", "mean").to_numpy().T
            )
        assert len(ax.collections) == 3  # gamma = 2 is a single run
        assert [step for step, _ in crosses(ax)] == [40]


def test_variants_share_a_panel_and_the_legend_names_them(sweep):
    panels = {"both": {"test_loss": Variant("loss"), "weight_norm": Variant("norm", "--", "red")}}
    (ax,) = plot_groups(sweep, [], panels)
    assert [line.get_linestyle() for line in curve_lines(ax)] == ["-", "--"]
    assert curve_lines(ax)[1].get_color() == "red"
    assert figure_legend_texts(ax.figure) == [
        "all runs (n = 16, 1 diverged, 1 failed, 1 ended early)",
        "loss",
        "norm",
        "a run diverged here",
    ]
    (legend,) = ax.figure.legends
    assert [h.get_linestyle() for h in legend.legend_handles][:3] == ["None", "-", "--"]


def test_the_legend_counts_runs_and_covers_no_panel(sweep):
    for by, n in ((["model.gamma"], 1), (["model.gamma", "training.batch_seed"], 3)):
        axes = plot_groups(sweep, by, {f"{i}": {"test_loss": Variant()} for i in range(n)})
        assert_legend_beside(axes[0].figure)
        assert axes[0].get_window_extent().width > 2.5 * axes[0].figure.dpi  # inches are left
    by_gamma = plot_groups(sweep, ["model.gamma"], {"y": {"test_loss": Variant()}})[0].figure
    assert figure_legend_texts(by_gamma)[2:] == [
        "1.5 (n = 5, 1 diverged, 1 failed, 1 ended early)",
        "2 (n = 1)",
        "a run diverged here",
    ]
    assert "they differ in training.batch_seed" in figure_legend_title(by_gamma)


def test_too_many_panels_and_runs_without_records_are_errors(sweep):
    many = {f"panel {i}": {"test_loss": Variant()} for i in range(MAX_PANELS + 1)}
    with pytest.raises(ValueError, match=f"{MAX_PANELS + 1} curves make no figure"):
        plot_groups(sweep, [], many)
    failed = sweep.filter(pl.col("status") == "failed")
    with pytest.raises(ValueError, match="none of the 1 runs has a record"):
        plot_groups(failed, [], {"y": {"test_loss": Variant()}})
