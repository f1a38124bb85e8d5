"""Figures of what one run changed inside the model: spectra of updates, attention, logit lens."""

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from analysis.measured import NotMeasured
from analysis.panels import set_run_title
from analysis.plots import legend_beside, line_colors
from analysis.qlora_probe.of_training import FIRST, SECOND, make_axes
from analysis.qlora_probe.runs import Run

_PHASES = {"base": "before", "tuned": "after"}
_LABELLED = 32  # most tokens that have a tick each
_NUMBERED = 16  # most blocks or heads
_WRITTEN = 64  # most cells that hold their number


def plot_spectrum(run: Run) -> list[Axes]:
    """Singular values of the learnt update s B A, and its ranks, by kind of module."""
    values = run.table("delta_spectrum", "delta_rank")
    ranks = run.table("delta_rank", "delta_rank")
    ranks = ranks.filter(step=ranks["step"].max())
    kinds = values["kind"].unique(maintain_order=True).to_list()
    axes = make_axes(run, 2, 6)
    for kind, color in zip(kinds, line_colors(len(kinds), True), strict=True):
        own = values.filter(pl.col("value").is_finite(), kind=kind)
        n, value = own["module"].n_unique(), pl.col("value")
        line = own.group_by("at").agg(mid=value.median(), low=value.min(), high=value.max())
        at, mid, low, high = line.sort("at").select("at", "mid", "low", "high").to_numpy().T
        axes[0].plot(at + 1, mid, color=color, marker="o", ms=3, lw=1.4, label=f"{kind} (n = {n})")
        axes[0].fill_between(at + 1, low, high, color=color, alpha=0.15, lw=0)
    axes[0].set(xlabel="index, largest first", ylabel="singular value of $sBA$ (1)")
    if (values["value"] > 0).any():
        axes[0].set_yscale("log")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    legend_beside(axes[0], ["line: median over n modules", "band: their range"])

    places = np.arange(len(kinds))
    for name, color, shift in (("stable", FIRST, -0.12), ("effective", SECOND, 0.12)):
        own = [ranks.filter(kind=kind)[f"{name}_rank"].to_numpy() for kind in kinds]
        mid, low, high = (np.array([f(x) for x in own]) for f in (np.median, np.min, np.max))
        axes[1].errorbar(
            places + shift, mid, [mid - low, high - mid], fmt="o", ms=5, capsize=3, color=color,
            label=f"{name} rank",
        )  # fmt: skip
    axes[1].axhline(run.row["lora_rank"], color="0.3", ls="--", lw=1, label="rank $r$")
    axes[1].set_xticks(places, kinds)
    axes[1].set(xlabel="kind of module", ylabel="dimensions", ylim=(0, None))
    legend_beside(axes[1], ["point: median over modules", "bar: their range"])
    return axes


def plot_inner_view(run: Run) -> list[Axes]:
    """Attention entropy, losses read from each block, one attention map: before and after."""
    entropy = run.table("attention_entropy", "inner_view")
    lens = run.table("logit_lens", "inner_view")
    maps = run.table("attention_maps", "inner_view")
    if entropy["phase"].n_unique() < 2:
        raise NotMeasured(f"run {run.row['run_id']} has no inner view after the training")
    axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")[1]
    set_run_title(axes.flat, run.row, run.row["step"])
    _draw_entropy(axes[0], entropy)
    _draw_lens(axes[1, 0], lens)
    prompt = maps["prompt_id"][0]
    maps = maps.filter(prompt_id=prompt)
    for ax, (phase, word) in zip(axes[1, 1:], _PHASES.items(), strict=True):
        _draw_map(ax, maps.filter(phase=phase), f"{_plain(prompt)}, {word}")
    return list(axes.flat)


def _draw_entropy(axes: np.ndarray, rows: pl.DataFrame) -> None:
    """Before, after (on one scale), and their difference."""
    grids = {}
    for phase in _PHASES:
        grid = rows.filter(phase=phase).sort("block", "head").pivot(
            "head", index="block", values="entropy"
        )  # fmt: skip
        grids[phase] = grid.drop("block").to_numpy()
    base, tuned = grids.values()
    both, change = np.stack([base, tuned]), tuned - base
    largest = np.nanmax(np.abs(change), initial=0) or 1
    own = {"cmap": "viridis", "vmin": np.nanmin(both), "vmax": np.nanmax(both)}
    around_0 = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    titles = ("attention entropy, before", "after", "after - before")
    for ax, title, grid, style in zip(
        axes, titles, (base, tuned, change), (own, own, around_0), strict=True
    ):
        image = ax.imshow(grid, aspect="auto", origin="lower", **style)
        ax.set(title=title, xlabel="head (index)", ylabel="block (index)")
        for axis, n in ((ax.xaxis, grid.shape[1]), (ax.yaxis, grid.shape[0])):
            axis.set_ticks(range(0, n, -(-n // _NUMBERED)))
        if grid.size <= _WRITTEN:
            for (i, j), value in np.ndenumerate(grid):
                box = {"facecolor": "white", "alpha": 0.6, "lw": 0, "pad": 1}
                text = f"{value:.2g}"
                ax.text(j, i, text, ha="center", va="center", size="small", bbox=box)
        ax.figure.colorbar(image, ax=ax, label="nats, mean over queries")


def _draw_lens(ax: Axes, rows: pl.DataFrame) -> None:
    for (phase, word), color in zip(_PHASES.items(), (FIRST, SECOND), strict=True):
        own = rows.filter(phase=phase).sort("block")
        ax.plot(own["block"], own["nll"], color=color, marker="o", ms=4, label=word)
    ax.set(title="logit lens", xlabel="block (index)")
    ax.set_ylabel("mean -ln p of the target tokens (nats per token)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize="small")


def _draw_map(ax: Axes, rows: pl.DataFrame, name: str) -> None:
    T = rows["query"].max() + 1
    weights = np.full((T, T), np.nan)
    weights[rows["query"], rows["key"]] = rows["weight"]
    image = ax.imshow(weights, cmap="viridis", vmin=0, vmax=1)
    ax.set_title(f"attention of block {rows['block'][0]}, head {rows['head'][0]}\n{name}")
    ax.set(xlabel="key (token)", ylabel="query (token)")
    if T <= _LABELLED:
        tokens = rows.filter(key=0).sort("query")["query_token"]
        tokens = [_plain(token) for token in tokens]
        ax.set_xticks(range(T), tokens, size="small", rotation=90 if T > 12 else 0)
        ax.set_yticks(range(T), tokens, size="small")
    ax.figure.colorbar(image, ax=ax, label="weight (share of a query's sum)")


def _plain(text: str) -> str:
    """A token as a figure can show it: no line breaks, no mathematics."""
    visible = "".join(c if c.isprintable() and c != " " else "·" for c in text)
    return visible.replace("$", r"\$")
