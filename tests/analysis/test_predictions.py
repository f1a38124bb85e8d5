"""Theory beside data. One matrix on whitened data: u_i(t) = s_i + (u_0 - s_i) e^(-2 t / o)."""

import numpy as np
import polars as pl
import pytest
from artists import assert_legend_beside, crosses, curve_lines, dashed_levels, figure_legend_texts
from dln_rows import row
from matplotlib.colors import to_rgb

from analysis import load_sweep, load_sweep_config, over_seeds
from analysis.dln.predictions import add_predictions, config_of, plot_plateaus, plot_theory
from plugins.registry import UnknownName

STEP = [0, 10, 30]


def closed_form(step: list[int], lr: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """test_loss and sv_0 of s = 1, 2 from u_0 = 4^(-1/2), o = 2, t = lr step."""
    t = lr * np.array(step)
    u = np.array([s + (0.5 - s) * np.exp(-t) for s in (1.0, 2.0)])
    return ((u - [[1.0], [2.0]]) ** 2).sum(0) / 2, u.max(0)


@pytest.fixture
def runs() -> pl.DataFrame:
    """lr 0.1, 0.05 x data seeds 0, 1: the closed form plus the seed; one more that failed."""
    rows = []
    for lr in (0.1, 0.05):
        for seed in (0, 1):
            loss, sv = closed_form(STEP, lr)
            curves = {
                "step": STEP,
                "test_loss": (loss + seed).tolist(),
                "sv_0": sv.tolist(),
                "own": STEP,
            }
            rows.append(row(curves, training__lr=lr, data__data_seed=seed))
    rows.append(row(None, "failed", training__lr=0.05, data__data_seed=2))
    return pl.DataFrame(rows, infer_schema_length=None)


def test_predictions_are_the_closed_form_and_residuals_the_rest(runs):
    """1e-9: the theory integrates an ordinary differential equation."""
    df = add_predictions(runs)
    assert df.columns[: len(runs.columns)] == runs.columns
    new = df.columns[len(runs.columns) :]
    assert set(new) == {
        f"{name}_{kind}" for name in ("test_loss", "sv_0") for kind in ("predicted", "residual")
    }
    for values in df.filter(pl.col("status") == "ok").iter_rows(named=True):
        loss, sv = closed_form(STEP, values["training.lr"])
        np.testing.assert_allclose(values["test_loss_predicted"], loss, rtol=1e-9)
        np.testing.assert_allclose(values["sv_0_predicted"], sv, rtol=1e-9)
        residual = [values["data.data_seed"]] * 3
        np.testing.assert_allclose(values["test_loss_residual"], residual, atol=1e-9)
    assert df.row(4, named=True)["test_loss_predicted"] is None
    assert df.row(4, named=True)["sv_0_residual"] is None


def test_every_run_is_predicted_at_its_own_steps(runs):
    short = row({"step": STEP[:2], "test_loss": [1.0, 2.0]}, "diverged")
    df = add_predictions(pl.concat([runs, pl.DataFrame([short])], how="diagonal_relaxed"))
    np.testing.assert_allclose(df["test_loss_predicted"][5], closed_form(STEP[:2])[0], rtol=1e-9)
    assert df["sv_0_residual"][5] is None


def test_a_run_without_a_theory_is_named(runs):
    other = runs.with_columns(
        pl.when(pl.col("data.data_seed") == 1)
        .then(pl.lit("normal"))
        .otherwise("model.init")
        .alias("model.init")
    )
    message = "model.init = normal.*no theory for model.init='normal'; it needs aligned"
    with pytest.raises(ValueError, match=message):
        add_predictions(other)


def test_a_frame_without_configs_is_an_error(runs):
    bare = runs.drop("model.num_hidden")
    for use in (add_predictions, plot_theory, plot_plateaus):
        with pytest.raises(ValueError, match=r"load_sweep\(\.\.\., params='all'\)"):
            use(bare)


def test_data_are_solid_theory_dashed_and_the_residual_below(runs):
    curve, residual = plot_theory(runs, "test_loss", "training.lr")
    data, theory = (
        [line for line in curve_lines(curve) if line.get_linestyle() == style]
        for style in ("-", "--")
    )
    means = over_seeds(runs, "test_loss", "training.lr").curves
    groups = means.partition_by("training.lr", maintain_order=True)
    for line, dashed, group, lr in zip(data, theory, groups, (0.05, 0.1), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), group["mean"])
        np.testing.assert_allclose(dashed.get_ydata(), closed_form(STEP, lr)[0], rtol=1e-9)
        assert to_rgb(line.get_color()) != to_rgb(dashed.get_color())
    differences = [line.get_ydata() for line in curve_lines(residual) if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(differences, np.full((2, 3), 0.5), atol=1e-9)
    assert dashed_levels(residual) == [0]
    assert figure_legend_texts(curve.figure) == [
        "0.05 (n = 3, 1 failed)",
        "0.1 (n = 2)",
        "data",
        "theory",
    ]
    assert_legend_beside(curve.figure)


def test_one_run_labels_and_other_curves_are_drawn_too(runs):
    one = plot_theory(runs.row(0, named=True), "sv_0")[0]
    np.testing.assert_allclose(curve_lines(one)[0].get_ydata(), closed_form(STEP)[1])
    labelled = plot_theory({"fast": runs[:2], "slow": runs[2:4]})[0]
    assert figure_legend_texts(labelled.figure)[:2] == ["fast (n = 2)", "slow (n = 2)"]
    diverged = plot_theory(runs[:1].with_columns(status=pl.lit("diverged")))[0]
    assert {step for step, _ in crosses(diverged)} == {30}


def test_a_log_axis_ends_with_the_data_not_with_the_prediction():
    """The prediction falls to 0, data stop at 1e-9."""
    run = row({"step": [0, 4000], "test_loss": [1.0, 1e-9]})
    curve, residual = plot_theory(run)
    assert curve.get_yscale() == "log"
    assert curve.get_ylim()[0] == pytest.approx(1e-10)
    assert residual.get_yscale() == "linear"


def test_a_curve_that_theory_does_not_know_is_an_error(runs):
    with pytest.raises(UnknownName, match="no run has a curve 'test_los'; did you mean"):
        plot_theory(runs, "test_los")
    with pytest.raises(UnknownName, match="theory predicts no curve 'own'"):
        plot_theory(runs, "own")


def test_plateaus_are_the_sums_of_the_squares_of_the_modes_left(runs):
    """s = 2, 1 and o = 2: (4 + 1) / 2, then 1 / 2; 0 needs no line. Any initial weights."""
    deep = runs.with_columns(pl.lit(1).alias("model.num_hidden"))
    normal = deep.with_columns(pl.lit("normal").alias("model.init"))
    ax = plot_plateaus(normal, "training.lr")
    assert dashed_levels(ax) == [2.5, 0.5]
    assert [line.get_linestyle() for line in curve_lines(ax)[:2]] == ["-", "-"]
    other = deep.with_columns(pl.col("data.data_seed").add(1).alias("data.params.scale"))
    with pytest.raises(ValueError, match="differ in their plateaus"):
        plot_plateaus(other)
    with pytest.raises(ValueError, match="a single layer has no saddles"):
        plot_plateaus(runs)


def test_the_config_of_a_row_is_that_of_the_store(sweep_cli, tmp_path):
    """Lists, mappings, null and keys that other runs' teachers have."""
    done = sweep_cli(
        "-cn=dln/smoke",
        "training.lr=0.01,0.02",
        "metrics=[{relative_rank: {tol: 0.1}}]",
        "+training.optimizer_params.momentum=0.5",
        f"--output={tmp_path / 'store'}",
    )
    assert done.returncode == 0, done.stderr

    for values in load_sweep(tmp_path / "store", params="all").iter_rows(named=True):
        config = config_of(values | {"data.params.alpha": None})
        version = config.pop("version")
        assert version >= 1
        assert config == load_sweep_config(tmp_path / "store", values["run_id"])
