"""Figures of one run: its modes over the training, the spectrum of its states."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analysis.compressor.runs import Run
from analysis.measured import NotMeasured
from analysis.panels import set_run_title
from analysis.plots import legend_beside, line_colors
from compressor.theory import mode_strength

_FLOW = {  # what the closed form holds for
    "stage": "1a",
    "train.optimizer": "sgd",
    "train.schedule": "constant",
    "train.clip": None,
    "train.objective": "mse",
    "model.init": "pca",
    "model.nested": [],
}


def plot_mode_strength(run: Run) -> list[Axes]:
    """How much of each leading eigenvector passes, over updates, with gradient flow where it is."""
    step = np.asarray(run.row["step"])
    if run.row.get("mode_strength") is None or len(step) < 2:
        raise NotMeasured(f"run {run.row['run_id']} has no curve mode_strength")
    strength = np.asarray(run.row["mode_strength"], np.float64)  # [records, modes]
    eigenvalues = run.eigenvalues
    k = run.row["k"]
    n = min(k, strength.shape[1])
    ax = _axes(run, (9, 4.8))
    differs = _differs(run.config)
    t = np.geomspace(step[1] / 4, step[-1], 400)
    for i, color in zip(range(n), line_colors(n, True), strict=True):
        name = f"{i + 1} ($\\lambda$ = {eigenvalues[i]:.3g})"
        ax.plot(step, strength[:, i], color=color, lw=2.2, alpha=0.75, label=name)
        start = strength[0, i]
        if not differs:
            flow = mode_strength(
                run.config["train"]["lr"] * t, eigenvalues[i], start, len(eigenvalues)
            )
            ax.plot(t, flow, color="0.15", ls="--", lw=0.9, zorder=3)
    beyond = strength[:, n:]
    if beyond.size and beyond.max() > 0:
        lines = ax.plot(step, beyond, color="0.7", lw=0.8, zorder=1)
        lines[0].set_label(f"{n + 1} to {strength.shape[1]}")
    ax.set_xscale("symlog", linthresh=float(step[1]), linscale=0.4)
    ax.axhline(1, color="0.6", lw=0.6, zorder=0)
    ax.set(xlabel="updates done (linear up to the first record)", xlim=(0, step[-1]))
    ax.set_ylabel("strength $v_i^T W^T W v_i$ (1: passes whole)")
    title = [f"line: the run, $D'$ = {k}"]
    if differs:
        title += ["no closed form, it needs:", *(f"  {line}" for line in differs)]
    else:
        title += ["dashed: gradient flow, $t$ = lr x updates,"]
        title += ["$1/(1 + (1/s_i(0) - 1)\\,e^{-8\\lambda_i t/D})$"]
    legend_beside(ax, [*title, "mode $i$, its eigenvalue:"])
    return [ax]


def _differs(config: Mapping[str, Any]) -> list[str]:
    """'train.optimizer=sgd (is adamw)' for what keeps the closed form from holding."""
    lines = []
    for key, needed in _FLOW.items():
        value = config
        for name in key.split("."):
            value = value[name]
        if value != needed:
            lines.append(f"{key}={_text(needed)} (is {_text(value)})")
    return lines


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def plot_spectrum(run: Run) -> list[Axes]:
    """Eigenvalues of the second moment of the states, D' and participation ratio."""
    values, k = run.eigenvalues, run.row["k"]
    ax = _axes(run, (8, 4.6))
    index = np.arange(1, len(values) + 1)
    positive = values > values[0] * 1e-15  # below: rounding
    color, second = line_colors(2, False)
    ax.loglog(index[positive], values[positive], color=color, marker="o", ms=3, lw=1.2,
              label=f"eigenvalue (D = {len(values)})")  # fmt: skip
    kept = values[:k].sum() / values.sum()
    ax.axvline(
        k, color=second, lw=1.4, label=f"$D'$ = {k}:\n{100 * kept:.3g} % of the sum up to it"
    )
    participation = values.sum() ** 2 / np.square(values).sum()
    name = f"participation ratio\n$(\\sum\\lambda)^2 / \\sum\\lambda^2$ = {participation:.3g}"
    ax.axvline(participation, color="0.3", ls="--", lw=1.2, label=name)
    ax.set(xlabel="index $i$, largest first")
    center = run.config["model"]["center"]
    of = "(x - \\mu)(x - \\mu)^T" if center == "mean" else "x x^T"
    ax.set_ylabel(f"eigenvalue $\\lambda_i$ of E ${of}$,\ntrain split (squared unit of the states)")
    legend_beside(
        ax, [] if positive.all() else [f"{(~positive).sum()} not above rounding left out"]
    )
    return [ax]


def _axes(run: Run, size: tuple[float, float]) -> Axes:
    ax = plt.subplots(figsize=size, layout="constrained")[1]
    set_run_title([ax], run.row, np.asarray(run.row["step"]))
    return ax
