"""Figures of one run's training: gradients, sharpness, drift, the way through the loss."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analysis.panels import set_run_title
from analysis.plots import legend_beside, line_colors, spans_decade
from analysis.qlora_probe.over_runs import KL, LOSS
from analysis.qlora_probe.runs import Run
from qlora_probe.theory import loss_barrier

FIRST, SECOND, *_ = line_colors(2, False)
_LIMIT = {"color": "0.3", "ls": "--", "lw": 1.2}


def make_axes(run: Run, n: int, width: float = 4.4) -> list[Axes]:
    """`n` axes side by side in a new figure, inches wide, the run's name above."""
    size = (0.4 + width * n, 3.9)
    axes = list(plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False)[1].flat)
    set_run_title(axes, run.row, run.row.get("step"))  # answers of two adapters have no steps
    return axes


def set_updates(ax: Axes) -> None:
    ax.set_xlabel("updates done")
    ax.xaxis.get_major_locator().set_params(integer=True)


def plot_grad_norm(run: Run) -> list[Axes]:
    """Norm of the gradient before clipping, with the largest norm that is let through."""
    step, norm = run.curve("grad_norm", "grad_norm")
    clip = run.config["optim"]["clip"]
    [ax] = axes = make_axes(run, 1)
    ax.plot(step, norm, color=FIRST, marker="o", ms=3, lw=1.2, label="before clipping")
    ax.axhline(clip, **_LIMIT, label=f"clipped above {clip:g}")
    n_clipped = int((norm > clip).sum())
    ax.set_title(f"{n_clipped} of {len(norm)} measured updates clipped", size="medium")
    if spans_decade(np.append(norm, clip)):
        ax.set_yscale("log")
    set_updates(ax)
    ax.set_ylabel("gradient norm over all adapters\n(nats per unit of a parameter)")
    ax.legend(fontsize="small")
    return axes


def plot_sharpness(run: Run) -> list[Axes]:
    """Largest eigenvalue of the Hessian, as it is and preconditioned, with the stability limits."""
    run.curve("sharpness", "sharpness")
    panels = {
        "sharpness": ("limit_gd", "2 / lr: limit of gradient descent", "$H$"),
        "sharpness_preconditioned": ("limit_adam", "38 / lr: limit of Adam", "$P^{-1}H$"),
    }
    known = [name for name in panels if run.row.get(name) is not None]
    axes = make_axes(run, len(known))
    for ax, name in zip(axes, known, strict=True):
        limit, text, symbol = panels[name]
        step, value = run.curve(name)
        positive = value > 0
        style = {"color": FIRST, "marker": "o", "ms": 4, "lw": 1.2}
        ax.plot(step[positive], value[positive], **style, label=f"largest eigenvalue of {symbol}")
        at, bound = run.curve(limit)
        ax.plot(at, bound, **_LIMIT, marker="_" if len(at) == 1 else None, label=text)
        ax.set_yscale("log")
        ax.set_xlim(at[0] - 1, at[-1] + 1)
        of_which = f"{positive.sum()} measurements"
        if not positive.all():
            of_which += f", {(~positive).sum()} not positive are not drawn"
        ax.set_title(of_which, size="medium")
        set_updates(ax)
        ax.legend(fontsize="small")
    axes[0].set_ylabel("nats per squared unit of a parameter")
    if len(axes) > 1:
        axes[1].set_ylabel("1 per unit of the learning rate")
    return axes


