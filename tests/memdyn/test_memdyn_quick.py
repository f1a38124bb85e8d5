"""The quick mode as people run it: a tiny model memorizes, and what its report says of that."""

import pytest

from analysis.memdyn import create_all_visualizations
from plugins import api
from plugins.load import load_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = tmp_path_factory.mktemp("quick")
    assert api.sweep("memdyn_quick", output=store).ok == 1
    return store


@pytest.mark.slow
def test_trained_passages_are_memorized_and_novel_ones_are_not(store, tmp_path):
    run = load_sweep(store).row(0, named=True)
    assert run["final_memorization_rate"] >= 0.6
    assert run["final_novel_rate"] == 0
    assert run["final_mean_novel_accuracy"] < 0.04
    create_all_visualizations(store, tmp_path)
    assert len(list(tmp_path.glob("**/*.png"))) == 6


@pytest.mark.slow
def test_nv_rises_while_nv_rel_falls(store):
    """The states shrink: between epochs 5 and 12 only nv says that they tighten."""
    run = load_sweep(store).row(0, named=True)
    at = [run["step"].index(epoch) for epoch in (5, 12)]
    nv, nv_rel = ([run[name][i] for i in at] for name in ("nv_trained", "nv_rel_trained"))
    assert nv[1] - nv[0] == pytest.approx(0.6, abs=0.15)
    assert nv_rel[1] - nv_rel[0] == pytest.approx(-0.3, abs=0.15)
