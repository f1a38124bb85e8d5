"""Figures of one or many runs of deep linear networks, and of comparisons of two."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from analysis.curves import curve_names
from analysis.panels import Variant, plot_groups, plot_run
from analysis.plots import line_colors
from analysis.runs import frame_of, is_one_run, labelled_frame
from plugins.registry import UnknownName, did_you_mean


def plot(x: Any) -> list[Axes]:
    """A panel per curve of one run (as plot_run), or of runs: a line per label, mean and interval.

    `x` is a run, several (a frame of load_sweep, a list) or {label: runs}; a run is a row of
    such a frame, or anything with `.curves`, as plugins.api.run returns. Of several runs all curves
    with a number per record are drawn. The legend says what plot_curves' does.
    Raises ValueError for runs without records, or with more curves than a figure has panels.
    """
    if is_one_run(x):
        return plot_run(x)
    df, by = labelled_frame(x)
    return plot_groups(df, by, {name: {name: Variant()} for name in scalar_curves(df)})


def plot_comparative(x: Any, y: str | None = None) -> list[Axes]:
    """Runs of dln/compare: a panel per quantity with network a solid and b dashed, or alone.

    `x` as plot takes it. Columns that end in _a and _b are the networks' (`test_loss_a`), the
    others compare them (`param_distance`). `y` names the one quantity to draw (`test_loss`).
    Raises ValueError for runs without such columns, UnknownName for another `y`.
    """
    df, by = labelled_frame(x)
    quantities = quantities_of(df, by)
    if y is not None:
        if y not in quantities:
            raise UnknownName(f"the runs compare no quantity {y!r}{did_you_mean(y, quantities)}")
        quantities = {y: quantities[y]}
    return plot_groups(df, by, quantities)


def subtract_baseline(df: pl.DataFrame, baseline: Any, y: str) -> pl.DataFrame:
    """The frame with curve `y` minus the baseline's, step by step, float64.

    `baseline` is a run, or runs whose mean is meant (a frame, a list). Runs that diverged keep
    their records. Raises ValueError naming grids that differ, UnknownName for a `y` that is no
    curve with a number per record.
    """
    baseline = frame_of(baseline)
    for frame in (df, baseline):
        if y not in (known := scalar_curves(frame)):
            raise UnknownName(f"no run has a curve {y!r}{did_you_mean(y, known)}")
    grids = baseline["step"].unique(maintain_order=True)
    if len(grids) > 1:
        raise ValueError(
            f"the baseline's runs have different steps: {_grid(grids[0])} and {_grid(grids[1])}"
        )
    (grid,) = grids
    # `head`: a run that diverged recorded the beginning of its grid.
    n = pl.col("step").list.len()
    is_short = pl.col("status") == "diverged" if "status" in df.columns else pl.lit(False)
    steps = pl.lit(pl.Series([grid]))
    own = pl.when(is_short).then(steps.list.head(n)).otherwise(steps)
    others = df.filter(pl.col("step") != own)["step"]
    if len(others):
        raise ValueError(
            f"{len(others)} runs have other steps than the baseline, the first "
            f"{_grid(others[0])}, the baseline {_grid(grid)}"
        )
    mean = baseline[y].explode().cast(pl.Float64).to_numpy().reshape(-1, len(grid)).mean(axis=0)
    mean = pl.lit(pl.Series([mean.tolist()]))
    return df.with_columns(pl.col(y).cast(pl.List(pl.Float64)) - mean.list.head(n))


def scalar_curves(df: pl.DataFrame) -> list[str]:
    """Curves with a number per record, of which some run has one."""
    return [
        name
        for name in curve_names(df)
        if not isinstance(df.schema[name].inner, pl.List) and df[name].null_count() < len(df)
    ]


def quantities_of(df: pl.DataFrame, by: Sequence[str]) -> dict[str, dict[str, Variant]]:
    """Panels: `test_loss` of the columns test_loss_a and test_loss_b, `param_distance` of its own.

    Colours tell the groups apart, or the networks where there is one group.
    """
    own = (None, None) if by else line_colors(2, False)
    networks = {
        "_a": Variant("network a", "-", own[0]),
        "_b": Variant("network b", "--", own[1]),
    }
    between = Variant(color=None if by else "0.3")
    panels: dict[str, dict[str, Variant]] = {}
    for name in scalar_curves(df):
        variant = networks.get(name[-2:])
        panels.setdefault(name[:-2] if variant else name, {})[name] = variant or between
    if not any(variant.name for curves in panels.values() for variant in curves.values()):
        raise ValueError("no column ends in _a or _b: these are no runs of dln/compare; use plot")
    # What the comparison is about comes first: the losses, then the distances.
    order = sorted(
        panels, key=lambda name: ("loss" not in name, between not in panels[name].values())
    )
    return {name: panels[name] for name in order}


def _grid(steps: Sequence[int]) -> str:
    first = ", ".join(map(str, steps[:2]))
    return f"{first}, ..., {steps[-1]} ({len(steps)} records)" if len(steps) > 2 else f"{first}"
