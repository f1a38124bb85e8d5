"""Figures of one run of memdyn, from its store or from the frame of `passage_data`."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from scipy.stats import binomtest

from analysis.curves import LEVEL
from analysis.memdyn.axes import (
    COLORS,
    METRICS,
    SHORT,
    STYLES,
    UNITS,
    draw_band,
    make_axes,
    say,
    set_epochs,
)
from analysis.memdyn.heatmap import plot_layer_epoch_heatmap
from analysis.memdyn.passages import epochs_of, means_of, n_of, of_layer, passages_of
from analysis.memdyn.runs import from_store
from analysis.plots import legend_beside, line_colors
from memdyn.theory import compute_compression_velocity, layer_correlations

_LAYERS = 5  # most that are told apart by colour, with two groups each
_BAND = f"band: {100 * LEVEL:g} % t interval of the mean"


@from_store
def plot_compression_trajectories(data: Any, metric: str = "nv_rel") -> Axes:
    """Compression over epochs by layer: means of trained and of novel passages.

    Of many layers five are drawn, the first and the last among them.
    """
    frame = passages_of(data, metric)
    layers = frame["layer"].unique().sort().to_list()
    shown = [
        layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, _LAYERS).round().astype(int))
    ]
    some = f"{len(shown)} of {len(layers)} layers" if len(shown) < len(layers) else "by layer"
    ax = make_axes(f"Compression over training, {some}", data)
    means = means_of(frame, metric)
    if means.is_empty():
        return say(ax, f"no finite {metric}")
    colors = dict(zip(shown, line_colors(len(shown), True), strict=True))
    for (layer, group), part in means.group_by("layer", "group", maintain_order=True):
        if layer in colors:
            style = {"color": colors[layer], "linestyle": STYLES[group]}
            ax.plot(part["epoch"], part["mean"], lw=1.4, marker="o", ms=3, **style)
            draw_band(ax, part["epoch"], part["low"], part["high"], colors[layer])
    set_epochs(ax, epochs_of(frame))
    ax.set_ylabel(METRICS.get(metric, metric))
    for layer, color in colors.items():
        ax.plot([], [], color=color, label=f"layer {layer}")
    for group, linestyle in STYLES.items():
        ax.plot([], [], color="0.3", linestyle=linestyle, label=f"{group} ({n_of(means, group)})")
    legend_beside(ax, ["line: mean over n passages", _BAND])
    return ax


@from_store
def plot_memorization_vs_compression(
    data: Any,
    layer: int | None = None,
    metric: str = "nv_rel",
    *,
    epoch: int | None = None,
    threshold: float = 0.6,
) -> Axes:
    """Accuracy of each passage against its compression at the last epoch in the middle layer.

    `epoch` and `layer` choose others.
    """
    frame = of_layer(passages_of(data, metric, "accuracy"), layer)
    layer = frame["layer"][0]
    epoch = epochs_of(frame)[-1] if epoch is None else epoch
    here = layer_correlations(frame, epoch, metric)  # an epoch that was not measured ends here
    ax = make_axes(f"Memorization and compression, layer {layer}, epoch {epoch}", data)
    points = frame.filter(epoch=epoch).drop_nulls()
    if points.is_empty():
        return say(ax, f"no finite {metric} at epoch {epoch}")
    for group in ("novel", "trained"):
        own = points.filter(group=group)
        label = f"{group} (n = {len(own)})"
        if group == "trained" and here.best_layer is not None:
            label += f"\nSpearman rho = {here.rho[0]:.2f}, p = {here.p[0]:.2g}"
        ax.plot(
            own[metric], own["accuracy"], "o", ms=5, mew=0, alpha=0.6, c=COLORS[group], label=label
        )
    ax.axhline(threshold, color="0.3", linestyle="--", linewidth=0.9)
    ax.plot([], [], color="0.3", ls="--", lw=0.9, label=f"memorized from {threshold:g} on")
    ax.set(xlabel=METRICS.get(metric, metric), ylabel="accuracy (share of target tokens)")
    ax.set_ylim(-0.04, 1.04)
    legend_beside(ax, ["point: one passage"])
    return ax


@from_store
def plot_individual_passage_trajectories(
    data: Any, layer: int | None = None, metric: str = "nv_rel", *, threshold: float = 0.6
) -> Axes:
    """Compression of every passage over epochs in the middle layer (or another), means in bold."""
    frame = of_layer(passages_of(data, metric, "accuracy"), layer)
    epochs = epochs_of(frame)
    is_hit = frame.filter(epoch=epochs[-1], group="trained").filter(pl.col("accuracy") >= threshold)
    is_hit = pl.col("passage_id").is_in(is_hit["passage_id"].implode())
    is_trained = pl.col("group") == "trained"
    third = line_colors(3, False)[2]
    kinds = (
        ("novel", ~is_trained, COLORS["novel"]),
        ("trained, not memorized", is_trained & ~is_hit, third),
        ("trained, memorized", is_trained & is_hit, COLORS["trained"]),
    )
    ax = make_axes(f"Compression of each passage, layer {frame['layer'][0]}", data)
    if not frame[metric].count():
        return say(ax, f"no finite {metric}")
    means = []
    for name, which, color in kinds:
        own = frame.filter(which).pivot("epoch", index="passage_id", values=metric)
        if own.is_empty():
            continue
        values = own.select(map(str, epochs)).to_numpy().astype(float)  # [n, E]
        marker = "." if len(epochs) == 1 else None
        ax.plot(epochs, values.T, color=color, lw=0.6, alpha=0.35, marker=marker)
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        means.append((mean, color, f"{name} (n = {len(own)})"))
    for mean, color, label in means:
        ax.plot(epochs, mean, color="white", lw=4)
        ax.plot(epochs, mean, color=color, lw=2.2, marker="o", ms=4, label=label)
    set_epochs(ax, epochs)
    ax.set_ylabel(METRICS.get(metric, metric))
    legend_beside(ax, ["thin: one passage, bold: mean of n", f"memorized: at epoch {epochs[-1]}"])
    return ax


@from_store
def plot_memorization_rate(data: Any, *, threshold: float = 0.6) -> Axes:
    """Share of memorized passages over epochs, trained and novel ones."""
    frame = passages_of(data, "accuracy").unique(["epoch", "passage_id"])
    hits = frame.group_by("group", "epoch").agg(
        k=(pl.col("accuracy") >= threshold).sum(), n=pl.len()
    )
    ax = make_axes("Memorized passages over training", data)
    for group in STYLES:
        epochs, k, n = hits.filter(group=group).sort("epoch").select("epoch", "k", "n").to_numpy().T
        if not len(epochs):
            continue
        tests = [binomtest(*pair) for pair in zip(k.tolist(), n.tolist(), strict=True)]
        low, high = np.transpose([test.proportion_ci(LEVEL, "wilson") for test in tests])
        label = f"{group} (n = {n.max()})"
        style = {"color": COLORS[group], "linestyle": STYLES[group]}
        ax.plot(epochs, k / n, marker="o", ms=4, label=label, **style)
        draw_band(ax, epochs, low, high, COLORS[group])
    ax.set_ylim(-0.03, 1.03)
    set_epochs(ax, epochs_of(frame))
    ax.set_ylabel(f"share of passages with accuracy >= {threshold:g}")
    legend_beside(ax, ["line: share of n passages", f"band: {100 * LEVEL:g} % Wilson interval"])
    return ax


@from_store
def plot_compression_velocity(data: Any, layer: int | None = None, metric: str = "nv_rel") -> Axes:
    """Change of compression per epoch between measured epochs in the middle layer (or another)."""
    frame = of_layer(passages_of(data, metric), layer)
    layer = frame["layer"][0]
    counts = means_of(frame, metric)
    ax = make_axes(f"Compression velocity, layer {layer}", data)
    if counts["epoch"].n_unique() < 2:
        return say(ax, f"2 epochs with a finite {metric} needed")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    for group in counts["group"].unique(maintain_order=True):
        found = compute_compression_velocity(frame, None, group, metric)
        label = f"{group} ({n_of(counts, group)})"
        if found.sign_changes is not None:
            label += f", sign changes: {found.sign_changes}"
        x, y, se = found.midpoints, found.velocity, np.nan_to_num(2 * found.velocity_se)
        style = {"color": COLORS[group], "linestyle": STYLES[group], "lw": 1.2}
        ax.errorbar(x, y, se, marker="o", ms=4, capsize=2, label=label, **style)
    set_epochs(ax, epochs_of(frame))
    short = SHORT.get(metric, metric)
    ax.set_ylabel(f"$\\Delta$ {short} per epoch ({UNITS.get(metric, '1')} / epoch)")
    legend_beside(
        ax, ["point: between two measured epochs", "bar: +- 2 standard errors over n passages"]
    )
    return ax


FIGURES = {  # file name -> what draws it
    "compression_trajectories": plot_compression_trajectories,
    "memorization_vs_compression": plot_memorization_vs_compression,
    "layer_epoch_heatmap": plot_layer_epoch_heatmap,
    "individual_trajectories": plot_individual_passage_trajectories,
    "memorization_rate": plot_memorization_rate,
    "compression_velocity": plot_compression_velocity,
}


def drawings(data: Any, metric: str | None, **settings: float) -> dict[str, Callable[[], Axes]]:
    """What draws each of FIGURES, with those of the settings that it takes; without a metric only
    those that need none."""
    given = {"metric": metric, **settings}
    found = {}
    for name, draw in FIGURES.items():
        known = inspect.signature(draw).parameters
        if "metric" not in known or metric is not None:
            chosen = {key: value for key, value in given.items() if key in known}
            found[name] = partial(draw, data, **chosen)
    return found


@from_store
def create_all_visualizations(
    data: Any,
    out: Path | str,
    metric: str = "nv_rel",
    *,
    threshold: float = 0.6,
    alpha: float = 0.05,
) -> list[Path]:
    """Every figure as figures/<name>.png in the folder `out`, made if need be; their paths.

    Without a column `metric` only those that need none.
    """
    folder = Path(out) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    metric = metric if metric in data else None
    paths = []
    for name, draw in drawings(data, metric, threshold=threshold, alpha=alpha).items():
        ax = draw()
        paths.append(folder / f"{name}.png")
        ax.figure.savefig(paths[-1], dpi=150)
        plt.close(ax.figure)
    return paths
