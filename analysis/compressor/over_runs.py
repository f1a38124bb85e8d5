"""Figures over runs: reconstruction, cost for the language model, prefixes and both stages."""

import polars as pl
from matplotlib.axes import Axes

from analysis.compressor.against import Panel, plot_against, set_log_above
from analysis.compressor.runs import Store, keys_of
from analysis.measured import NotMeasured, is_measured, require
from analysis.panels import Variant, plot_groups
from compressor.theory import EXPECTED_COSINE

GAP_LINEAR = 1e-4  # gaps below are rounding, or those of a held-out split
NATS_LINEAR = 1e-3
_ESTIMATE = {"ls": "none", "marker": "x", "color": "0.5", "ms": 6}
_SEPARATE, _PREFIX = "trained alone", "prefix of a nested W"


def plot_reconstruction(store: Store) -> list[Axes]:
    """Held-out cosine, relative error and kept variance against D', beside PCA."""
    runs = store.finals()
    require(runs, "cos_heldout", "rel_error_heldout")
    panels = [
        Panel(
            "mean cosine of $x$ and $\\hat x$, held-out",
            {"cos_heldout": ""},
            {"cos_pca_heldout": "PCA", "cos_mean_only_heldout": "mean state alone"},
        ),
        Panel(
            "relative error $\\|\\hat X - X\\|_F / \\|X\\|_F$, held-out",
            {"rel_error_heldout": ""},
            {"rel_pca_heldout": "PCA"},
        ),
    ]
    if is_measured(runs, "variance_ratio_heldout"):
        names = {"variance_ratio_total_heldout": "of the sums over dimensions"}
        names["variance_ratio_heldout"] = "mean of the dimensions' ratios"
        panels.append(Panel("variance of $\\hat x$ / variance of $x$, held-out", names))
    axes = plot_against(runs, panels, keys_of(runs))
    dims = runs["dim"].unique().to_list()
    if len(dims) == 1:
        _draw_estimates(axes[0], dims[0])
    return axes


def _draw_estimates(ax: Axes, dim: int) -> None:
    known = {ratio: (dim / ratio, cos) for ratio, cos in EXPECTED_COSINE.items() if dim >= ratio}
    if not known:
        return
    label = "estimate published for\nSmolLM3-3B (unmeasured)"
    ax.plot(*zip(*known.values(), strict=True), label=label, **_ESTIMATE)
    for ratio, at in known.items():
        place = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "color": "0.4"}
        ax.annotate(f"{ratio}x", at, size="x-small", **place)
    ax.margins(y=0.1)
    ax.legend(fontsize="small")


def plot_gap(store: Store) -> list[Axes]:
    """Excess of the mean squared error over that of PCA during the training, a line per D'."""
    runs = store.ended()
    require(runs, "train_gap", "heldout_gap")
    runs = runs.filter(pl.col("train_gap").list.eval(pl.element().is_finite()).list.any())
    if runs.is_empty():
        raise NotMeasured("PCA has no error at the D' of these runs")
    splits = {"train split": "train_gap", "held-out split": "heldout_gap"}
    panels = {title: {curve: Variant()} for title, curve in splits.items()}
    axes = plot_groups(runs.with_columns(pl.col("k").alias("D'")), ["D'", *keys_of(runs)], panels)
    for ax in axes:
        set_log_above(ax, GAP_LINEAR)
    return axes


def plot_downstream(store: Store) -> list[Axes]:
    """What reconstructed states cost the language model against D', beside PCA and a random one."""
    runs = store.finals()
    require(runs, "kl", "delta_nll", "top1_agree")
    labels = {
        "kl": "KL(base || reconstructed)\n(nats per token)",
        "delta_nll": "loss with $\\hat x$ - loss with $x$\n(nats per token)",
        "top1_agree": "tokens with the same first choice\n(share)",
    }
    panels = [
        Panel(
            label,
            {name: ""},
            {f"{name}_pca": "PCA", f"{name}_random": "random projector"},
            None if name == "top1_agree" else NATS_LINEAR,
        )
        for name, label in labels.items()
    ]
    return plot_against(runs, panels, keys_of(runs))


def plot_nested(store: Store) -> list[Axes]:
    """Prefixes of a nested W against their size, beside W trained alone where there are some."""
    runs = prefixes_and_separate(store)
    panels = [
        Panel(
            "gap to PCA, mse / mse$_\\mathrm{PCA}$ - 1",
            {"gap_pca_train": "train", "gap_pca_heldout": "held-out"},
            linear_below=GAP_LINEAR,
        ),
        Panel(
            "mean squared error, held-out",
            {"mse_heldout": ""},
            {"mse_pca_heldout": "PCA"},
        ),
    ]
    return plot_against(runs, panels, ["W", *keys_of(runs, "W", "model.nested")])


def prefixes_and_separate(store: Store) -> pl.DataFrame:
    """A row per prefix of the nested runs, and one per run trained alone; `W` tells which.

    Columns as of a run: <name>_train, <name>_heldout, k. Raises NotMeasured without nested runs.
    """
    table = store.table("nested")
    values = [c for c in table.columns if c not in ("run_id", "split", "k")]
    wide = table.pivot("split", index=["run_id", "k"], values=values)
    renamed = {f"{c}_{s}" for c in values for s in ("train", "heldout")}
    runs = store.finals()
    is_nested = pl.col("run_id").is_in(wide["run_id"].unique().implode())
    own = [c for c in runs.columns if c not in (*renamed, "k")]
    prefixes = runs.filter(is_nested).select(own).join(wide, on="run_id", maintain_order="left")
    order = pl.Enum([_PREFIX, _SEPARATE])
    both = [
        prefixes.with_columns(W=pl.lit(_PREFIX, order)),
        runs.filter(~is_nested).with_columns(W=pl.lit(_SEPARATE, order)),
    ]
    return pl.concat(both, how="diagonal_relaxed")


def plot_stage_1b(store: Store) -> list[Axes]:
    """Stage 1b: error on the states of stage 1a before and after it, and the gap on its own."""
    runs = store.finals()
    require(runs, "mse_1a_before", "mse_1a_after")
    runs = runs.filter(pl.col("mse_1a_before").is_not_null())
    panels = [
        Panel(
            "mean squared error\non held-out states of 1a",
            {"mse_1a_after": "after stage 1b", "mse_1a_before": "before it"},
        ),
        Panel(
            "gap to PCA on states of 1b,\nmse / mse$_\\mathrm{PCA}$ - 1",
            {"gap_pca_heldout": "held-out", "gap_pca_train": "train"},
            linear_below=GAP_LINEAR,
        ),
    ]
    return plot_against(runs, panels, keys_of(runs))
