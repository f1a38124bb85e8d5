"""Analyses of memdyn on stores, and its figures read back from their artists."""

import dataclasses
import inspect
import subprocess
import sys
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from artists import assert_inside, curve_lines, legend_texts, legend_title
from memdyn_rows import long, write
from scipy import stats

from analysis import memdyn
from analysis.memdyn.figures import FIGURES
from analysis.memdyn.over_seeds import plot_over_seeds
from analysis.memdyn.runs import training_summary
from memdyn import theory
from plugins.load import load_sweep
from plugins.registry import UnknownName

DEEP = (0, 1, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
ANALYSES = {  # name -> arguments after the data
    "analyze_layer_temporal_patterns": {},
    "analyze_memorization_onset": {"layer": 1},
    "analyze_u_shape_trajectory": {"layer": 1},
    "compute_compression_velocity": {"layer": 1, "group": "novel"},
    "generate_summary_report": {},
    "predict_memorization": {"epoch": 1},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A store with one run, seed 0."""
    store = tmp_path_factory.mktemp("one")
    write(store, 0)
    return store


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Seeds 0, 1, 2 (diverged); seed 3 failed."""
    store = tmp_path_factory.mktemp("several")
    write(store, 0, 1, 2, failed=3)
    return store


def as_text(result):
    fields = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result
    return repr(fields)


@pytest.mark.parametrize("name", ANALYSES)
def test_analyses_of_a_store_are_those_of_its_table(one, name):
    of_store, of_data = getattr(memdyn, name), getattr(theory, name)
    expected = as_text(of_data(long(), **ANALYSES[name]))
    assert as_text(of_store(one, **ANALYSES[name])) == expected
    assert as_text(of_store(str(one), run_id=f"{10:016x}", **ANALYSES[name])) == expected
    assert as_text(of_store(long().to_dict(as_series=False), **ANALYSES[name])) == expected


@pytest.mark.parametrize("name", [*ANALYSES, *(f.__name__ for f in FIGURES.values())])
def test_wrapped_functions_show_their_signature_and_say_how_to_name_a_run(name):
    function = getattr(memdyn, name)
    *own, last = inspect.signature(function).parameters
    assert own == [*inspect.signature(inspect.unwrap(function)).parameters]
    assert last == "run_id"
    assert inspect.getdoc(function).startswith(inspect.getdoc(inspect.unwrap(function)))
    assert "path of a store" in function.__doc__


def test_layer_idx_is_layer(one):
    found = memdyn.analyze_u_shape_trajectory(one, layer_idx=2)
    np.testing.assert_array_equal(found.means, theory.analyze_u_shape_trajectory(long(), 2).means)
    with pytest.raises(ValueError, match="layer=9 is none of 0, 1, 2"):
        memdyn.plot_compression_velocity(one, layer_idx=9)


def test_threshold_is_the_runs_unless_given(tmp_path):
    """All trained passages have accuracy .25 at epoch 0."""
    write(tmp_path, 0, threshold=0.2)
    onset = memdyn.analyze_memorization_onset
    assert onset(tmp_path, layer=0).n_already == 12
    assert onset(tmp_path, layer=0, threshold=0.6).n_already == 0
    ax = memdyn.plot_memorization_rate(tmp_path)
    assert ax.get_ylabel() == "share of passages with accuracy >= 0.2"
    assert memdyn.generate_summary_report(tmp_path).count("at\n  least 0.2") == 1


def test_passage_data_joins_the_tables_of_one_run(several):
    for seed in (0, 1):
        found = memdyn.passage_data(several, f"{seed + 10:016x}")
        expected = long(seed=seed)
        assert found.height == expected.height == 5 * 24 * 3
        keys = ["epoch", "passage_id", "layer"]
        assert found.select(expected.columns).sort(keys).equals(expected.sort(keys))


def test_a_store_of_several_runs_wants_a_name_and_lists_them(several):
    message = "holds 3 runs: name one by its run_id\n  000000000000000a  seed = 0\n"
    with pytest.raises(ValueError, match=message):
        memdyn.analyze_u_shape_trajectory(several, layer=1)
    with pytest.raises(UnknownName, match="no run '000000000000001b'; did you mean '0000000000000"):
        memdyn.passage_data(several, run_id="000000000000001b")
    with pytest.raises(ValueError, match="chooses a run of a store, but data was given"):
        memdyn.plot_memorization_rate(long(), run_id="000000000000000a")


def test_a_store_without_finished_runs_and_no_store_are_errors(tmp_path):
    write(tmp_path / "failed", failed=3)
    with pytest.raises(ValueError, match="failed holds no finished run of memdyn/train"):
        memdyn.passage_data(tmp_path / "failed")
    with pytest.raises(FileNotFoundError, match="no store"):
        memdyn.passage_data(tmp_path / "nowhere")


def test_trajectories_are_means_with_t_intervals_by_layer_and_group():
    data = long()
    ax = memdyn.plot_compression_trajectories(data)
    lines = [line for line in ax.lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 3
    own = data.filter(layer=2, group="trained").sort("epoch", "passage_id")
    values = own["nv_rel"].to_numpy().reshape(5, 12)
    np.testing.assert_allclose(lines[4].get_ydata(), values.mean(1), rtol=1e-12)
    band = ax.collections[4].get_paths()[0].vertices
    low, high = stats.t.interval(0.95, 11, values.mean(1), values.std(1, ddof=1) / np.sqrt(12))
    at_8 = band[band[:, 0] == 8, 1]
    assert (at_8.min(), at_8.max()) == pytest.approx((low[-1], high[-1]))
    assert legend_title(ax) == "line: mean over n passages band: 95 % t interval of the mean"
    assert legend_texts(ax)[-2:] == ["trained (n = 12)", "novel (n = 12)"]


def test_of_many_layers_five_are_drawn_and_the_title_says_so():
    ax = memdyn.plot_compression_trajectories(long(layers=60, n=3))
    assert "5 of 60 layers" in ax.get_title()
    assert legend_texts(ax)[:5] == [f"layer {n}" for n in (0, 15, 30, 44, 59)]
    assert len(ax.collections) == 10


def test_points_are_passages_of_one_epoch_and_layer():
    data = long()
    ax = memdyn.plot_memorization_vs_compression(data, layer=2, epoch=2)
    novel, trained = (line for line in ax.lines if line.get_marker() == "o")
    own = data.filter(layer=2, epoch=2, group="trained")
    assert sorted(trained.get_xdata()) == sorted(own["nv_rel"])
    assert set(trained.get_ydata()) == {0.25, 1.0}
    assert set(novel.get_ydata()) == {0.0}
    rho, p = stats.spearmanr(own["nv_rel"], own["accuracy"])
    assert f"rho = {rho:.2f}, p = {p:.2g}" in legend_texts(ax)[1]
    assert "layer 2, epoch 2" in ax.get_title()
    with pytest.raises(ValueError, match="epoch=3 was not measured"):
        memdyn.plot_memorization_vs_compression(data, epoch=3)


def test_the_layer_is_by_default_the_middle_one():
    """Transition (B - 1) // 2 between B blocks: 2 of 0 .. 3."""
    for draw in (
        memdyn.plot_memorization_vs_compression,
        memdyn.plot_individual_passage_trajectories,
        memdyn.plot_compression_velocity,
    ):
        assert "layer 2" in draw(long(layers=4, n=3)).get_title()


@pytest.mark.parametrize("layers", [3, 11])
def test_heatmap_shows_the_difference_and_marks_small_q(layers):
    """Few cells hold their number and a star, of many the small ones a dot."""
    data = long(layers=layers, seed=5)  # with 11 layers 4 cells have p < .05 <= q
    effect = 0.1 * pl.col("layer") * pl.col("epoch") * (pl.col("group") == "trained")
    data = data.with_columns(pl.col("nv_rel") - effect * (pl.col("layer") < layers - 2))
    found = theory.analyze_layer_temporal_patterns(data)
    ax = memdyn.plot_layer_epoch_heatmap(data)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), found.difference)
    low, high = image.get_clim()
    assert low == -high  # white is no difference
    expected = {(int(j), int(i)) for i, j in zip(*np.nonzero(found.q < 0.05), strict=True)}
    assert layers == 3 or len(expected) < (found.p < 0.05).sum()
    stars = {tuple(t.get_position()) for t in ax.texts if t.get_text().endswith("*")}
    dots = {tuple(xy) for line in ax.lines for xy in zip(*line.get_data(), strict=True)}
    assert (stars if layers == 3 else dots) == expected != set()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "4", "8"]
    assert found.pattern in ax.get_title()