def plot_noise_scale(run: Run) -> list[Axes]:
    """Squared gradient, gradient noise, and their ratio against the batch: running means."""
    step, G2 = run.curve("noise_g2", "noise_scale")
    _, S = run.curve("noise_s")
    n = np.arange(1, len(step) + 1)
    mean_G2, mean_S = np.cumsum(G2) / n, np.cumsum(S) / n
    axes = make_axes(run, 3)
    names = ("$|G|^2$, squared gradient", r"$S = \mathrm{tr}\,\Sigma$, noise of one sequence")
    for ax, name, value, mean in zip(axes, names, (G2, S), (mean_G2, mean_S), strict=False):
        ax.plot(step, value, "o", color=FIRST, ms=3, alpha=0.4, label="of one update")
        ax.plot(step, mean, color=FIRST, lw=1.8, label="mean so far")
        ax.axhline(0, color="0.3", lw=0.6)
        ax.set_title(f"{name} (n = {len(step)})", size="medium")
        ax.set_ylabel("(nats per unit of a parameter)$^2$")
    positive = mean_G2 > 0
    ax = axes[2]
    ax.plot(step[positive], (mean_S / mean_G2.clip(1e-300))[positive], color=FIRST, lw=1.8,
            label="$S / |G|^2$ of the means so far")  # fmt: skip
    B = run.row["noise_batch"]
    ax.axhline(B, **_LIMIT, label=f"sequences of an update, $B$ = {B}")
    if spans_decade(np.append((mean_S / mean_G2)[positive], B)):
        ax.set_yscale("log")
    left_out = f", {(~positive).sum()} without: $|G|^2 \\leq 0$" if not positive.all() else ""
    ax.set_title(f"noise scale (n = {positive.sum()}{left_out})", size="medium")
    ax.set_ylabel("sequences")
    for ax in axes:
        set_updates(ax)
        ax.legend(fontsize="small")
    return axes


def plot_landscape(run: Run) -> list[Axes]:
    """Held-out loss on the line through the start and the end of the training."""
    rows = run.table("landscape", "landscape")
    [ax] = axes = make_axes(run, 1, 8)
    names = {"path": "along the path", "random": "random direction\nthrough the end"}
    for (direction, name), color in zip(names.items(), (FIRST, SECOND), strict=True):
        line = rows.filter(direction=direction).sort("at")
        if len(line):
            style = {"color": color, "marker": "o", "ms": 3, "lw": 1.4}
            ax.plot(line["at"], line["loss"], **style, label=f"{name} (n = {len(line)})")
    for at in (0, 1):
        ax.axvline(at, color="0.3", ls=":", lw=1)
    path = rows.filter(direction="path")
    title = f"barrier above the straight line: {loss_barrier(path['at'], path['loss']):.3g} nats"
    ax.set_title(title, size="medium")
    if spans_decade(rows["loss"].to_numpy()):
        ax.set_yscale("log")
    xlabel = "$a$ in $\\theta_0 + a\\,(\\theta_T - \\theta_0)$: 0 the start, 1 the end"
    ax.set(xlabel=xlabel, ylabel=f"held-out {LOSS}")
    legend_beside(ax, [])
    return axes


def plot_line(run: Run) -> list[Axes]:
    """Held-out loss on the line between two adapters that were compared."""
    rows = run.table("line").sort("at")
    [ax] = axes = make_axes(run, 1)
    ax.plot(rows["at"], rows["loss"], color=FIRST, marker="o", ms=3, lw=1.4)
    barrier = loss_barrier(rows["at"], rows["loss"])
    ax.set_title(f"barrier {barrier:.3g} nats (n = {len(rows)} points)", size="medium")
    ax.set(xlabel="place: 0 the first adapter, 1 the second", ylabel=f"held-out {LOSS}")
    return axes


def plot_drift(run: Run) -> list[Axes]:
    """Hidden states of each block against the base's, at the last held-out loss."""
    rows = run.table("activation_drift", "activation_drift")
    last = rows["step"].max()
    rows = rows.filter(step=last).sort("block")
    axes = make_axes(run, 2)
    for ax, column, label in (
        (axes[0], "drift", "mean $\\|h - h_0\\| / \\|h_0\\|$ over tokens (1)"),
        (axes[1], "cka", "linear CKA of $h$ and $h_0$ (1)"),
    ):
        ax.plot(rows["block"], rows[column], color=FIRST, marker="o", ms=4)
        ax.set_title(f"after {last} updates", size="medium")
        ax.set(xlabel="block", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return axes


def plot_kl_to_base(run: Run) -> list[Axes]:
    """KL divergence of the predictions from the base's, over updates."""
    step, kl = run.curve("kl_to_base", "kl_to_base")
    [ax] = axes = make_axes(run, 1)
    ax.plot(step, kl, color=FIRST, marker="o", ms=4)
    if spans_decade(kl[1:]):
        ax.set_yscale("symlog", linthresh=float(kl[1:].min()))  # 0 at the start
    ax.set_ylabel(KL)
    ax.set_title(f"{len(step)} evaluations", size="medium")
    set_updates(ax)
    return axes
