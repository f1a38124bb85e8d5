"""Every figure of every family: labelled axes, n, and what bands and bars mean."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
import pytest
from artists import assert_legend_beside
from compressor_rows import FLOW, train
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from qlora_rows import result, write

from analysis.curves import curve_names
from analysis.dln.store_figures import figures_of_runs
from analysis.labels import label_of
from analysis.measured import NotMeasured, StoreFigure, figure_of
from plugins import api
from plugins.load import load_sweep

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs/data"
STORES = {
    "compressor": ["compressor_smollm2", "compressor_trm"],
    "memdyn": ["memdyn_smollm2"],
    "qlora_probe": [
        "qlora_smollm2/probes",
        "qlora_smollm2/lr_sweep",
        "qlora_smollm2/rank_sweep",
    ],
    "sublora": ["sublora_markov"],
}
N = re.compile(
    r"\bn\s*=|\d+ (runs|seeds|passages|documents|prompts|tokens)|one run|single (run|seed)"
)
SPREAD = re.compile(r"interval|standard (deviation|error)|\bsd\b|quantile|\bmin\b|range")
COLUMN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|step")  # a bare name
DLN = ["num_evaluations=5", "max_steps=20", "data.data_seed=0..2"]
ALIGNED = ["model.hidden_dim=3", "data.train_samples=50", "data.test_samples=50"]
ALIGNED += ["model.num_hidden=1,2", "data.params.scale=2", "model.in_dim=2", "model.out_dim=2"]
METRICS = "weight_norm,layer_norms,gram_norms,balance_diffs,effective_weight_norm,singular_values,"
METRICS += "layer_singular_values,relative_rank,partial_product_metrics,trace_covariances,"
METRICS += "hessian_spectrum"
PAIR = "comparative_metrics=[param_distance,param_cosine_sim,layer_distances,frobenius_distance]"


@pytest.fixture(scope="module")
def dln(tmp_path_factory) -> list[pl.DataFrame]:
    """Aligned runs with all metrics, and pairs: two depths or batch sizes, two data seeds."""
    folder = tmp_path_factory.mktemp("dln")
    sweeps = {
        "exact_modes": [*ALIGNED, f"metrics=[{METRICS}]"],
        "gph_comparative": ["training_b.batch_size=5,10", "data.train_samples=50", PAIR],
    }
    for name, overrides in sweeps.items():
        report = api.sweep(f"dln/{name}", [*overrides, *DLN], output=folder / name)
        assert report.failed == 0
    return [load_sweep(folder / name, params="all") for name in sweeps]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, list[Path]]:
    """Those of the documentation, and small ones for figures that need a run's files."""
    found = {family: [DATA / name for name in names] for family, names in STORES.items()}
    folder = tmp_path_factory.mktemp("stores")
    train(folder / "compressor", *FLOW, "train.max_epochs=5")
    write(folder / "qlora", ({"optim.lr": 1e-3}, result()), ({"optim.lr": 1e-2}, result(3.0)))
    found["compressor"].append(folder / "compressor")
    found["qlora_probe"].append(folder / "qlora")
    return found


@pytest.fixture(scope="module")
def attempts(dln, stores) -> dict[str, Figure | None]:
    """'family/name' of every figure, drawn from the first runs that allow it; None: from none."""
    drawn: dict[str, Figure | None] = {}
    of_families = {"dln": [f for df in dln for f in figures_of_runs(df)]}
    of_families |= {family: list(_figures(family, own)) for family, own in stores.items()}
    for family, all_of_it in of_families.items():
        for name, _, draw in all_of_it:
            key = f"{family}/{name}"
            if drawn.get(key) is None:
                try:
                    drawn[key] = figure_of(draw())
                except NotMeasured:
                    drawn[key] = None
        plt.close("all")
    return drawn


@pytest.fixture(scope="module")
def figures(attempts) -> dict[str, Figure]:
    return {name: figure for name, figure in attempts.items() if figure is not None}


def _figures(family: str, stores: list[Path]) -> Iterator[StoreFigure]:
    module = importlib.import_module(f"analysis.{family}.store_figures")
    for store in stores:
        try:
            yield from module.store_figures(store)
        except NotMeasured:
            continue  # no single run to draw


