"""Learned gates: gamma_l = k_l / d_l, the share of a layer's coordinates that B gets."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.measured import NotMeasured
from analysis.plots import legend_of_figure
from analysis.sublora.marks import budget_colors, describe_spread
from analysis.sublora.runs import HEAD, Grid

_APART = 0.5  # between the last layer and the head, in cells
_LABELLED = 20  # most layers with a tick
_LABEL = r"$\gamma_l = k_l / d_l$, share of B in layer $l$"


def plot_gates(grid: Grid, d: int) -> Axes:
    """gamma_l by seed and layer."""
    gammas = grid.gammas(d)
    if not gammas:
        raise NotMeasured(f"no usable run with learned gates has subspace.d={d}")
    places = _places(grid)
    size = (2.6 + 0.55 * places[-1], 1.7 + 0.5 * len(grid.seeds))
    ax = plt.subplots(figsize=(max(size[0], 5), max(size[1], 2.6)), layout="constrained")[1]
    style = {"cmap": "PuOr", "vmin": 0, "vmax": 1, "edgecolors": "white"}
    for i, seed in enumerate(grid.seeds):
        if seed not in gammas:
            ax.text(np.mean(places), i, "no usable run", ha="center", va="center", color="0.35")
            continue
        for x, gamma in zip(places, gammas[seed], strict=True):
            image = ax.pcolormesh([x - 0.5, x + 0.5], [i - 0.5, i + 0.5], [[gamma]], **style)
            color = "white" if abs(gamma - 0.5) > 0.28 else "black"
            ax.text(x, i, f"{gamma:.2f}", ha="center", va="center", size="small", color=color)
    ax.set_xlim(-0.5, places[-1] + 0.5)
    ax.set_ylim(len(grid.seeds) - 0.5, -0.5)
    _name_layers(ax, grid)
    ax.set_yticks(range(len(grid.seeds)), grid.seeds)
    ax.set(
        ylabel="seed", title=f"learned gates, subspace.d = {d}, a row per run (n = {len(gammas)})"
    )
    ax.title.set_size("medium")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, label=_LABEL, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 (all A)", "0.5", "1 (all B)"])
    return ax


def plot_gate_trend(grid: Grid) -> Axes:
    """gamma_l by layer, mean over seeds."""
    colors = budget_colors(grid)
    gammas = {d: np.array(list(grid.gammas(d).values())) for d in grid.budgets}
    gammas = {d: of_seeds for d, of_seeds in gammas.items() if len(of_seeds)}
    if not gammas:
        raise NotMeasured("no usable run has learned gates")
    places = _places(grid)
    ax = plt.subplots(figsize=(max(8, 4 + 0.4 * places[-1]), 4.2), layout="constrained")[1]
    handles = []
    for i, (d, of_seeds) in enumerate(gammas.items()):
        shift = 0.08 * (i - (len(gammas) - 1) / 2)  # bars of two budgets side by side
        mean = of_seeds.mean(axis=0)
        std = of_seeds.std(axis=0, ddof=1) if len(of_seeds) > 1 else None
        bars = {"color": colors[d], "marker": "o", "ms": 5, "capsize": 3, "elinewidth": 1}
        for part in _blocks_and_head(grid):
            of_part = None if std is None else std[part]
            ax.errorbar(places[part] + shift, mean[part], of_part, **bars)
        label = f"subspace.d = {d} (n = {len(of_seeds)})"
        handles.append(Line2D([], [], color=colors[d], marker="o", ms=5, label=label))
    half = ax.axhline(0.5, color="0.3", linestyle="--", lw=1, label="0.5: as much to A as to B")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -0.03), max(high, 1.03))
    ax.set_xlim(-0.5, places[-1] + 0.5)
    _name_layers(ax, grid)
    ax.set_ylabel(_LABEL)
    spread = describe_spread("point", [len(of_seeds) for of_seeds in gammas.values()])
    legend_of_figure(ax.figure, spread, [*handles, half])
    return ax


def _places(grid: Grid) -> np.ndarray:
    """Where the layers stand: 0, 1, ..., the head apart."""
    places = np.arange(len(grid.layers), dtype=float)
    return places + _APART * (np.array(grid.layers) == HEAD)


def _blocks_and_head(grid: Grid) -> list[slice]:
    """The places that a line joins: of the blocks, of the head."""
    n_blocks = len(grid.layers) - (HEAD in grid.layers)
    return [slice(0, n_blocks), slice(n_blocks, None)]


def _name_layers(ax: Axes, grid: Grid) -> None:
    every = -(-len(grid.layers) // _LABELLED)
    blocks, head = _blocks_and_head(grid)
    ticks = [*_places(grid)[blocks][::every], *_places(grid)[head]]
    ax.set_xticks(ticks, [*grid.layers[blocks][::every], *["head" for _ in grid.layers[head]]])
    ax.set_xlabel("layer")
