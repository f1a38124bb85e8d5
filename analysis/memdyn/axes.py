"""Axes of the figures of memdyn: epochs that lie unevenly, metrics with unit, legends beside."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analysis.labels import label_in
from analysis.plots import line_colors

COLORS = dict(zip(("trained", "novel"), line_colors(2, False), strict=True))
STYLES = {"trained": "-", "novel": "--"}
METRICS = {name: label_in("memdyn", name) for name in ("nv_rel", "nv", "nv_contract", "pr")}
SHORT = {"nv": "nv", "nv_rel": r"nv$_\mathrm{rel}$", "nv_contract": r"nv$_\mathrm{contract}$"}
UNITS = dict.fromkeys(("nv", "nv_rel", "nv_contract"), "nats") | {"pr": "dimensions"}
_CLOSEST = 0.045  # of the axis' width between two labelled epochs


def make_axes(title: str, data: Any) -> Axes:
    """Of a new figure with room for a legend beside; the run is named where `data` has its run_id.

    `data` is a mapping or frame.
    """
    ax = plt.subplots(figsize=(8.5, 4.5), layout="constrained")[1]
    is_named = "run_id" in getattr(data, "columns", data)
    run = f"one run: {data['run_id'][0]}" if is_named else "one run"
    ax.set_title(f"{title}\n{run}", size="medium")
    return ax


def set_epochs(ax: Axes, epochs: Sequence[int]) -> None:
    """x is the epoch on a square-root scale, labelled where it was measured and there is room.

    Schedules measure often at first and seldom later, with 0 among them: no logarithm.
    """
    ax.set_xscale("function", functions=(_signed_root, _signed_square))
    places = _signed_root(np.asarray(epochs, float))
    least = _CLOSEST * max(np.ptp(places), 1e-9)
    ticks = [0]
    for i in range(1, len(places)):
        if places[i] - places[ticks[-1]] >= least:
            ticks.append(i)
    ax.set_xticks([epochs[i] for i in ticks], [str(epochs[i]) for i in ticks])
    ax.set_xticks(epochs, minor=True)
    margin = 0.03 * max(np.ptp(places), 1)
    ax.set_xlim(*(_signed_square(places[[0, -1]] + [-margin, margin])))
    ax.set_xlabel("epoch (square-root scale)")


def draw_band(
    ax: Axes, x: Sequence[int], low: Sequence[float], high: Sequence[float], color: Any
) -> None:
    """Between two curves; a bar where there is one point only."""
    if len(x) > 1:
        ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
    else:
        ax.vlines(x, low, high, color=color, alpha=0.4, lw=2)


def say(ax: Axes, why: str) -> Axes:
    """In the middle of axes that stay empty."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", wrap=True)
    ax.set(xticks=[], yticks=[])
    return ax


def _signed_root(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.sqrt(np.abs(x))


def _signed_square(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.square(x)
