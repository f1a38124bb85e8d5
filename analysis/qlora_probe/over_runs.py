"""Figures over runs: losses against updates; final numbers against learning rate and rank."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from analysis.curves import LEVEL, SeedStatistics, over_seeds, value_text, varying_keys
from analysis.measured import NotMeasured, is_measured, parts_of, require, scalar_statistics
from analysis.panels import make_panels
from analysis.plots import (
    CROSS,
    Group,
    describe_lines,
    draw_legend,
    draw_means,
    group_handles,
    groups_of,
    is_cut,
    set_log,
    spans_decade,
)
from analysis.qlora_probe.runs import LR, leading_keys

LOSS = "loss (nats per target token)"
FINAL_LOSS = "final held-out loss\n(nats per target token)"
KL = "KL(base || tuned), held-out examples\n(nats per target token)"
_MOST_BANDS = 6  # that can be told apart
_MOST_TICKS = 8
_BESIDE = 3.6  # inches for a legend
_RING = {"marker": "o", "ms": 12, "mfc": "none", "ls": "none", "color": "0.3"}


def plot_loss_curves(runs: pl.DataFrame) -> Axes:
    """Training loss of every update (faint), held-out loss (markers): means over seeds.

    `runs` is a frame of `runs_of`; a line per value of the keys that vary, but for the seed. A
    cross: the last finite loss of a run that diverged.
    """
    require(runs, "train_loss", "eval_loss")
    runs = _trained(runs).with_columns(
        pl.col("train_loss", "eval_loss").list.eval(
            pl.when(pl.element().is_finite()).then(pl.element())
        )
    )
    by = leading_keys(runs)
    train, held_out = (over_seeds(runs, y, by) for y in ("train_loss", "eval_loss"))
    groups = groups_of(runs, by)
    means = np.concatenate([s.curves["mean"].to_numpy() for s in (train, held_out)])
    log = spans_decade(means)
    height = max(4.8, 2.2 + 0.2 * len(groups))
    ax = plt.subplots(figsize=(9, height), layout="constrained")[1]
    faint = {g: replace(group, color=to_rgba(group.color, 0.35)) for g, group in groups.items()}
    unbanded = SeedStatistics(_without_bands(train.curves), train.incomplete.clear())
    draw_means(ax, unbanded, by, faint, log=log)
    n_faint = len(ax.lines)
    bands = held_out.curves if len(groups) <= _MOST_BANDS else _without_bands(held_out.curves)
    is_shown = bands["high"].is_not_null().any()
    draw_means(ax, SeedStatistics(bands, held_out.incomplete.clear()), by, groups, log=log)
    for line in ax.lines[:n_faint]:
        line.set_linewidth(0.9)
    for line in ax.lines[n_faint:]:
        line.set(marker="o", markersize=4)
    _draw_ends(ax, (train, held_out), by, groups)
    if log:
        set_log(ax)
    elif is_shown:  # intervals of two or three runs reach far beyond any loss
        margin = 0.1 * np.ptp(means[np.isfinite(means)])
        ax.set_ylim(np.nanmin(means) - margin, np.nanmax(means) + margin)
    ax.set(xlabel="updates done", ylabel=LOSS)
    ax.xaxis.get_major_locator().set_params(integer=True)
    kinds = [
        Line2D([], [], color="0.3", lw=0.9, alpha=0.5, label="training loss of the next batch"),
        Line2D([], [], color="0.3", marker="o", ms=4, label="held-out loss"),
    ]
    shown = SeedStatistics(bands, held_out.incomplete)
    title = describe_lines(runs, shown, by, LEVEL, cut=log and is_cut(shown))
    handles = [*kinds, *group_handles(train, by, groups)]
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    draw_legend(ax, title, handles, train, by, **beside)
    return ax


def _trained(runs: pl.DataFrame) -> pl.DataFrame:
    """Without the runs that compared adapters of others: they ended well and have no step."""
    return runs.filter((pl.col("status") != "ok") | pl.col("step").is_not_null())


def _without_bands(curves: pl.DataFrame) -> pl.DataFrame:
    return curves.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))


def _draw_ends(
    ax: Axes,
    statistics: Sequence[SeedStatistics],
    by: Sequence[str],
    groups: Mapping[tuple, Group],
) -> None:
    """A cross on the line, training or held-out, that goes on longest for a diverged run."""
    ends: dict[tuple, tuple[int, float]] = {}
    for s in statistics:
        means = {(*row[:-2], row[-2]): row[-1] for row in s.curves[*by, "step", "mean"].rows()}
        diverged = s.incomplete.filter(pl.col("last_step").is_not_null(), status="diverged")
        for *values, run, step in diverged[*by, "run", "last_step"].rows():
            key = (*values, run)
            if key not in ends or step >= ends[key][0]:
                ends[key] = (step, means[*values, step])
    for (*values, _), (step, mean) in ends.items():
        ax.plot([step], [mean], color=groups[tuple(values)].color, zorder=3, **CROSS)


def plot_final_loss(runs: pl.DataFrame) -> Axes:
    """Final held-out loss against the learning rate; a ring marks the best of each line."""
    require(runs, "final_eval_loss", "initial_eval_loss")
    _require_varying(runs, LR)
    [ax] = _plot_against(runs, LR, {"final_eval_loss": FINAL_LOSS}, [LR], best="final_eval_loss")
    before = runs["initial_eval_loss"].mean()
    ax.axhline(before, color="0.3", ls=":", lw=1)
    place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "top", "size": "small"}
    ax.text(0.99, before, "before training", **place)
    _set_lr(ax, runs)
    return ax


def plot_ranks(runs: pl.DataFrame) -> list[Axes]:
    """Final held-out loss and size of the first update against the rank, by the rule for alpha."""
    require(runs, "final_eval_loss", "lora_rank")
    _require_varying(runs, "lora_rank")
    panels = {"final_eval_loss": FINAL_LOSS}
    if is_measured(runs, "first_update_norm"):
        panels["first_update_norm"] = "first update, $\\|s(B'A' - BA)\\|_F$\nover all modules (1)"
    axes = _plot_against(runs, "lora_rank", panels, ["lora_rank", "lora.r"])
    ranks = sorted(runs["lora_rank"].drop_nulls().unique())
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ranks, [str(r) for r in ranks])
        ax.set_xlabel("rank $r$")
    return axes


def plot_forgetting_over_runs(runs: pl.DataFrame) -> list[Axes]:
    """Change of the score on the prompts, and KL divergence, against the learning rate."""
    require(runs, "forgetting_change")
    _require_varying(runs, LR)
    panels = {"forgetting_change": "change of the score, tuned - base\n(share of prompts passed)"}
    if is_measured(runs, "final_kl_to_base"):
        panels["final_kl_to_base"] = KL
    axes = _plot_against(runs, LR, panels, [LR], of_prompts="forgetting_change")
    axes[0].axhline(0, color="0.3", ls=":", lw=1)
    for ax in axes:
        _set_lr(ax, runs)
    return axes


def _set_lr(ax: Axes, runs: pl.DataFrame) -> None:
    """A log axis of learning rates, labelled where they are, if they are few."""
    ax.set(xscale="log", xlabel="learning rate, its largest value")
    rates = runs[LR].unique().sort().to_list()
    if len(rates) <= _MOST_TICKS:
        ax.set_xticks(rates, [value_text(lr, 3) for lr in rates])
        ax.set_xticks([], minor=True)


def _plot_against(
    runs: pl.DataFrame,
    x: str,
    panels: Mapping[str, str],
    told_by_x: Sequence[str],
    *,
    of_prompts: str | None = None,
    best: str | None = None,
) -> list[Axes]:
    """A panel per scalar of `panels` (column -> label) against the column `x`: means over seeds.

    A line per value of the other keys that vary, but for those of `told_by_x`. `of_prompts` is the
    scalar with an interval over prompts, <name>_low and <name>_high: shown where a point is one
    run. `best` is the one whose least point gets a ring.
    """
    runs = _trained(runs).filter(pl.col(x).is_not_null())
    by = leading_keys(runs, without=told_by_x)
    groups = groups_of(runs, by)
    records = over_seeds(runs.with_columns(pl.col("step").alias("_record")), "_record", by)
    axes = make_panels(len(panels), x, _BESIDE)
    counts, is_spread, is_own = set(), False, False
    for ax, (y, label) in zip(axes, panels.items(), strict=True):
        statistics = scalar_statistics(runs, y, [*by, x])
        points = statistics.curves
        if y == of_prompts:
            points = _with_own_intervals(points, runs, y, [*by, x])
            is_own = bool((points["n"] == 1).any())
        counts |= set(points["n"])
        is_spread |= bool((points["n"] > 1).any())
        log = spans_decade(points["mean"].to_numpy())
        for values, line in parts_of(points, by):
            group = groups[tuple(values.values())]
            place, mean, low, high = line.sort(x).select(x, "mean", "low", "high").to_numpy().T
            # On a log axis an interval that reaches 0 would be a bar down to the axis.
            low = np.maximum(low, mean / 10) if log else low
            ax.errorbar(
                place, mean, np.nan_to_num([mean - low, high - mean]), color=group.color,
                ls=group.linestyle, lw=1.6, marker="o", ms=4, capsize=3, elinewidth=1,
            )  # fmt: skip
            if y == best and len(mean) > 1:
                i = mean.argmin()
                ax.plot(place[i], mean[i], **_RING)
        _draw_diverged(ax, statistics, by, x, groups)
        if log:
            set_log(ax)
        ax.set_ylabel(label, size="small")
    title = _describe_points(runs, [*by, x], counts, is_spread)
    title += [f"of one run: {100 * LEVEL:g} % interval over prompts"] if is_own else []
    handles = group_handles(records, by, groups)
    if best:
        handles.append(Line2D([], [], label="best of its line", **_RING | {"ms": 8}))
    draw_legend(axes[0].figure, title, handles, records, by, loc="outside right upper")
    return axes


def _with_own_intervals(
    points: pl.DataFrame, runs: pl.DataFrame, y: str, by: Sequence[str]
) -> pl.DataFrame:
    """Points of a single run with its own interval."""
    own = runs.drop_nulls(y).group_by(by).agg(
        _low=pl.col(f"{y}_low").first(), _high=pl.col(f"{y}_high").first()
    )  # fmt: skip
    points = points.join(own, on=by, how="left", nulls_equal=True, maintain_order="left")
    return points.with_columns(low=pl.coalesce("low", "_low"), high=pl.coalesce("high", "_high"))


def _draw_diverged(
    ax: Axes, statistics: SeedStatistics, by: Sequence[str], x: str, groups: Mapping[tuple, Group]
) -> None:
    """A cross where a run diverged: on its point, or at the top where none of its cell has one."""
    means = {row[:-1]: row[-1] for row in statistics.curves[*by, x, "mean"].rows()}
    diverged = statistics.incomplete.filter(status="diverged")
    for cell in diverged[*by, x].unique().rows():
        style = {"color": groups[cell[:-1]].color, "zorder": 3, **CROSS}
        if cell in means:
            ax.plot([cell[-1]], [means[cell]], **style)
        else:
            top = {"transform": ax.get_xaxis_transform(), "clip_on": False}
            ax.plot([cell[-1]], [1], **top, **style)


def _describe_points(
    runs: pl.DataFrame, by: Sequence[str], counts: set[int], is_spread: bool
) -> list[str]:
    if counts <= {1}:
        return ["point: a single run"]
    n = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    title = [f"point: mean of {n} runs", f"(they differ in {', '.join(varying_keys(runs, by))})"]
    return title + ([f"bar: {100 * LEVEL:g} % t interval of the mean"] if is_spread else [])


def _require_varying(runs: pl.DataFrame, key: str) -> None:
    if key not in runs.columns or runs[key].drop_nulls().n_unique() < 2:
        raise NotMeasured(f"the runs have one value of {key}")
