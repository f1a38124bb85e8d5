"""Runs of a store: all of them in a frame for figures over runs, one of them with its tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from analysis import measured
from analysis.measured import NotMeasured
from analysis.runs import StoredRun, choose_run, first_run
from plugins.load import load_sweep, load_table
from plugins.registry import UnknownName

EXPERIMENT = "qlora_probe/train"
STATUS = ("ok", "diverged", "failed")
LR = "optim.lr"


class Run(StoredRun):
    """One run, with its curves and tables; the row names it by the keys that vary."""

    def curve(self, name: str, probe: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Steps [n] and values [n], the finite ones. Raises NotMeasured where there are none."""
        values = self.row.get(name)
        if values is not None:
            step, values = np.asarray(self.row["step"]), np.asarray(values, float)
            known = np.isfinite(values)
            if known.any():
                return step[known], values[known]
        raise NotMeasured(f"run {self.row['run_id']} has no curve {name}{_by(probe)}")

    def table(self, name: str, probe: str | None = None) -> pl.DataFrame:
        """Its rows, without run_id. Raises NotMeasured where there are none."""
        try:
            rows = load_table(self.store, name=name).filter(run_id=self.row["run_id"])
        except UnknownName:
            rows = pl.DataFrame()
        if rows.is_empty():
            raise NotMeasured(f"run {self.row['run_id']} has no table {name}{_by(probe)}")
        return rows.drop("run_id")


def _by(probe: str | None) -> str:
    return f" (the probe {probe} writes it)" if probe else ""


def runs_of(store: Path | str) -> pl.DataFrame:
    """A row per run, failed ones too. A training that went wrong has the status diverged: its
    loss is not finite at last, or its held-out loss 1.5 times what it was.

    Raises FileNotFoundError for what is no store, ValueError where it holds no such run.
    """
    runs = load_sweep(store, status=STATUS).filter(experiment=EXPERIMENT)
    if runs.is_empty():
        raise ValueError(f"{store} holds no run of {EXPERIMENT}")
    if "diverged" in runs.columns:
        status = pl.when("diverged").then(pl.lit("diverged")).otherwise("status")
        runs = runs.with_columns(status=status)
    return runs


def load_run(store: Path | str, run_id: str | None = None) -> Run:
    """The run `run_id`, by default the first that ended well (else the first that ended).

    Raises as `runs_of`, ValueError where all runs failed, UnknownName for a run not there.
    """
    runs = runs_of(store)
    if run_id is not None:
        return Run(Path(store), choose_run(runs, run_id, store))
    ended = runs.filter(pl.col("status") != "failed")
    if ended.is_empty():
        raise ValueError(f"all {len(runs)} runs of {store} failed")
    return Run(Path(store), first_run(ended))


def leading_keys(runs: pl.DataFrame, *, without: Sequence[str] = ()) -> list[str]:
    """Keys that tell the runs apart but for the seed, learning rate first."""
    return measured.leading_keys(runs, first=LR, without=without)