def test_all_figures_of_all_families_are_drawn_here(attempts, stores):
    families = {path.parent.name for path in ROOT.glob("analysis/*/store_figures.py")}
    assert families == {"dln", *stores}
    assert [name for name, figure in attempts.items() if figure is None] == []
    assert families == {name.split("/")[0] for name in attempts}


def test_every_axis_has_a_label_that_is_no_bare_column_name(figures):
    wrong = {
        f"{name}, {axis}: {label!r}"
        for name, figure in figures.items()
        for ax in figure.axes
        if ax.has_data()
        for axis, label in (("x", _label(ax, "x")), ("y", _label(ax, "y")))
        if COLUMN.fullmatch(label.strip()) or not (label.strip() or _is_colorbar(ax, axis))
    }
    assert wrong == set()


def test_every_figure_says_n(figures):
    assert [name for name, figure in figures.items() if not N.search(_texts(figure))] == []


def test_every_figure_with_a_band_or_bars_says_what_they_are(figures):
    spread = {name for name, figure in figures.items() if _has_spread(figure)}
    assert {"memdyn/over_seeds", "sublora/learned_gating_trend", "dln/test_loss"} <= spread
    assert [name for name in spread if not SPREAD.search(_texts(figures[name]))] == []


def test_a_figure_grows_with_its_legend(figures):
    """113 runs that differ in eight keys: 19 lines of text beside three panels."""
    figure = figures["compressor/downstream"]
    FigureCanvasAgg(figure)  # closed figures have none that draws
    assert_legend_beside(figure)


def test_every_curve_of_our_families_has_a_label_of_its_own(dln, stores):
    frames = [*dln, *(load_sweep(store) for of_family in stores.values() for store in of_family)]
    bare = {y for df in frames for y in ("step", *curve_names(df)) if label_of(df, y) == y}
    assert bare <= {"mode_strength"}  # a list per record, which has a figure of its own


def test_a_loss_is_named_by_the_criterion_that_the_runs_share():
    rows = {"experiment": ["dln/train"] * 2, "training.criterion": ["MSELoss", "L1Loss"]}
    df = pl.DataFrame(rows)
    assert label_of(df[:1], "test_loss") == "test loss (mean squared error)"
    assert label_of(df[1:], "test_loss") == "test loss (mean absolute error)"
    assert label_of(df, "test_loss") == "test loss (unit of training.criterion)"
    assert (
        label_of(df.drop("training.criterion"), "test_loss")
        == "test loss (unit of training.criterion)"
    )


def test_a_curve_that_is_not_known_keeps_its_name():
    own = {"experiment": "dln/train"}
    assert label_of(own, "mean_singular_value") == "mean_singular_value"
    assert label_of({"experiment": "toy/train"}, "test_loss") == "test_loss"
    assert label_of({}, "step") == "step"
    mixed = pl.DataFrame({"experiment": ["dln/train", "memdyn/train"]})
    assert label_of(mixed, "step") == "step"


def _label(ax, axis: str) -> str:
    """Its own, or that of axes which share the axis."""
    siblings = getattr(ax, f"get_shared_{axis}_axes")().get_siblings(ax)
    labels = [getattr(sibling, f"get_{axis}label")() for sibling in [ax, *siblings]]
    return next(filter(None, labels), "")


def _is_colorbar(ax, axis: str) -> bool:
    return ax.get_label() == "<colorbar>" and axis == "x"


def _texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def _has_spread(figure: Figure) -> bool:
    return any(
        any(isinstance(c, FillBetweenPolyCollection) for c in ax.collections)
        or any(isinstance(c, ErrorbarContainer) and _is_drawn(c) for c in ax.containers)
        for ax in figure.axes
    )


def _is_drawn(bars: ErrorbarContainer) -> bool:
    """Whether one is longer than 0, which a single run's are."""
    _, _, lines = bars
    segments = [segment for line in lines for segment in line.get_segments()]
    return any((segment[0] != segment[1]).any() for segment in segments)
