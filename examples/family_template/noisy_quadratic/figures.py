"""Figures of a store of this family, for `python -m analysis.report`; no torch here."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from analysis import load_sweep, plot_curves
from analysis.curves import varying_keys
from analysis.measured import NotMeasured, StoreFigure, require
from noisy_quadratic.theory import eigenvalues, expected_mode_losses

MAIN_SCALARS = ("final_loss",)  # that a report begins with


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """The store's figures, each with a sentence on what it shows."""
    runs = load_sweep(store, params="all")
    yield StoreFigure(
        "loss",
        "The loss over updates, mean over seeds, and its expectation in closed form (dashed).",
        partial(plot_loss, runs),
    )


def plot_loss(runs: pl.DataFrame) -> Axes:
    """Mean loss by learning rate, its expectation over initial weights and noise dashed.

    Raises NotMeasured where the runs differ in another key.
    """
    require(runs, "loss")
    others = [key for key in varying_keys(runs) if key not in ("lr", "seed")]
    if others:
        raise NotMeasured(f"the runs differ in {', '.join(others)}: the theory drawn is of one")
    ax = plot_curves(runs, "loss", by="lr")
    for row in runs.unique("lr", keep="first", maintain_order=True).iter_rows(named=True):
        h = eigenvalues(row["dim"], row["alpha"])
        if row["lr"] * h[0] < 2:
            steps = np.arange(row["steps"] + 1)
            loss = expected_mode_losses(h, 1.0, row["lr"], row["batch_size"], steps).sum(1)
            ax.plot(steps, loss, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel="step (updates)", ylabel="loss, 1/2 sum of eigenvalue x weight$^2$")
    return ax