def test_every_passage_has_a_line_and_its_kind_a_mean():
    data = long(epochs=(0, 1, 2, 4), n=12)  # at epoch 4 passages 0 .. 6 are memorized
    ax = memdyn.plot_individual_passage_trajectories(data, layer=1)
    assert sum(line.get_linewidth() == 0.6 for line in ax.lines) == 24
    assert legend_texts(ax) == [
        "novel (n = 12)",
        "trained, not memorized (n = 5)",
        "trained, memorized (n = 7)",
    ]
    own = data.filter(pl.col("passage_id") < 7, layer=1).group_by("epoch").agg(pl.mean("nv_rel"))
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), own.sort("epoch")["nv_rel"])


def test_rates_have_wilson_intervals():
    """k of n = 12: (k + z^2/2 +- z sqrt(k (n - k) / n + z^2/4)) / (n + z^2), z = 1.96."""
    ax = memdyn.plot_memorization_rate(long(epochs=(0, 1, 2, 4)))
    trained, novel = ax.lines
    k = np.array([0, 1, 3, 7])
    np.testing.assert_allclose(trained.get_ydata(), k / 12)
    assert not novel.get_ydata().any()
    z = stats.norm.ppf(0.975)
    half = z * np.sqrt(k * (12 - k) / 12 + z**2 / 4)
    low, high = (k + z**2 / 2 - half) / (12 + z**2), (k + z**2 / 2 + half) / (12 + z**2)
    band = ax.collections[0].get_paths()[0].vertices
    for epoch, *ends in zip((1, 2, 4), low[1:], high[1:], strict=True):
        drawn = band[band[:, 0] == epoch, 1]
        assert (drawn.min(), drawn.max()) == pytest.approx(ends)


