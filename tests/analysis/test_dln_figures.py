"""Figures of dln, read back from their artists, and `python -m analysis.dln` on a store."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from artists import (
    assert_legend_beside,
    crosses,
    curve_lines,
    figure_legend_texts,
    figure_legend_title,
)

from analysis import over_seeds
from analysis.dln import plot, plot_comparative, subtract_baseline
from analysis.plots import line_colors
from plugins.registry import UnknownName
from plugins.result import RunResult

STEP = [0, 10, 20, 30]


@pytest.fixture
def comparison() -> pl.DataFrame:
    """Four seeds; the last diverged after step 10. layer_norm_0 is measured in b only."""
    rows = []
    for seed in range(4):
        n = 2 if seed == 3 else 4
        curves = {
            "step": STEP,
            "test_loss_a": [100.0 + seed, 10.0, 1.0, 0.1],
            "test_loss_b": [90.0, 9.0 + seed, 0.9, 0.09],
            "layer_norm_0_b": [1.0, 2.0, 3.0, 4.0 + seed],
            "pp_0_0_sv_a": [[1.0, 0.5]] * 4,
            "param_distance": [0.0, 1.0 + seed, 2.0, 3.0],
        }
        curves = {name: values[:n] for name, values in curves.items()}
        status = "diverged" if n == 2 else "ok"
        rows.append({"training_b.batch_seed": seed, **curves, "status": status})
    return pl.DataFrame(rows)


def lines_of(df, *names, by=()):
    """(step, mean) of each curve and group, as drawn."""
    groups = []
    for name in names:
        curves = over_seeds(df, name, by).curves
        parts = curves.partition_by(by, maintain_order=True) if by else [curves]
        groups += [part.select("step", "mean").to_numpy().T.tolist() for part in parts]
    return groups


def drawn(ax):
    return [np.asarray(line.get_data()).tolist() for line in curve_lines(ax)]


def test_plot_of_labels_has_a_panel_per_scalar_curve_and_a_line_per_label(sweep):
    groups = {"small": sweep.filter(pl.col("model.gamma") == 1.5), "one": sweep.row(0, named=True)}
    loss, norm = plot(groups)
    assert [ax.get_title() for ax in (loss, norm)] == ["test_loss", "weight_norm"]
    for ax, y in ((loss, "test_loss"), (norm, "weight_norm")):
        assert drawn(ax) == [*lines_of(groups["small"], y), *lines_of(sweep[0], y)]
    assert figure_legend_texts(loss.figure) == [
        "small (n = 5, 1 diverged, 1 failed, 1 ended early)",
        "one (n = 1)",
        "a run diverged here",
    ]
    assert "they differ in training.batch_seed" in figure_legend_title(loss.figure)
    assert len(loss.collections) == 1  # the single run has no band
    assert [step for step, _ in crosses(loss)] == [40]
    assert_legend_beside(loss.figure)


def test_plot_of_several_runs_is_their_mean_in_every_form(sweep):
    runs = sweep.filter(pl.col("model.gamma") == 1)
    rows = list(runs.iter_rows(named=True))
    names = ("step", "test_loss", "weight_norm")
    results = [RunResult(curves={name: row[name] for name in names}) for row in rows]
    for form in (runs, rows, results):
        axes = plot(form)
        assert [ax.get_title() for ax in axes] == ["test_loss", "weight_norm"]
        (line,) = drawn(axes[0])
        # 1e-6: the frame's curves are float32
        np.testing.assert_allclose(line, lines_of(runs, "test_loss")[0], rtol=1e-6)
        assert figure_legend_texts(axes[0].figure) == ["all runs (n = 5)"]


def test_a_curve_that_no_run_has_gets_no_panel(sweep):
    empty = pl.lit(None, sweep.schema["weight_norm"]).alias("weight_norm")
    assert [ax.get_title() for ax in plot(sweep.with_columns(empty))] == ["test_loss"]


def test_runs_that_all_failed_are_an_error(sweep):
    failed = sweep.filter(pl.col("status") == "failed").row(0, named=True)
    for form in ([failed, failed], {"a": failed}):
        with pytest.raises(ValueError, match=r"none of the \d runs has a curve to draw"):
            plot(form)
    with pytest.raises(ValueError, match=r"\(failed\) has no curves: RuntimeError: no memory"):
        plot(failed)


def test_plot_of_one_run_shows_all_its_curves(sweep):
    for form in (sweep[0], sweep.row(0, named=True)):
        assert len(plot(form)) == 3  # with the singular values, a list per record


def test_both_networks_share_the_panel_of_a_quantity(comparison):
    axes = {ax.get_title(): ax for ax in plot_comparative(comparison)}
    assert list(axes) == ["test_loss", "param_distance", "layer_norm_0"]
    assert drawn(axes["test_loss"]) == lines_of(comparison, "test_loss_a", "test_loss_b")
    assert drawn(axes["layer_norm_0"]) == lines_of(comparison, "layer_norm_0_b")
    assert drawn(axes["param_distance"]) == lines_of(comparison, "param_distance")
    solid, dashed = curve_lines(axes["test_loss"])
    (only_b,) = curve_lines(axes["layer_norm_0"])
    assert [solid.get_linestyle(), dashed.get_linestyle()] == ["-", "--"]
    assert solid.get_color() != dashed.get_color()
    assert (only_b.get_linestyle(), only_b.get_color()) == ("--", dashed.get_color())
    assert [ax.get_yscale() for ax in axes.values()] == ["log", "linear", "linear"]
    assert [step for step, _ in crosses(axes["test_loss"])] == [10, 10]
    figure = axes["test_loss"].figure
    assert figure_legend_texts(figure) == [
        "all runs (n = 4, 1 diverged)",
        "network a",
        "network b",
        "a run diverged here",
    ]
    assert_legend_beside(figure)


def test_labels_of_comparisons_have_colours_and_networks_line_styles(comparison):
    axes = plot_comparative({"few": comparison[:1], "many": comparison[1:]})
    lines = curve_lines(axes[0])
    few, many = line_colors(2, False)
    assert [(line.get_color(), line.get_linestyle()) for line in lines] == [
        (few, "-"),
        (many, "-"),
        (few, "--"),
        (many, "--"),
    ]
    assert [line.get_color() for line in curve_lines(axes[2])] == [few, many]
    assert figure_legend_texts(axes[0].figure)[:4] == [
        "few (n = 1)",
        "many (n = 3, 1 diverged)",
        "network a",
        "network b",
    ]


def test_one_quantity_of_a_comparison_is_one_panel(comparison):
    for y, names in (("test_loss", ("test_loss_a", "test_loss_b")), ("param_distance",) * 2):
        (ax,) = plot_comparative(comparison, y)
        names = [names] if isinstance(names, str) else names
        assert (ax.get_title(), drawn(ax)) == (y, lines_of(comparison, *names))
    with pytest.raises(UnknownName, match="'test_los'; did you mean 'test_loss'"):
        plot_comparative(comparison, "test_los")


def test_runs_of_one_network_compare_nothing(sweep):
    with pytest.raises(ValueError, match="no column ends in _a or _b"):
        plot_comparative(sweep)


def test_the_baseline_is_subtracted_step_by_step():
    df = pl.DataFrame(
        {
            "step": [[0, 5, 9], [0, 5], None],
            "y": [[3.0, 2.0, 1.0], [30.0, 20.0], None],
            "z": [[1.0] * 3, [1.0] * 2, None],
            "status": ["ok", "diverged", "failed"],
        }
    )
    baseline = df[0]
    expected = [[0.0, 0.0, 0.0], [27.0, 18.0], None]
    run = RunResult(curves={"step": np.array([0, 5, 9]), "y": np.array([3, 2, 1], np.float32)})
    for form in (baseline, baseline.row(0, named=True), run):
        result = subtract_baseline(df, form, "y")
        assert result["y"].to_list() == expected
        assert result.drop("y").equals(df.drop("y"))
    other = baseline.with_columns(y=pl.Series([[5.0, 2.0, 3.0]]))
    mean = subtract_baseline(df, pl.concat([baseline, other]), "y")
    assert mean["y"].to_list() == [[-1.0, 0.0, -1.0], [26.0, 18.0], None]


def test_unequal_grids_and_unknown_curves_are_errors():
    def runs(*grids: list[int]) -> pl.DataFrame:
        return pl.DataFrame({"step": list(grids), "y": [[1.0] * len(g) for g in grids]})

    df = runs([0, 5, 9], [0, 5, 9])
    grid = r"0, 5, \.\.\., 9 \(3 records\)"
    for other in ([0, 5, 8], [0, 5, 9, 10], [0, 5]):
        with pytest.raises(ValueError, match=f"2 runs have other steps .* {grid}, the baseline 0"):
            subtract_baseline(df, runs(other), "y")
    with pytest.raises(ValueError, match="the baseline's runs have different steps"):
        subtract_baseline(df, runs([0, 5, 9], [0, 5]), "y")
    with pytest.raises(UnknownName, match="no run has a curve 'x'"):
        subtract_baseline(df, df[0], "x")


def figures(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "analysis.dln", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_writes_every_figure_that_a_store_allows(sweep_cli, tmp_path):
    """Aligned full-batch runs have a theory; lr alone makes the lines: max_steps goes with it."""
    done = sweep_cli(
        "-cn=dln/smoke",
        "model.init=aligned",
        "training.lr=0.01,0.02",
        "max_steps=10,12",
        "--zip=training.lr,max_steps",
        "data.data_seed=0..2",
        "metrics=[weight_norm,singular_values,hessian_spectrum]",
        f"--output={tmp_path / 'store'}",
    )
    assert done.returncode == 0, done.stderr
    done = figures(tmp_path / "store", "-o", tmp_path / "figures")
    assert (done.returncode, done.stderr) == (0, "")
    by = "mean over runs by training.lr"
    run = "training.lr = 0.01, max_steps = 10, data.data_seed = 0"
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'figures' / name}.png: {what}"
        for name, what in (
            ("test_loss", f"test_loss, {by}"),
            ("curves", f"2 curves, {by}"),
            ("spectra", f"spectra of {run}"),
            ("hessian_spectrum", f"hessian spectrum of {run}"),
            ("theory", f"test_loss and its theory, {by}"),
            ("plateaus", f"test_loss and the losses of the saddles, {by}"),
        )
    ]
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "figures").iterdir())) == 6


def test_says_why_there_is_no_theory(sweep_cli, tmp_path):
    assert sweep_cli("-cn=dln/smoke", f"--output={tmp_path / 'store'}").returncode == 0
    done = figures(tmp_path / "store", "-o", tmp_path)
    assert done.returncode == 0
    assert done.stderr == "no theory.png: no theory for model.init='normal'; it needs aligned\n"
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"test_loss.png", "plateaus.png"}


def test_bad_input_is_one_line_and_exit_status_2(sweep_cli, tmp_path):
    there, nowhere = tmp_path / "store", tmp_path / "nowhere"
    assert sweep_cli("-cn=dln/smoke", f"--output={there}").returncode == 0
    for store, output, message in (
        (nowhere, nowhere / "figures", f"no store {nowhere}"),
        (nowhere, tmp_path / "figures", f"no store {nowhere}"),
        (there, nowhere / "figures", f"no folder {nowhere}"),
    ):
        done = figures(store, "-o", output)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""
        assert not output.exists()


def test_help_has_an_example():
    done = figures("--help")
    assert done.returncode == 0
    assert "python -m analysis.dln outputs/dln/gph -o outputs/dln/gph/figures" in done.stdout
