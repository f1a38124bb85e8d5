"""Figures of many panels: all curves of one run, or a panel per curve over groups of runs."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.curves import LEVEL, SeedStatistics, config_values, key_values, over_seeds
from analysis.labels import label_of
from analysis.plots import (
    CROSS,
    Group,
    describe_lines,
    draw_legend,
    draw_means,
    group_handles,
    groups_of,
    is_cut,
    line_colors,
    set_log,
    spans_decade,
)
from analysis.runs import row_of

MAX_PANELS = 60  # more are no figure: a page of them is not read, and takes minutes to lay out

_LEGEND_WIDTH = 3.2  # inches
_NAMED = 12  # keys in a title; more are a whole config


def plot_run(row: Mapping[str, Any] | pl.DataFrame | Any) -> list[Axes]:
    """All curves of one run, a panel each, in a new figure; returns the panels in curve order.

    `row` is a row of a frame of load_sweep (`df.row(0, named=True)`, or a frame of one row) or
    anything with `.curves` (name -> values, "step" among them), as plugins.api.run returns.
    A curve with a list per record is drawn as a line per component, the first one darkest, and so
    are curves that one metric numbered (`sv_0`, `sv_1`, ...). nan records (not measured) are
    skipped; a panel is logarithmic when its values are positive and span a factor of ten; the
    curves of a diverged run end in a cross.
    Raises ValueError for a frame of several rows and for a run without curves.
    """
    row = row_of(row)
    step, curves = curves_of(row)
    panels = _numbered_together(curves)
    axes = make_panels(len(panels), label_of(row, "step"))
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        draw_components(ax, step, values, row["status"] == "diverged")
        ax.set_ylabel(label_of(row, name.split(" ")[0]), size="small")  # the first of several
        n = values.shape[1] if values.ndim > 1 else 1
        ax.set_title(f"{name} ({n} components, first darkest)" if n > 1 else name, size="medium")
    set_run_title(axes, row, step)
    return axes


@dataclass(frozen=True)
class Variant:
    """How one of several curves in a panel is drawn, and what the legend calls it."""

    name: str = ""
    linestyle: str = "-"
    color: Any = None  # None: the group's


def plot_groups(
    df: pl.DataFrame,
    by: Sequence[str],
    panels: Mapping[str, Mapping[str, Variant]],
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """A panel per entry of `panels` (title -> {curve: variant}): means over the groups `by`.

    One legend for all, right of the panels. `axes` None: a new figure.
    Raises as over_seeds does, and ValueError where no run has a record.
    """
    if not panels:
        raise ValueError(f"none of the {len(df)} runs has a curve to draw")
    records = over_seeds(df.with_columns(pl.col("step").alias("_record")), "_record", by)
    if records.curves.is_empty():
        raise ValueError(f"none of the {len(df)} runs has a record")
    statistics = {y: over_seeds(df, y, by) for curves in panels.values() for y in curves}
    return draw_groups(df, by, panels, statistics, records, axes)


def draw_groups(
    df: pl.DataFrame,
    by: Sequence[str],
    panels: Mapping[str, Mapping[str, Variant]],
    statistics: Mapping[str, SeedStatistics],
    records: SeedStatistics,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """`plot_groups` from the statistics of each curve, and of "step" as a curve: `records`.

    Of `df` only the keys and bookkeeping are looked at.
    """
    variants = dict.fromkeys(v for curves in panels.values() for v in curves.values() if v.name)
    groups = groups_of(df, by, styles=not variants)  # the variants are told by styles
    if axes is None:
        axes = make_panels(len(panels), label_of(df, "step"), _LEGEND_WIDTH)
    axes = list(axes)
    cut = False
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        drawn = {y: statistics[y] for y in curves}
        log = spans_decade(np.concatenate([s.curves["mean"].to_numpy() for s in drawn.values()]))
        cut |= log and any(map(is_cut, drawn.values()))
        for y, variant in curves.items():
            draw_means(ax, drawn[y], by, _styled(groups, variant), log=log)
        if log:
            set_log(ax)
        ax.set_title(title, size="medium")
        ax.set_ylabel(label_of(df, next(iter(curves))), size="small")
    handles = group_handles(records, by, groups)
    own = "0.3" if by else groups[()].color
    if variants and not by:  # the lines of the one group are its variants'
        handles[0].set_linestyle("none")
    handles += [
        Line2D([], [], color=v.color or own, linestyle=v.linestyle, label=v.name) for v in variants
    ]
    title = describe_lines(df, records, by, LEVEL, cut=cut)
    draw_legend(axes[0].figure, title, handles, records, by, loc="outside right upper")
    return axes


def _styled(groups: Mapping[tuple, Group], variant: Variant) -> dict[tuple, Group]:
    """The groups as a variant draws them: in its style if it is named, its colour if it has one."""
    return {
        values: replace(
            group,
            linestyle=variant.linestyle if variant.name else group.linestyle,
            color=group.color if variant.color is None else variant.color,
        )
        for values, group in groups.items()
    }


def make_panels(n: int, xlabel: str, beside: float = 0) -> list[Axes]:
    """`n` axes in a new figure, in rows of at most three, and room beside in inches.

    Raises ValueError for more than MAX_PANELS.
    """
    if n > MAX_PANELS:
        raise ValueError(
            f"{n} curves make no figure (a panel each, {MAX_PANELS} at most): select columns of "
            "the frame, or draw one with plot_curves"
        )
    n_columns = min(3, math.ceil(math.sqrt(n)))
    n_rows = math.ceil(n / n_columns)
    axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(0.6 + 3.8 * n_columns + beside, 0.7 + 2.7 * n_rows),
        layout="constrained",
        squeeze=False,
        sharex=True,
    )[1]
    axes = list(axes.flat)
    for ax in axes[n:]:
        ax.remove()
    axes = axes[:n]
    for ax in axes:
        ax.tick_params(labelbottom=True)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[-n_columns:]:
        ax.set_xlabel(xlabel)
    return axes


def curves_of(row: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps [records] and curves [records] or [records, k] float64 of a row.

    Raises ValueError where there are none.
    """
    name, status = run_name(row), row["status"]
    if row.get("step") is None:
        error = row.get("error")
        why = f": {error.strip().splitlines()[-1]}" if error else ""
        raise ValueError(f"{name or 'the run'} ({status}) has no curves{why}")
    step = np.asarray(row["step"])
    keys = config_values(row)
    curves = {
        column: np.asarray(values, np.float64)
        for column, values in row.items()
        if column not in (*keys, "step")
        and isinstance(values, list | tuple | np.ndarray)
        and len(values) == len(step)
    }
    if not curves or not len(step):
        raise ValueError(f"{name or 'the run'} ({status}) has no curve but 'step'")
    return step, curves


