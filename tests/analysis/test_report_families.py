"""Each family's own figures in a report, of stores that real runs have left."""

import pytest

from analysis.report.figures import draw_family, main_scalars
from analysis.report.runs import read_runs

SUBLORA = ("pareto_frontier", "compression_comparison", "learned_gating_heatmap")
OF_STORES = {
    "memdyn": (
        "memdyn_smollm2",
        {
            "over_seeds",
            "compression_trajectories",
            "memorization_vs_compression",
            "layer_epoch_heatmap",
            "individual_trajectories",
            "memorization_rate",
            "compression_velocity",
        },
        set(),
    ),
    "qlora_probe": (
        "qlora_tiny/rank",
        {"loss_curves", "ranks", "spectrum"},
        {"final_loss", "grad_norm", "landscape"},
    ),
    "compressor": ("compressor_trm", {"trm"}, {"gap", "figures of compressor"}),
    "sublora": (
        "sublora_markov",
        {f"{name}_d{d}" for name in SUBLORA for d in (1000, 2000)}
        | {"allocation_comparison_grid", "learned_gating_trend"},
        set(),
    ),
}


@pytest.mark.parametrize("family", OF_STORES)
def test_figures_and_why_others_are_missing(family, root):
    name, drawn, missing = OF_STORES[family]
    runs = read_runs(root / "docs" / "data" / name)
    assert runs.families == [family]
    found = draw_family(runs, family, lambda what: None)
    assert found.broken == []
    assert {figure.name for figure in found.figures} >= drawn
    assert {line.split(" (")[0] for line in found.not_drawn} >= set(missing)
    assert all(figure.caption.endswith(".") for figure in found.figures)
    assert set(main_scalars(family)) & set(runs.scalars)
