"""Where and when trained passages part from novel ones: a cell per layer and epoch."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.memdyn.axes import SHORT, UNITS, make_axes, say
from analysis.memdyn.passages import passages_of
from analysis.memdyn.runs import from_store
from memdyn.theory import analyze_layer_temporal_patterns

_WRITTEN = 40  # most cells that hold their number
_LABELLED = 20  # most layers that have a tick


@from_store
def plot_layer_epoch_heatmap(data: Any, metric: str = "nv_rel", *, alpha: float = 0.05) -> Axes:
    """Change since the first epoch, trained minus novel, by layer and epoch; q < alpha is marked.

    Columns stand at equal distances, whatever the epochs between them.
    """
    found = analyze_layer_temporal_patterns(data, metric, alpha=alpha)
    n_layers, n_epochs = len(found.layers), len(found.epochs)
    n = passages_of(data).unique("passage_id")["group"].to_list()
    is_written = n_layers * n_epochs <= _WRITTEN
    ax = make_axes(
        f"Change since the first epoch, {n.count('trained')} trained minus {n.count('novel')} "
        f"novel passages: {found.pattern or 'undefined'}\n{'*' if is_written else 'dot'}: "
        f"q < {alpha:g} (Welch t, false discovery rate over all cells)",
        data,
    )
    if not np.isfinite(found.difference).any():
        return say(ax, found.reason or f"no finite {metric}")
    ax.set(xlabel="epoch (measured ones)", ylabel="layer (index)")
    largest = np.nanmax(np.abs(found.difference)) or 1
    image = ax.imshow(
        found.difference,
        aspect="auto",
        origin="lower",
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
        extent=(-0.5, n_epochs - 0.5, found.layers[0] - 0.5, found.layers[-1] + 0.5),
    )
    ax.set_xticks(range(n_epochs), found.epochs)
    ax.set_yticks(found.layers[:: -(-n_layers // _LABELLED)])
    marked = found.q < alpha
    if is_written:
        for (i, j), value in np.ndenumerate(found.difference):
            text = f"{value:.2g}{'*' if marked[i, j] else ''}" if np.isfinite(value) else "-"
            color = "white" if abs(value) > 0.6 * largest else "black"
            ax.text(j, found.layers[i], text, ha="center", va="center", size="small", color=color)
    else:
        rows, columns = np.nonzero(marked)
        size = min(4.0, 120 / n_layers)
        ax.plot(columns, found.layers[rows], "o", ms=size, color="black", mew=0)
    symbol, unit = SHORT.get(metric, metric), UNITS.get(metric, "1")
    ax.figure.colorbar(image, label=f"$\\Delta$ {symbol}, trained - novel ({unit})")
    return ax