def run_name(row: Mapping[str, Any]) -> str:
    """The run's keys and their values; its run_id where there are none, or a whole config."""
    keys = config_values(row)
    if 0 < len(keys) <= _NAMED:
        return key_values(keys)
    return f"run {row['run_id']}" if row.get("run_id") else ""


def one_run(row: Mapping[str, Any]) -> str:
    """'one run: model.gamma = 1.5', for a title."""
    return ": ".join(filter(None, ["one run", run_name(row).removeprefix("run ")]))


def draw_components(ax: Axes, step: np.ndarray, values: np.ndarray, diverged: bool) -> None:
    """One curve [records], or a line per component of [records, k]; a cross ends a diverged one."""
    components = values.reshape(len(step), -1).T
    colors = line_colors(len(components), len(components) > 1)
    for component, color in zip(components, colors, strict=True):
        measured = ~np.isnan(component)
        x, y = step[measured], component[measured]
        ax.plot(x, y, color=color, linewidth=1.4, marker="o" if len(x) == 1 else None)
        if diverged and len(x):
            ax.plot(x[-1:], y[-1:], color=color, zorder=3, **CROSS)
    if spans_decade(values):
        ax.set_yscale("log")


def set_run_title(axes: Sequence[Axes], row: Mapping[str, Any], step: np.ndarray) -> None:
    """'one run: ...' above the panels, by its keys or its run_id; and where it diverged."""
    title = one_run(row)
    if row["status"] == "diverged":
        title = f"{title} (diverged after step {step[-1]})"
    figure = axes[0].figure
    width = int(12 * figure.get_size_inches()[0])  # characters of medium size
    figure.suptitle("\n".join(textwrap.wrap(title, width)), fontsize="medium")


def _numbered_together(curves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Curves `name_0` ... `name_{k-1}` as one curve [records, k] at the place of the first."""
    families: dict[str, list[str]] = {}
    for name, values in curves.items():
        stem, _, number = name.rpartition("_")
        if stem and number.isdecimal() and values.ndim == 1:
            families.setdefault(stem, []).append(name)
    place = {
        name: f"{stem}_0 ... {len(names) - 1}"
        for stem, names in families.items()
        if len(names) > 1 and names == [f"{stem}_{k}" for k in range(len(names))]
        for name in names
    }
    together: dict[str, list[np.ndarray]] = {}
    for name, values in curves.items():
        together.setdefault(place.get(name, name), []).append(values)
    return {n: v[0] if len(v) == 1 else np.stack(v, axis=1) for n, v in together.items()}