def test_velocity_stands_between_the_measured_epochs():
    data = long()
    ax = memdyn.plot_compression_velocity(data, layer=2)
    trained, _ = (container.lines[0] for container in ax.containers)
    found = theory.compute_compression_velocity(data, 2)
    np.testing.assert_allclose(trained.get_xdata(), [0.5, 1.5, 3, 6])
    np.testing.assert_allclose(trained.get_ydata(), found.velocity)
    (bars,) = ax.containers[0].lines[2]
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, 4 * found.velocity_se)
    assert legend_texts(ax)[0] == "trained (n = 12), sign changes: 0"


@pytest.mark.parametrize(
    "sizes",
    [
        {"epochs": DEEP, "n": 100, "layers": 60},
        {"epochs": (0, 1), "n": 2, "layers": 1},
        {"epochs": (0,), "n": 1, "layers": 1},
    ],
    ids=["large", "small", "smallest"],
)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_any_size_are_drawn_inside_their_frame(name, sizes):
    assert_inside(FIGURES[name](long(**sizes)).figure)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_a_metric_without_a_finite_value_leaves_the_axes_empty_and_says_why(name):
    data = long().with_columns(nv_rel=pl.lit(None, pl.Float64))
    ax = FIGURES[name](data)
    words = " ".join(text.get_text() for text in ax.texts)
    assert ("nv_rel" in words) == (name != "memorization_rate")


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"memorization_rate"}))
def test_a_metric_that_is_not_there_is_named_with_the_nearest(name):
    with pytest.raises(ValueError, match="no column 'nv_rell'; did you mean 'nv_rel'"):
        FIGURES[name](long(), metric="nv_rell")


@pytest.mark.parametrize("epochs", [DEEP, (0, 1, 3, 5, 8, 10, 12, 15, 20), tuple(range(100))])
def test_labels_of_epochs_do_not_overlap(epochs):
    ax = memdyn.plot_memorization_rate(long(epochs=epochs, n=2, layers=1))
    ax.figure.canvas.draw()
    labels = ax.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert {int(label.get_text()) for label in labels} <= set(epochs)
    assert len(labels) >= 7
    assert labels[0].get_text() == "0"


def test_all_visualizations_are_files_of_their_names(one, tmp_path):
    paths = memdyn.create_all_visualizations(one, tmp_path / "new")
    assert paths == [tmp_path / "new" / "figures" / f"{name}.png" for name in FIGURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    without = long().drop("nv_rel")
    [path] = memdyn.create_all_visualizations(without, tmp_path / "without")
    assert path.name == "memorization_rate.png"


def test_seeds_are_averaged_and_other_keys_are_not(several):
    """nv_rel_trained of seed s is s + sqrt(epoch); seed 2 has no record at epoch 8."""
    runs = load_sweep(several)
    summaries = [
        training_summary(several, run, memdyn.passage_data(several, run["run_id"]), 0.6)
        for run in runs.iter_rows(named=True)
    ]
    rates, compression = plot_over_seeds(runs, summaries)
    trained, novel = curve_lines(compression)
    np.testing.assert_allclose(trained.get_ydata(), [1, 2, 1 + 2**0.5, 3, 0.5 + 8**0.5], rtol=1e-6)
    np.testing.assert_allclose(novel.get_ydata(), 2 * trained.get_ydata(), rtol=1e-6)
    assert compression.get_xlabel().startswith("epoch")
    np.testing.assert_allclose(curve_lines(rates)[0].get_ydata(), np.array([0, 1, 3, 7, 12]) / 12)
    two = runs.with_columns(pl.Series("lr", [1e-3, 1e-3, 1e-4])).select("lr", pl.exclude("lr"))
    assert len(curve_lines(plot_over_seeds(two, summaries)[1])) == 4


def test_importing_the_analyses_loads_no_torch():
    code = "import sys, analysis.memdyn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
