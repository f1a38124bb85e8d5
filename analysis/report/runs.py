"""What a report reads of a store: a row per run without its curves, the curves lazily."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.measured import is_seed
from plugins.config_files import ConfigFile, read_configs
from plugins.leaves import flatten
from plugins.load import load_sweep_config, scan_sweep
from plugins.result import BOOKKEEPING

STATUS = ("ok", "diverged", "failed")


@dataclass(frozen=True)
class StoredRuns:
    """The runs of a store.

    rows: a row per run: keys, step (null: it parts the keys from the rest), scalars, bookkeeping
    without the error. scan: lazily the same with the curves, of the runs that ended.
    errors: last_line, n, run_id and error of one of them; a row per last line, the commonest first.
    fixed: leaves of the config that all runs share. configs: config files by id, those that the
    rows refer to.
    """

    store: Path
    rows: pl.DataFrame
    scan: pl.LazyFrame
    keys: list[str]
    curves: list[str]
    scalars: list[str]
    errors: pl.DataFrame
    fixed: dict[str, Any]
    configs: dict[str, ConfigFile]

    @property
    def group_keys(self) -> list[str]:
        """Keys that tell the rows apart, but for the seeds."""
        return [key for key in self.keys if not is_seed(key) and self.rows[key].n_unique() > 1]

    @property
    def families(self) -> list[str]:
        """Of the runs' experiments."""
        names = [config.config["experiment"] for config in self.configs.values()]
        return sorted({name.split("/")[0] for name in names})


def read_runs(store: Path) -> StoredRuns:
    """Raises FileNotFoundError for what is no store; one without rows has empty frames."""
    configs = read_configs(store) if store.is_dir() else {}
    scan = scan_sweep(store, status=STATUS)
    schema = scan.collect_schema()
    names = list(schema)[: list(schema).index(BOOKKEEPING[0])]
    curves = [name for name in names if isinstance(schema[name], pl.List)]
    keys = _keys(names, configs)
    scalars = [name for name in names if name not in keys and name not in curves]
    others = [name for name in BOOKKEEPING if name != "error"]
    rows = scan.select(*keys, *scalars, *others).collect(engine="streaming")
    rows = rows.sort("plan", "index", "run_id")
    if rows["experiment"].n_unique() > 1:
        keys = ["experiment", *keys]
    rows = rows.select(*keys, pl.lit(None, pl.List(pl.Int64)).alias("step"), pl.exclude(keys))
    used = set(rows["config_id"].unique())
    return StoredRuns(
        store,
        rows,
        scan.filter(pl.col("status") != "failed").select(*keys, pl.exclude(keys)),
        keys,
        [name for name in curves if name != "step"],
        [name for name in scalars if rows[name].count()],
        _errors(scan),
        flatten(load_sweep_config(store)),
        {id: config for id, config in configs.items() if id in used or not used},
    )


def _keys(names: Sequence[str], configs: dict[str, ConfigFile]) -> list[str]:
    """Those of the columns that are config keys: they stand before `step`, where there is one."""
    if "step" in names:
        return list(names[: names.index("step")])
    known = {"version"}
    for config in configs.values():
        known.update(config.varying, flatten(config.config))
    return [name for name in names if name in known]


def _errors(scan: pl.LazyFrame) -> pl.DataFrame:
    text = pl.col("error").fill_null("no error stored").str.strip_chars()
    failed = scan.filter(pl.col("status") == "failed").select("run_id", error=text)
    kinds = failed.with_columns(last_line=pl.col("error").str.split("\n").list.last())
    counts = kinds.group_by("last_line").agg(
        n=pl.len(), error=pl.col("error").sort_by("run_id").first(), run_id=pl.col("run_id").min()
    )
    return counts.collect().sort("n", "last_line", descending=[True, False])
