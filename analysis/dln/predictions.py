"""What theory says of runs of deep linear networks: as columns, and drawn beside the data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from analysis.curves import config_columns, config_values, curve_names, key_values, varying_keys
from analysis.labels import label_of
from analysis.panels import Variant, plot_groups
from analysis.plots import plot_curves, spans_decade
from analysis.runs import labelled_frame
from dln.theory import predicted_curves, reference_values
from plugins.registry import UnknownName, did_you_mean

_FLOATS = pl.List(pl.Float64)
_THEORY = "0.1"  # colour: black on every group's line


def add_predictions(df: pl.DataFrame) -> pl.DataFrame:
    """The frame with `<curve>_predicted` and `<curve>_residual` (curve - predicted), float64.

    For every curve of the frame that dln.theory.predicted_curves knows, at each run's own steps;
    null in runs without a record. `df` comes from load_sweep(..., params="all").
    Raises ValueError naming the run for which there is no theory, or a frame without configs.
    """
    _require_configs(df)
    curves = curve_names(df)
    # The theory is of the population: seeds do not enter, so equal runs are predicted once.
    keys, names = _unseeded(df), varying_keys(df)
    cases: dict[tuple, int] = {}
    predicted: list[dict[str, list[float]]] = []
    of_run = []
    rows = df.select(*keys, "step", *{"experiment"}.intersection(df.columns))
    for row in rows.iter_rows(named=True):
        case = (*(row[key] for key in keys), tuple(row["step"] or ()))
        if case not in cases:
            cases[case] = len(predicted)
            predicted.append(_predict(row, names))
        of_run.append(cases[case])
    known = [name for name in curves if any(name in case for case in predicted)]
    columns = [
        pl.Series(name, [case.get(name) for case in predicted], _FLOATS)[of_run] for name in known
    ]
    return df.with_columns(
        column.alias(f"{column.name}_predicted") for column in columns
    ).with_columns(
        (pl.col(name).cast(_FLOATS) - pl.col(f"{name}_predicted")).alias(f"{name}_residual")
        for name in known
    )


def plot_theory(x: Any, y: str = "test_loss", by: str | Sequence[str] = ()) -> list[Axes]:
    """Curve `y` of runs and what theory predicts (dashed) in one panel, their difference below.

    `x` is a run, runs or {label: runs} with their configs, rows of load_sweep(..., params="all");
    data and theory are means over the groups `by` or the labels, with the data's t interval.
    Raises as add_predictions does, and UnknownName for a curve that the theory does not know.
    """
    df, labels = labelled_frame(x)
    by = labels + ([by] if isinstance(by, str) else list(by))
    if y not in (curves := curve_names(df)):
        raise UnknownName(f"no run has a curve {y!r}{did_you_mean(y, curves)}")
    df = add_predictions(df.drop(name for name in curves if name != y))
    if f"{y}_predicted" not in df.columns:
        raise UnknownName(f"theory predicts no curve {y!r}")
    axes = plt.subplots(
        2, 1, figsize=(9, 6), height_ratios=(3, 1), sharex=True, layout="constrained"
    )[1]
    panels = {
        y: {y: Variant("data"), f"{y}_predicted": Variant("theory", "--", _THEORY)},
        "data - theory": {f"{y}_residual": Variant("data")},
    }
    curve, residual = plot_groups(df, by, panels, axes)
    data = df[y].explode().drop_nulls().drop_nans().to_numpy()
    if spans_decade(data):
        # Data stop at the precision of the weights, predictions fall on to 0.
        curve.set_yscale("log")
        curve.set_ylim(bottom=data.min() / 10)
    residual.set_yscale("linear")
    residual.autoscale(axis="y")
    residual.axhline(0, color=_THEORY, linestyle="--", linewidth=0.8)
    residual.set_xlabel(label_of(df, "step"))
    residual.set_ylabel("difference,\nunit as above", size="small")
    return [curve, residual]


def plot_plateaus(x: Any, by: str | Sequence[str] = ()) -> Axes:
    """test_loss against step, and dashed the losses of the saddles with 0, 1, ... modes learned.

    The saddles hold from any initial weights; small ones (gamma > 1) wait at them. `x` as
    plot_theory takes it. Raises ValueError for runs that differ in these losses or have a single
    layer, which has no saddles, and as dln.theory.reference_values does.
    """
    df, labels = labelled_frame(x)
    by = labels + ([by] if isinstance(by, str) else list(by))
    _require_configs(df)
    if (df["model.num_hidden"] == 0).any():
        raise ValueError("model.num_hidden=0: a single layer has no saddles to stop at")
    cases = df.unique(_unseeded(df), keep="first", maintain_order=True)
    found = {
        tuple(reference_values(config_of(row))["plateau_losses"])
        for row in cases.iter_rows(named=True)
    }
    if len(found) > 1:
        raise ValueError("the runs differ in their plateaus: draw those of one teacher at a time")
    ax = plot_curves(df, "test_loss", by)
    (losses,) = found
    for loss in losses:
        if loss > 0:
            ax.axhline(loss, color=_THEORY, linestyle="--", linewidth=0.8)
    ax.set_title("dashed: losses of the saddles with 0, 1, ... modes learned", size="medium")
    return ax


def config_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The nested config that a row of load_sweep(..., params="all") holds under dotted keys."""
    # Empty mappings have no leaf, hence no column; the experiment's is among the bookkeeping.
    config: dict[str, Any] = {
        "experiment": row.get("experiment"),
        "training": {"optimizer_params": {}},
    }
    for key, value in config_values(row).items():
        *path, leaf = key.split(".")
        if value is None and path and path[-1].endswith("params"):
            continue  # a parameter of other runs' plugins
        if isinstance(value, str) and value.startswith(("[", "{")):
            value = json.loads(value)
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return config


def _predict(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[float]]:
    """Of a run, as lists; an error names the run by its keys `names`. Nothing without records."""
    if not row["step"]:
        return {}
    try:
        predicted = predicted_curves(config_of(row), row["step"])
    except ValueError as error:
        run = key_values({name: row[name] for name in names if name in row})
        raise ValueError(f"{run}: {error}" if run else str(error)) from None
    return {name: values.tolist() for name, values in predicted.items()}


def _unseeded(df: pl.DataFrame) -> list[str]:
    return [key for key in config_columns(df.columns) if not key.endswith("_seed")]


def _require_configs(df: pl.DataFrame) -> None:
    if not {"data.params.matrix", "model.num_hidden", "training.lr"} <= set(df.columns):
        raise ValueError("theory needs the runs' configs: load_sweep(..., params='all')")
