"""Runs of a store: compressors, recursive predictors of their codes, one run with its files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from analysis.measured import NotMeasured, leading_keys
from analysis.runs import StoredRun, choose_run, first_run
from plugins.load import load_sweep, load_table
from plugins.registry import UnknownName

TRAIN, TRM = "compressor/train", "compressor/trm"
INIT_FROM = "train.init_from"
STATUS = ("ok", "diverged", "failed")
_EIGENVALUES = "eigenvalues.npy"
_NAMES_OF_K = ("k", "model.d_compressed", "model.ratio")


@dataclass(frozen=True)
class Store:
    """All runs of a store, failed ones too, a row each."""

    path: Path
    rows: pl.DataFrame

    def ended(self, experiment: str = TRAIN) -> pl.DataFrame:
        """The runs of the experiment that ended, diverged ones too.

        Raises NotMeasured where there are none.
        """
        rows = self.rows.filter(pl.col("status") != "failed", experiment=experiment)
        if rows.is_empty():
            raise NotMeasured(f"no finished run of {experiment} in {self.path}")
        return rows

    def finals(self, experiment: str = TRAIN) -> pl.DataFrame:
        """The runs of the experiment that ended well: what their last numbers are taken from."""
        rows = self.ended(experiment).filter(status="ok")
        if rows.is_empty():
            raise NotMeasured(f"every run of {experiment} diverged")
        return rows

    def table(self, name: str) -> pl.DataFrame:
        """Raises NotMeasured where no run has it."""
        try:
            return load_table(self.path, name=name)
        except UnknownName:
            raise NotMeasured(f"no run of {self.path} has a table {name}") from None


class Run(StoredRun):
    """One run of compressor/train, with its eigenvalues."""

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Of the second moment of the train split, [D] descending."""
        path = self.store / "artifacts" / self.row["run_id"] / _EIGENVALUES
        if not path.is_file():
            raise NotMeasured(f"there is no {path}")
        return np.load(path)


def load_store(path: Path | str) -> Store:
    """Raises FileNotFoundError for what is no store, ValueError where it holds no such run."""
    rows = load_sweep(path, status=STATUS)
    own = rows.filter(pl.col("experiment").is_in([TRAIN, TRM]))
    if own.is_empty():
        held = ", ".join(rows["experiment"].unique().sort()) or "no run at all"
        raise ValueError(f"{path} holds no run of {TRAIN} or {TRM}, but {held}")
    return Store(Path(path), own)


def load_run(store: Store, run_id: str | None = None) -> Run:
    """The run `run_id`, by default the first that ended well (else the first that diverged).

    Raises UnknownName for a run that is not there, NotMeasured where none ended.
    """
    if run_id is not None:
        runs = store.rows.filter(experiment=TRAIN)
        return Run(store.path, choose_run(runs, run_id, store.path))
    return Run(store.path, first_run(store.ended()))


def keys_of(runs: pl.DataFrame, *also_told: str) -> list[str]:
    """Keys that tell the compressors of one D' apart, but for the seed."""
    # Which run a stage 1b goes on from differs with every run of stage 1a.
    return leading_keys(runs.drop(INIT_FROM, strict=False), without=[*_NAMES_OF_K, *also_told])


def keys_of_predictors(runs: pl.DataFrame) -> list[str]:
    """Keys that tell runs of compressor/trm apart, but for the seed."""
    return leading_keys(runs.drop(INIT_FROM, strict=False))
