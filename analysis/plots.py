"""Curves over seeds: mean and interval of a curve against step, a line per group of runs."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation

from analysis.curves import LEVEL, SeedStatistics, over_seeds, value_text, varying_keys
from analysis.labels import label_of

# Okabe & Ito (2008) without yellow and black: told apart by colour-blind readers.
_QUALITATIVE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LEGEND_ROWS = 20
_LONGEST_NAME = 60  # characters of a group's values
_LEGEND_WIDTH = 44  # characters of a line of a title
_LEGEND_INCHES = 3.2  # that figures leave for a legend
_STYLES = ("-", "--", ":", "-.")
CROSS = {"marker": "x", "markersize": 7, "markeredgewidth": 1.8, "linestyle": "none"}


@dataclass(frozen=True)
class Group:
    """The runs that one line is the mean of: its text in the legend, its colour and style."""

    name: str
    color: Any
    linestyle: str = "-"


def plot_curves(
    df: pl.DataFrame,
    y: str,
    by: str | Sequence[str] = (),
    ax: Axes | None = None,
    logy: bool | None = None,
    level: float = LEVEL,
) -> Axes:
    """Curve `y` against step, a line per value of the key(s) `by`: mean over runs and t interval.

    The legend says what is averaged, what the band means, and per line the number of runs and how
    many of them diverged, failed or ended early; a line of one run has no band. A cross stands on
    the line where a diverged run's records end. Without `by` all runs make one line.
    Numeric keys run from dark to light; of two keys the second is told by the line's style, if it
    has at most four values. `logy` None: logarithmic when the means are positive and
    span a factor of ten. `ax` None: a new figure, legend beside the axes. Saves nothing.
    Raises as over_seeds does, and ValueError when no run has a record of `y`.
    """
    by = [by] if isinstance(by, str) else list(by)
    statistics = over_seeds(df, y, by, level)
    if statistics.curves.is_empty():
        raise ValueError(f"none of the {len(df)} runs has a record of {y!r}")
    groups = groups_of(df, by)
    is_own_figure = ax is None
    if is_own_figure:
        height = max(4.5, 1.4 + 0.2 * min(len(groups), _LEGEND_ROWS))
        ax = plt.subplots(figsize=(8, height), layout="constrained")[1]
    if logy is None:
        logy = spans_decade(statistics.curves["mean"].to_numpy())
    draw_means(ax, statistics, by, groups, log=logy)
    if logy:
        set_log(ax)
    ax.set(xlabel=label_of(df, "step"), ylabel=label_of(df, y))
    ax.xaxis.get_major_locator().set_params(integer=True)
    handles = group_handles(statistics, by, groups)
    title = describe_lines(df, statistics, by, level, cut=logy and is_cut(statistics))
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    draw_legend(ax, title, handles, statistics, by, **(beside if is_own_figure else {}))
    return ax


def _name(values: Sequence[str]) -> str:
    """Of a group, in a legend: not too long, and a pair of $ is no mathematics."""
    text = ", ".join(values)
    return (text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}...").replace(
        "$", r"\$"
    )


def groups_of(df: pl.DataFrame, by: Sequence[str], styles: bool = True) -> dict[tuple, Group]:
    """The groups of a frame's runs under their values of the keys `by`, sorted, null last.

    `styles`: whether a second key of few values may be told by line styles instead of colours.
    Names hold floats with four digits, or exact where four make two groups alike.
    """
    if not by:
        return {(): Group("all runs", _QUALITATIVE[0])}
    values = df.select(by).unique().sort(by, nulls_last=True).rows()
    for digits in (4, None):
        names = [_name([value_text(v, digits) for v in group]) for group in values]
        if len(set(names)) == len(names):
            break
    second = list(dict.fromkeys(group[-1] for group in values))
    if len(by) == 2 and styles and len(second) <= len(_STYLES):
        first = list(dict.fromkeys(group[0] for group in values))
        colors = dict(
            zip(first, line_colors(len(first), df.schema[by[0]].is_numeric()), strict=True)
        )
        return {
            group: Group(name, colors[group[0]], _STYLES[second.index(group[1])])
            for group, name in zip(values, names, strict=True)
        }
    colors = line_colors(len(values), all(df.schema[key].is_numeric() for key in by))
    return {g: Group(n, c) for g, n, c in zip(values, names, colors, strict=True)}


def draw_means(
    ax: Axes,
    statistics: SeedStatistics,
    by: Sequence[str],
    groups: Mapping[tuple, Group],
    *,
    log: bool,
) -> None:
    """A line, its band and its crosses per group of the statistics.

    On a log axis a band ends at a tenth of its mean: one that reaches 0 would be a bar down to the
    axis.
    """
    incomplete = _by_values(statistics.incomplete, by)
    for values, curve in _by_values(statistics.curves, by).items():
        color, linestyle = groups[values].color, groups[values].linestyle
        step, mean, low, high = curve.select("step", "mean", "low", "high").to_numpy().T
        marker = "o" if len(step) == 1 else None
        ax.plot(step, mean, color=color, linestyle=linestyle, marker=marker, linewidth=1.6)
        if np.isfinite(high).any():
            low = np.maximum(low, mean / 10) if log else low
            ax.fill_between(step, low, high, color=color, alpha=0.2, linewidth=0)
        if values in incomplete:
            _draw_crosses(ax, curve, incomplete[values], color)


def group_handles(
    statistics: SeedStatistics, by: Sequence[str], groups: Mapping[tuple, Group]
) -> list[Line2D]:
    """The legend's entries: '1.5 (n = 20, 2 diverged)'; a group without a record has no line."""
    incomplete = _by_values(statistics.incomplete, by)
    curves = _by_values(statistics.curves, by)
    handles = []
    for values, group in groups.items():
        missing = incomplete.get(values, statistics.incomplete.clear())
        n_runs = curves[values]["n_runs"][0] if values in curves else len(missing)
        status = missing["status"].to_list()
        words = {"diverged": "diverged", "failed": "failed", "ok": "ended early"}
        notes = [f"{status.count(s)} {word}" for s, word in words.items() if s in status]
        notes += [] if values in curves else ["no record"]
        label = f"{group.name} ({', '.join([f'n = {n_runs}', *notes])})"
        style = {"color": group.color, "linestyle": group.linestyle}
        style = style if values in curves else {"linestyle": "none"}
        handles.append(Line2D([], [], linewidth=1.6, label=label, **style))
    return handles


