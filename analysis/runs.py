"""Runs in every form that figures take: a row, a frame, a result, a list, labelled groups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.curves import config_columns, key_values, varying_keys
from plugins.load import load_sweep_config
from plugins.registry import UnknownName

LABEL = "label"
_LISTED = 20  # most runs that an error names


@dataclass(frozen=True)
class StoredRun:
    """One run of a store: its row of a frame of load_sweep, and its config."""

    store: Path
    row: dict[str, Any]

    @cached_property
    def config(self) -> dict[str, Any]:
        return load_sweep_config(self.store, self.row["run_id"])


def is_one_run(x: Any) -> bool:
    """Whether `x` is a row of a frame of load_sweep, a frame of one row, or has `.curves`."""
    if isinstance(x, pl.DataFrame):
        return len(x) == 1
    if isinstance(x, Mapping):
        return "step" in x or "status" in x  # otherwise its keys are labels
    return hasattr(x, "curves")


def row_of(run: Any) -> dict[str, Any]:
    """One run as a row of a frame of load_sweep: config keys, step, curves, scalars, status.

    Raises ValueError for what is no run, or a frame of several.
    """
    if isinstance(run, pl.DataFrame) and len(run) != 1:
        raise ValueError(f"one run is drawn here, the frame has {len(run)} rows")
    if not is_one_run(run):
        raise ValueError(
            f"a {type(run).__name__} is no run: give a row of a frame of load_sweep, or what "
            "plugins.api.run returned"
        )
    if isinstance(run, pl.DataFrame):
        run = run.row(0, named=True)
    if not isinstance(run, Mapping):
        curves = {name: np.asarray(values).tolist() for name, values in run.curves.items()}
        status = getattr(run, "status", "ok")
        run = {"step": curves.pop("step", None), **curves, "status": status}
    return {**run, "status": run.get("status", "ok")}


def frame_of(runs: Any) -> pl.DataFrame:
    """One run or several (a frame, a list) as a frame of load_sweep.

    Raises ValueError where there is no run.
    """
    if not isinstance(runs, pl.DataFrame):
        rows = [row_of(run) for run in ([runs] if is_one_run(runs) else runs)]
        frame = pl.DataFrame(rows, infer_schema_length=None, strict=False)
        runs = _keys_first(frame, rows)
    if runs.is_empty():
        raise ValueError("there are no runs")
    return runs


def labelled_frame(x: Any) -> tuple[pl.DataFrame, list[str]]:
    """All runs of `x` in one frame, and the keys that group them: `label` for {label: runs}."""
    if is_one_run(x) or not isinstance(x, Mapping):
        return frame_of(x), []
    if not x:
        raise ValueError("there are no labels, so no runs")
    labels = pl.Enum([str(label) for label in x])  # sorted in the order given
    frames = [
        frame_of(runs).select(pl.lit(str(label), labels).alias(LABEL), pl.exclude(LABEL))
        for label, runs in x.items()
    ]
    frame = pl.concat(frames, how="diagonal_relaxed")
    return _keys_first(frame, [frame.columns for frame in frames]), [LABEL]


def _keys_first(frame: pl.DataFrame, parts: Iterable[Iterable[str]]) -> pl.DataFrame:
    """The config keys of all the parts before the curves, where a frame of load_sweep has them."""
    keys = list(dict.fromkeys(key for part in parts for key in config_columns(part)))
    return frame.select(*keys, pl.exclude(keys) if keys else pl.all())


def choose_run(runs: pl.DataFrame, run_id: str | None, store: Path | str) -> dict[str, Any]:
    """The row of `run_id`, or of the only run.

    Raises UnknownName for a run that is not there, ValueError where none is named of several.
    """
    chosen = runs if run_id is None else runs.filter(run_id=run_id)
    if len(chosen) == 1:
        return chosen.row(0, named=True)
    if run_id is None:
        raise ValueError(f"{store} holds {len(runs)} runs: name one by its run_id{_listed(runs)}")
    near = get_close_matches(run_id, runs["run_id"], 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownName(f"{store} holds no run {run_id!r}{hint}{_listed(runs)}")


def first_run(runs: pl.DataFrame) -> dict[str, Any]:
    """The row of the first run that ended well, else of the first."""
    return runs.sort(pl.col("status") != "ok", maintain_order=True).row(0, named=True)


def _listed(runs: pl.DataFrame) -> str:
    """A line per run: its id and what tells it from the others."""
    rows = runs.select("run_id", *varying_keys(runs)).head(_LISTED).iter_rows(named=True)
    lines = [f"{row.pop('run_id')}  {key_values(row)}" for row in rows]
    if len(runs) > _LISTED:
        lines.append(f"and {len(runs) - _LISTED} more")
    return "".join(f"\n  {line}" for line in lines)
