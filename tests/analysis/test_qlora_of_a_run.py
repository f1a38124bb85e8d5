"""Figures of one run of qlora_probe, read back from their artists."""

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from artists import assert_inside, dashed_levels, legend_texts, legend_title
from qlora_rows import CLIP, diverged, result, write

from analysis.qlora_probe import (
    NotMeasured,
    load_run,
    plot_drift,
    plot_grad_norm,
    plot_inner_view,
    plot_kl_to_base,
    plot_landscape,
    plot_line,
    plot_noise_scale,
    plot_sharpness,
    plot_spectrum,
)
from analysis.qlora_probe.__main__ import OF_A_RUN
from qlora_probe.theory import loss_barrier


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The first of two learning rates."""
    store = tmp_path_factory.mktemp("probes")
    write(store, *(({"optim.lr": lr}, result()) for lr in (1e-3, 1e-2)))
    return load_run(store)


def title_of(axes):
    return axes[0].figure.get_suptitle()


def data(line):
    return [list(values) for values in line.get_data()]


def test_gradient_norms_stand_with_the_runs_own_clip_threshold(run):
    [ax] = axes = plot_grad_norm(run)
    assert data(ax.lines[0]) == [[0, 5, 10, 15], [3, 2.25, 1.5, 0.75]]
    assert dashed_levels(ax) == [CLIP]
    assert ax.get_title() == "2 of 4 measured updates clipped"
    assert title_of(axes) == "one run: optim.lr = 0.001"


def test_sharpness_has_a_panel_for_each_limit(run):
    plain, preconditioned = plot_sharpness(run)
    assert [data(line) for line in plain.lines] == [
        [[0, 5, 10, 15], [50, 55, 60, 65]],
        [[0, 5, 10, 15], [55] * 4],
    ]
    assert [data(line) for line in preconditioned.lines] == [
        [[5, 10, 15], [500] * 3],
        [[5, 10, 15], [995, 990, 985]],
    ]
    assert plain.get_title() == "4 measurements"
    assert legend_texts(preconditioned)[1] == "38 / lr: limit of Adam"


def test_sharpness_without_a_preconditioner_has_one_panel_and_counts_what_a_log_axis_hides(
    tmp_path,
):
    own = result()
    for name in ("sharpness_preconditioned", "limit_adam"):
        own.curves.pop(name)
    own.curves["sharpness"][0] = -1.0
    write(tmp_path, ({"seed": 0}, own))
    [ax] = plot_sharpness(load_run(tmp_path))
    assert list(ax.lines[0].get_xdata()) == [5, 10, 15]
    assert ax.get_title() == "3 measurements, 1 not positive are not drawn"


def test_noise_scale_is_the_ratio_of_the_means_so_far(run):
    """G2 10, 5, 0, -5 and S 100, 105, 110, 115."""
    G2, S, scale = plot_noise_scale(run)
    assert list(G2.lines[0].get_ydata()) == [10, 5, 0, -5]
    np.testing.assert_allclose(G2.lines[1].get_ydata(), [10, 7.5, 5, 2.5])
    np.testing.assert_allclose(S.lines[1].get_ydata(), [100, 102.5, 105, 107.5])
    np.testing.assert_allclose(scale.lines[0].get_ydata(), [10, 102.5 / 7.5, 21, 43])
    assert dashed_levels(scale) == [16]
    assert legend_texts(scale)[1] == "sequences of an update, $B$ = 16"


def test_noise_scale_is_left_out_where_the_mean_gradient_is_not_positive(tmp_path):
    own = result()
    own.curves["noise_g2"] = [-x for x in own.curves["noise_g2"]]  # -10, -5, 0, 5
    write(tmp_path, ({"seed": 0}, own))
    ax = plot_noise_scale(load_run(tmp_path))[2]
    assert data(ax.lines[0]) == [[], []]
    assert ax.get_title() == r"noise scale (n = 0, 4 without: $|G|^2 \leq 0$)"


def test_the_landscape_has_its_ends_marked_and_its_barrier_named(run):
    [ax] = plot_landscape(run)
    path, random, *ends = ax.lines
    a = np.linspace(-0.5, 1.5, 21)
    loss = 8 - 4 * a + 2 * a * (1 - a)
    np.testing.assert_allclose(path.get_ydata(), loss)
    assert set(random.get_ydata()) == {4}
    assert [line.get_xdata()[0] for line in ends] == [0, 1]
    assert loss_barrier(a.round(12), loss) == pytest.approx(0.5)
    assert ax.get_title() == "barrier above the straight line: 0.5 nats"
    assert legend_texts(ax)[0] == "along the path (n = 21)"


def test_the_line_between_two_adapters_has_its_barrier_named(run):
    """7 against 4.5, halfway between the ends."""
    [ax] = plot_line(run)
    assert data(ax.lines[0]) == [[0, 0.5, 1], [4, 7, 5]]
    assert ax.get_title() == "barrier 2.5 nats (n = 3 points)"


def test_drift_is_that_of_the_last_evaluation(run):
    drift, cka = plot_drift(run)
    assert data(drift.lines[0]) == [[0, 1], [0.3, 0.4]]
    assert data(cka.lines[0]) == [[0, 1], [0.7, 0.6]]
    assert drift.get_title() == "after 20 updates"
    [kl] = plot_kl_to_base(run)
    assert data(kl.lines[0]) == [[0, 10, 20], [0, 1, 2]]


def test_spectra_are_medians_over_modules_of_a_kind_and_ranks_those_of_the_end(run):
    """q: singular values (4, 1) and (8, 2), up: (1, 1/4) twice."""
    spectrum, ranks = plot_spectrum(run)
    q, up = spectrum.lines[:2]
    assert [data(q), data(up)] == [[[1, 2], [6, 1.5]], [[1, 2], [1, 0.25]]]
    band = spectrum.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band} == {(1, 4), (1, 8), (2, 1), (2, 2)}
    assert legend_texts(spectrum) == ["q (n = 2)", "up (n = 2)"]
    assert legend_title(spectrum) == "line: median over n modules band: their range"
    medians = [list(container.lines[0].get_ydata()) for container in ranks.containers]
    assert medians == [[1.5, 3], [3, 5]]
    assert dashed_levels(ranks) == [8]


def test_inner_view_compares_before_and_after(run):
    before, after, change, lens, map_before, map_after = plot_inner_view(run)
    grids = [np.asarray(ax.images[0].get_array()) for ax in (before, after, change)]
    np.testing.assert_allclose(grids[0], [[1, 1.1], [1.2, 1.3]])  # block x head
    np.testing.assert_allclose(grids[1], grids[0] + 0.25)
    np.testing.assert_allclose(grids[2], 0.25)
    assert before.images[0].get_clim() == after.images[0].get_clim()
    assert [data(line) for line in lens.lines] == [[[0, 1], [9, 8]], [[0, 1], [6, 4]]]
    weights = np.ma.filled(map_before.images[0].get_array(), -1)
    np.testing.assert_allclose(weights[2], [1 / 3] * 3)
    assert (weights[0, 1:] == -1).all()  # a key after its query has no weight
    assert np.asarray(map_after.images[0].get_array())[2, 0] == 1
    assert [t.get_text() for t in map_after.get_yticklabels()] == [r"\$", "a·b", "·"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OF_A_RUN)
def test_figures_are_drawn_inside_their_frame(run, name):
    axes = OF_A_RUN[name](run)
    assert_inside(axes[0].figure)
    assert all(ax.get_xlabel() for ax in axes)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_without_the_columns_a_figure_names_them_and_is_not_begun(tmp_path, name):
    bare = result(probes=False)
    bare.tables.clear()
    write(tmp_path, ({"seed": 0}, bare))
    with pytest.raises(NotMeasured, match=r"run 000000000000000a has no (curve|table) "):
        OF_A_RUN[name](load_run(tmp_path))
    assert plt.get_fignums() == []


def test_a_view_from_before_alone_is_none(tmp_path):
    own = result()
    table = pl.DataFrame(own.tables["attention_entropy"]).filter(phase="base")
    own.tables["attention_entropy"] = table.to_dict(as_series=False)
    write(tmp_path, ({"seed": 0}, own))
    with pytest.raises(NotMeasured, match="no inner view after the training"):
        plot_inner_view(load_run(tmp_path))


def test_a_diverged_run_says_so_in_its_title(tmp_path):
    own = diverged()
    own.curves["grad_norm"] = [1.0, *[float("nan")] * 5]
    write(tmp_path, ({"seed": 0}, own))
    assert title_of(plot_grad_norm(load_run(tmp_path))).endswith("(diverged after step 5)")
