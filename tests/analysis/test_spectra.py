"""Spectra of single runs, read back from their artists."""

import numpy as np
import pytest
from artists import assert_inside, assert_legend_beside, crosses, dashed_levels, figure_legend_texts
from dln_rows import row

from analysis.dln.spectra import plot_hessian_spectrum, plot_spectra
from plugins.result import RunResult

STEP = [0, 10, 20]
SV = {"sv_0": [0.1, 1.0, 2.0], "sv_1": [0.05, 0.5, 1.0]}
PRODUCTS = {
    "pp_0_0_sv": [[3.0, 1.0], [3.0, 2.0], [3.0, 3.0]],
    "pp_0_1_sv": [[0.1, 0.1], [1.0, 0.5], [2.0, 1.0]],
    "pp_1_1_sv": [[5.0], [6.0], [7.0]],
}


def spectrum_lines(ax) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "-"]


def test_panels_are_matrices_and_lines_their_singular_values():
    axes = plot_spectra(row({"step": STEP, "test_loss": [1.0] * 3, **SV, **PRODUCTS}))
    assert [ax.get_title() for ax in axes] == ["$E$", "$W_{0}$", "$E = W_{1} W_{0}$", "$W_{1}$"]
    assert spectrum_lines(axes[0]) == [SV["sv_0"], SV["sv_1"]]
    for ax, values in zip(axes[1:], PRODUCTS.values(), strict=True):
        assert spectrum_lines(ax) == np.transpose(values).tolist()
    assert [ax.get_yscale() for ax in axes] == ["log", "linear", "log", "linear"]
    assert_legend_beside(axes[0].figure)


def test_layers_and_the_networks_of_a_comparison_have_their_panels():
    layers = {
        f"layer_{layer}_sv_{k}": [float(layer), float(k), 1.0] for layer in (0, 1) for k in (0, 1)
    }
    axes = plot_spectra(row({"step": STEP, **layers}))
    assert [ax.get_title() for ax in axes] == ["$W_{0}$", "$W_{1}$"]
    assert spectrum_lines(axes[1]) == [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    both = {f"{name}_{side}": values for side in "ba" for name, values in SV.items()}
    run = row({"step": STEP, **both}, model_a__in_dim=2, model__in_dim=7)
    axes = plot_spectra(run)
    assert [ax.get_title() for ax in axes] == ["$E$ (network b)", "$E$ (network a)"]
    assert [dashed_levels(ax) for ax in axes] == [[1.0, 2.0]] * 2


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"matrix": "diagonal", "scale": 10}, [10.0, 20.0, 30.0]),
        ({"matrix": "power_law", "scale": 50, "alpha": 1}, [50.0, 25.0, 50 / 3]),
        ({"matrix": "a_plugin's", "scale": 1}, []),
    ],
)
def test_the_teachers_values_are_dashed_on_the_end_to_end_matrix_only(params, expected):
    changes = {f"data__params__{key}": value for key, value in params.items()}
    run = row({"step": STEP, **SV, **PRODUCTS}, model__in_dim=3, **changes)
    E, first, product, second = plot_spectra(run)
    assert dashed_levels(E) == dashed_levels(product) == pytest.approx(expected)
    assert dashed_levels(first) == dashed_levels(second) == []
    named = "the teacher's singular values" in figure_legend_texts(E.figure)
    assert named == bool(expected)


def test_only_the_active_modes_of_the_teacher_are_drawn():
    run = row({"step": STEP, **SV}, model__in_dim=3, data__d_active=2)
    assert dashed_levels(plot_spectra(run)[0]) == [1.0, 2.0]


def test_without_its_config_a_run_has_no_dashed_lines():
    for run in ({"step": STEP, **SV}, RunResult(curves={"step": STEP, **SV})):
        (ax,) = plot_spectra(run)
        assert dashed_levels(ax) == []


def test_a_diverged_spectrum_ends_in_crosses():
    (ax,) = plot_spectra(row({"step": STEP, **SV}, status="diverged"))
    assert crosses(ax) == [(20, 2.0), (20, 1.0)]
    assert ax.figure.get_suptitle().endswith("(diverged after step 20)")


def test_a_run_without_singular_values_is_an_error():
    with pytest.raises(ValueError, match=r"run 0123456789abcdef has no singular values"):
        plot_spectra(row({"step": STEP, "test_loss": [1.0] * 3, "layer_norm_0": [1.0] * 3}))


EIGENVALUES = [[-5.0, 0.0, 40.0], [-1.0, 1e-9, 200.0], [0.0, 0.0, 3000.0]]  # ascending


def hessian_run() -> dict:
    return row({"step": STEP, "test_loss": [1.0] * 3, "hessian_spectrum": EIGENVALUES})


def test_the_whole_hessian_spectrum_is_a_line_per_eigenvalue_on_a_symlog_axis():
    """3000 = 10^3.5: linear below 10^(3 - 4 + 1)."""
    ax = plot_hessian_spectrum(hessian_run())
    (lines,) = ax.collections
    drawn = [segment.T.tolist() for segment in lines.get_segments()]
    assert drawn == [[STEP, list(values)] for values in zip(*EIGENVALUES, strict=True)]
    assert ax.get_yscale() == "symlog"
    assert ax.yaxis.get_transform().linthresh == 1.0
    assert ax.get_ylabel() == "eigenvalue (loss / weight$^2$; linear within +-1)"
    low, high = ax.get_ylim()
    assert low < -5
    assert high > 3000
    assert_inside(ax.figure)


@pytest.mark.parametrize(
    ("step", "record", "words"),
    [(10, 1, "at step 10, 3"), (14, 1, "at step 10, the record nearest to 14, 3"), (20, 2, "20")],
)
def test_one_step_is_drawn_sorted_and_the_nearest_record_named(step, record, words):
    ax = plot_hessian_spectrum(hessian_run(), step)
    (points,) = (line for line in ax.lines if line.get_marker() == ".")
    assert list(points.get_xdata()) == [1, 2, 3]
    assert list(points.get_ydata()) == EIGENVALUES[record][::-1]
    assert words in ax.get_title()
    assert ax.get_yscale() == "symlog"


def test_steps_beyond_the_records_and_runs_without_the_metric_are_errors():
    for step, nearest in ((-1, 0), (21, 20)):
        message = f"step={step} is beyond the records 0..20; the nearest is {nearest}"
        with pytest.raises(ValueError, match=message):
            plot_hessian_spectrum(hessian_run(), step)
    with pytest.raises(ValueError, match="has no curve 'hessian_spectrum'"):
        plot_hessian_spectrum(row({"step": STEP, "test_loss": [1.0] * 3}))


def test_a_spectrum_of_zeros_has_an_axis():
    run = row({"step": [0], "hessian_spectrum": [[0.0, 0.0]]})
    assert plot_hessian_spectrum(run).get_yscale() == "symlog"
