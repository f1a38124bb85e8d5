"""Spectra of deep linear networks: singular values beside the teacher's, Hessian eigenvalues."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from analysis.dln.predictions import config_of
from analysis.panels import (
    curves_of,
    draw_components,
    make_panels,
    one_run,
    run_name,
    set_run_title,
)
from analysis.plots import line_colors
from analysis.runs import row_of
from dln.theory import teacher_singular_values

HESSIAN = "hessian_spectrum"
_COLUMN = re.compile(r"(?:(?:layer_(\d+)_)?sv_(\d+)|pp_(\d+)_(\d+)_sv)(?:_([ab]))?")
_DASHED = {"color": "0.35", "linestyle": "--", "linewidth": 0.9, "zorder": 1}
_LINEAR_DECADES = 4  # below the largest eigenvalue; smaller ones are on the linear part of symlog


@dataclass(frozen=True)
class _Matrix:
    """W_last ... W_first; first and last None: E, whatever the number of layers."""

    first: int | None
    last: int | None
    network: str  # "a" or "b" of a comparison, else ""


def plot_spectra(row: Mapping[str, Any] | pl.DataFrame | Any) -> list[Axes]:
    """Singular values of one run against step, a panel per matrix: E, W_l, products W_j ... W_i.

    They come from the columns `sv_{k}`, `layer_{l}_sv_{k}` and `pp_{i}_{j}_sv`, `row` from where
    plot_run takes it. Beside E's the teacher's values are dashed (the first data.d_active: no
    others get signal) if the row holds its config, as one of load_sweep(..., params="all") does;
    a matrix of a plugin has none.
    Raises ValueError for a run without singular values.
    """
    row = row_of(row)
    step, curves = curves_of(row)
    spectra = _spectra(curves)
    if not spectra:
        raise ValueError(
            f"{run_name(row) or 'the run'} has no singular values (columns sv_{{k}}, "
            "layer_{l}_sv_{k}, pp_{i}_{j}_sv): ask for a metric such as singular_values"
        )
    teacher = _teacher(row)
    deepest = max(matrix.last or 0 for matrix in spectra)
    axes = make_panels(len(spectra), "updates done")
    for ax, (matrix, values) in zip(axes, spectra.items(), strict=True):
        draw_components(ax, step, values, row["status"] == "diverged")
        is_E = matrix.first is None or (matrix.first, matrix.last) == (0, deepest)
        ax.set_title(_title(matrix, is_E), size="medium")
        ax.set_ylabel("singular value (1)", size="small")
        for value in teacher if is_E else []:
            ax.axhline(value, **_DASHED)
    set_run_title(axes, row, step)
    dark, *_, light = line_colors(3, True)
    handles = [
        Line2D([], [], color=color, label=label)
        for color, label in ((dark, "largest"), (light, "smallest"))
    ]
    if len(teacher):
        handles.append(Line2D([], [], label="the teacher's singular values", **_DASHED))
    axes[0].figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    return axes


def plot_hessian_spectrum(
    row: Mapping[str, Any] | pl.DataFrame | Any, step: int | None = None, ax: Axes | None = None
) -> Axes:
    """Eigenvalues of the Hessian of one run: all of them against step, or sorted at one step.

    The axis is linear around 0 and logarithmic beyond (the label says from where), so negative
    eigenvalues show. A `step` between two records is drawn at the nearer one, which the title
    names. `row` as plot_run takes it; it needs the metric hessian_spectrum.
    Raises ValueError for a run without it, and for a step beyond the run's records.
    """
    row = row_of(row)
    steps, curves = curves_of(row)
    if HESSIAN not in curves:
        raise ValueError(
            f"{run_name(row) or 'the run'} has no curve {HESSIAN!r}: ask for the metric {HESSIAN}"
        )
    eigenvalues = curves[HESSIAN]  # [records, P], ascending
    at = None if step is None else _nearest(steps, step)
    largest = np.abs(eigenvalues if at is None else eigenvalues[at]).max()
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    linear = 10.0 ** (exponent - _LINEAR_DECADES + 1)
    if ax is None:
        ax = plt.subplots(figsize=(7, 4.5), layout="constrained")[1]
    if at is None:
        colors = line_colors(eigenvalues.shape[1], True)[::-1]  # the largest is the darkest
        lines = [np.column_stack([steps, values]) for values in eigenvalues.T]
        ax.add_collection(LineCollection(lines, colors=colors, linewidths=0.8))
        ax.set_xlabel("updates done")
        when = f"over updates, {eigenvalues.shape[1]} eigenvalues, largest darkest"
    else:
        eigenvalues = eigenvalues[at]
        ax.plot(np.arange(1, len(eigenvalues) + 1), eigenvalues[::-1], ".", markersize=4)
        ax.set_xlabel("index, largest first")
        nearest = "" if steps[at] == step else f", the record nearest to {step}"
        when = f"at step {steps[at]}{nearest}, {len(eigenvalues)} eigenvalues"
    ax.set_yscale("symlog", linthresh=linear)
    ax.autoscale_view()
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    ax.set_ylabel(f"eigenvalue (loss / weight$^2$; linear within +-{linear:g})")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_title(f"{one_run(row)}\nHessian {when}", size="medium")
    return ax


def is_spectrum(column: str) -> bool:
    """Whether a column of this name holds singular values."""
    return _COLUMN.fullmatch(column) is not None


def _spectra(curves: Mapping[str, np.ndarray]) -> dict[_Matrix, np.ndarray]:
    """Singular values [records, k], largest first, of every matrix that the columns tell of."""
    found: dict[_Matrix, dict[int, np.ndarray]] = {}
    for name, values in curves.items():
        if not (match := _COLUMN.fullmatch(name)):
            continue
        layer, k, first, last, network = match.groups()
        first, last = (int(n) if n else None for n in (first or layer, last or layer))
        found.setdefault(_Matrix(first, last, network or ""), {})[int(k or 0)] = values
    return {
        matrix: np.column_stack([values[k] for k in sorted(values)])
        for matrix, values in found.items()
    }


def _title(matrix: _Matrix, is_E: bool) -> str:
    layers = [] if matrix.first is None else range(matrix.last, matrix.first - 1, -1)
    product = " ".join(f"W_{{{layer}}}" for layer in layers)
    name = " = ".join([*(["E"] if is_E else []), *([product] if product else [])])
    return f"${name}$ (network {matrix.network})" if matrix.network else f"${name}$"


def _teacher(row: Mapping[str, Any]) -> np.ndarray | list:
    """Singular values of the teacher's active modes; none without config or known matrix."""
    in_dim = row.get("model_a.in_dim", row.get("model.in_dim"))  # the networks' are equal
    if in_dim is None or "data.params.matrix" not in row:
        return []
    data = config_of(row)["data"]
    try:
        singular_values = teacher_singular_values({"model": {"in_dim": in_dim}, "data": data})
    except ValueError:
        return []
    return singular_values[: data["d_active"]]


def _nearest(steps: np.ndarray, step: int) -> int:
    """The index of the record nearest to `step`; ValueError beyond the records."""
    nearest = int(np.abs(steps - step).argmin())
    if not steps[0] <= step <= steps[-1]:
        raise ValueError(
            f"step={step} is beyond the records {steps[0]}..{steps[-1]}; "
            f"the nearest is {steps[nearest]}"
        )
    return nearest
