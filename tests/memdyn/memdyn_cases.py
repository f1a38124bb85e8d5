"""A run of the family that takes a second: two groups of six short passages, a very small model."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from memdyn.config import DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from plugins.load import load_sweep, load_table

SMALL = [
    "data.n_passages=6",
    "data.length=24",
    "model.layers=3",
    "model.width=16",
    "model.vocab=300",
    "schedule.epochs=[0,1,2,4]",
    "k_neighbors=5",
    "eval_batch=12",
]
TABLES = ("passages", "passage_layers", "layers")


def small(**changes) -> TrainConfig:
    """The same as an instance of the schema, with top-level keys changed."""
    cfg = TrainConfig(
        model=ModelConfig(layers=3, width=16, vocab=300),
        data=DataConfig(n_passages=6, length=24),
        schedule=ScheduleConfig(epochs=[0, 1, 2, 4]),
        k_neighbors=5,
        eval_batch=12,
    )
    return replace(cfg, **changes)


def tables(store: Path, up_to: int | None = None) -> list[pl.DataFrame]:
    """All tables of a store, without run ids; of epochs up to one."""
    found = [load_table(store, name=name).drop("run_id") for name in TABLES]
    return found if up_to is None else [table.filter(pl.col("epoch") <= up_to) for table in found]


def results(store: Path) -> pl.DataFrame:
    """Curves and scalars of the store's runs, but for those that depend on the clock."""
    frame = load_sweep(store)
    names = frame.columns[frame.columns.index("step") : frame.columns.index("run_id")]
    return frame.select(name for name in names if not name.startswith("seconds_"))


def same(store: Path, other: Path) -> bool:
    """Whether results and tables are equal, bit for bit."""
    pairs = zip([results(store), *tables(store)], [results(other), *tables(other)], strict=True)
    return all(one.equals(two) for one, two in pairs)
