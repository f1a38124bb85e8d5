"""One run of a store: its passages in one frame, its summary, and functions that take a store."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import polars as pl

from analysis.runs import choose_run
from plugins.load import load_sweep, load_sweep_config, load_table

_SETTINGS = ("threshold", "alpha", "min_effect")  # a run's keys that are arguments of its analyses
SUMMARY = "training_summary.csv"
_OF_A_STORE = """

Instead of `data` the path of a store may stand, with `run_id` where it holds several runs;
threshold, alpha and min_effect are then by default those of the run. `layer_idx` is another name
of `layer`.
"""


def passage_data(store: Path | str, run_id: str | None = None) -> pl.DataFrame:
    """What the analyses read: a row per epoch, passage and layer of one run.

    run_id, the columns of the table passages, layer, and the metrics of the table passage_layers.
    Raises ValueError for a store of several runs and no `run_id`, UnknownName for one that is not
    there, FileNotFoundError for what is no store.
    """
    run_id = choose_run(runs_of(store), run_id, store)["run_id"]
    passages, layers = (
        load_table(store, name=name).filter(run_id=run_id)
        for name in ("passages", "passage_layers")
    )
    # Columns of the store's other runs.
    layers = layers.select(c for c in layers if c.null_count() < len(c))
    return layers.join(passages, on=["run_id", "epoch", "passage_id"], maintain_order="left")


def runs_of(store: Path | str) -> pl.DataFrame:
    """Its runs that ended, a row each, as `load_sweep` gives them.

    Raises ValueError where there are none.
    """
    runs = load_sweep(store).filter(experiment="memdyn/train")
    if runs.is_empty():
        raise ValueError(f"{store} holds no finished run of memdyn/train")
    return runs


def settings_of(store: Path | str, run_id: str) -> dict[str, float]:
    """threshold, alpha and min_effect of a run's config."""
    config = load_sweep_config(store, run_id)
    return {name: config[name] for name in _SETTINGS}


def from_store(function: Callable) -> Callable:
    """The function, its first argument being data or the path of a store."""
    signature = inspect.signature(function)
    more = inspect.Parameter("run_id", inspect.Parameter.KEYWORD_ONLY, default=None)

    @wraps(function)
    def of_data_or_store(data: Any, *args: Any, run_id: str | None = None, **kwargs: Any) -> Any:
        if "layer_idx" in kwargs:
            kwargs["layer"] = kwargs.pop("layer_idx")
        if isinstance(data, str | Path):
            run = choose_run(runs_of(data), run_id, data)
            run_id, is_diverged = run["run_id"], run["status"] == "diverged"
            settings = settings_of(data, run_id) | {"diverged": is_diverged}
            own = {name: x for name, x in settings.items() if name in signature.parameters}
            kwargs = own | kwargs
            data = passage_data(data, run_id)
        elif run_id is not None:
            raise ValueError(f"run_id={run_id!r} chooses a run of a store, but data was given")
        return function(data, *args, **kwargs)

    parameters = [*signature.parameters.values(), more]
    of_data_or_store.__signature__ = signature.replace(parameters=parameters)
    of_data_or_store.__doc__ = inspect.getdoc(function) + _OF_A_STORE
    return of_data_or_store


def training_summary(
    store: Path | str, run: Mapping[str, Any], data: pl.DataFrame, threshold: float
) -> pl.DataFrame:
    """training_summary.csv of a run: a row per epoch, memorized passages counted by `threshold`.

    Where the run's own file is gone, its curves: the same without best_layer, lr and clock times.
    """
    path = Path(store) / "artifacts" / run["run_id"] / SUMMARY
    if path.is_file():
        lines = pl.read_csv(path, infer_schema_length=None)
    else:
        of_layer = ("_trained", "_novel")  # the middle layer's metrics are curves, too
        names = [
            name
            for name, values in run.items()
            if isinstance(values, list) and name != "step" and not name.endswith(of_layer)
        ]
        lines = pl.DataFrame({"epoch": run["step"]} | {name: run[name] for name in names})
        lines = lines.with_columns(pl.col(pl.Float64).fill_nan(None))
    hit, is_trained = pl.col("accuracy") >= threshold, pl.col("group") == "trained"
    memorized = (
        data.filter(pl.col("layer") == pl.col("layer").min())
        .group_by("epoch")
        .agg(
            num_memorized=hit.filter(is_trained).sum(),
            memorization_rate=hit.filter(is_trained).mean(),
            novel_rate=hit.filter(~is_trained).mean(),
        )
    )
    return lines.update(memorized, on="epoch")