def describe_lines(
    df: pl.DataFrame, statistics: SeedStatistics, by: Sequence[str], level: float, *, cut: bool
) -> list[str]:
    """What line and band mean, in lines of a legend's title."""
    averaged = varying_keys(df, by)
    over = f" (they differ in {', '.join(averaged)})" if averaged else ""
    what = f"line: mean over the runs that have the step{over}"
    if statistics.curves["n_runs"].max() == 1:
        what = "line: a single run"
    title = textwrap.wrap(what, 42)
    if statistics.curves["high"].is_not_null().any():
        title.append(f"band: {100 * level:g} % t interval of the mean")
        title += ["(cut at a tenth of the mean)"] if cut else []
    return title


def draw_legend(
    on: Axes | Figure,
    title: Sequence[str],
    handles: Sequence[Line2D],
    statistics: SeedStatistics,
    by: Sequence[str],
    **place: Any,
) -> None:
    """The title, the keys, the groups (a part of them where there are many), and the cross."""
    title = list(title)
    if len(handles) > _LEGEND_ROWS:
        title.append(f"{_LEGEND_ROWS} of the {len(handles)} groups are listed")
        listed = np.linspace(0, len(handles) - 1, _LEGEND_ROWS).round().astype(int)
        handles = [handles[i] for i in listed]
    if by:
        title.append(f"{', '.join(by)}:")
    if (statistics.incomplete["status"] == "diverged").any():
        handles = [*handles, Line2D([], [], color="0.3", label="a run diverged here", **CROSS)]
    write_legend(on, title, handles, **place)


def legend_of_figure(figure: Figure, title: Sequence[str], handles: Sequence[Artist]) -> None:
    """Right of all axes."""
    write_legend(figure, title, handles, loc="outside right upper")


def write_legend(
    on: Axes | Figure, title: Sequence[str], handles: Sequence[Artist], **place: Any
) -> None:
    """In small letters, its lines from the left; a figure that is too small for it grows."""
    title = [line for text in title for line in textwrap.wrap(text, _LEGEND_WIDTH)]
    legend = on.legend(
        handles=handles,
        title="\n".join(title),
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        **place,
    )
    if isinstance(on, Figure):
        needed = legend.get_window_extent().size / on.dpi
        width, height = on.get_size_inches()
        wider = max(0, needed[0] - _LEGEND_INCHES)
        on.set_size_inches(width + wider, max(height, needed[1] + 0.2))


def line_colors(n: int, is_ordered: bool) -> list:
    """Dark to light for ordered lines, else colours that are told apart (while they last)."""
    if is_ordered or n > len(_QUALITATIVE):
        # Up to 0.82: the yellow end of viridis is lost on paper.
        return list(plt.get_cmap("viridis")(np.linspace(0, 0.82, n)))
    return list(_QUALITATIVE[:n])


def spans_decade(values: np.ndarray) -> bool:
    """Whether the finite values are positive and span a factor of ten."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() >= 10 * finite.min()


def set_log(ax: Axes) -> None:
    """A log y axis; intervals that reach down to 0 do not stretch it over many decades."""
    ax.set_yscale("log")
    # 2, 3 and 6 of every decade, too, where there are no more than two.
    ax.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    lowest = drawn[drawn > 0].min(initial=np.inf)
    if ax.get_ylim()[0] < lowest / 10 < np.inf:
        ax.set_ylim(bottom=lowest / 10, auto=True)


def is_cut(statistics: SeedStatistics) -> bool:
    """Whether a log axis shows a band from a tenth of its mean on, and not from its lower end."""
    return bool((statistics.curves["low"] < statistics.curves["mean"] / 10).any())


def _by_values(frame: pl.DataFrame, by: Sequence[str]) -> dict[tuple, pl.DataFrame]:
    """The rows of each group under its values, in the frame's order."""
    if not by:
        return {(): frame} if len(frame) else {}
    return dict(frame.group_by(by, maintain_order=True))


def _draw_crosses(ax: Axes, curve: pl.DataFrame, incomplete: pl.DataFrame, color: Any) -> None:
    """A cross on the mean at the last record of each diverged run."""
    last = incomplete.filter(pl.col("status") == "diverged")["last_step"].drop_nulls().unique()
    ends = curve.filter(pl.col("step").is_in(last.implode()))
    if len(ends):
        ax.plot(ends["step"], ends["mean"], color=color, zorder=3, **CROSS)


def legend_beside(ax: Axes, title: Sequence[str]) -> None:
    """Right of the axes; the title says what line, band or point is."""
    ax.legend(
        title="\n".join(title),
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
    )
