"""Reading stores: rows with the keys of their configs, long tables, full configs."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from plugins.columns import (
    BOOKKEEPING_SCHEMA,
    ColumnConflict,
    common_type,
    config_value,
    describe,
    read_schemas,
    scalar,
    union,
)
from plugins.config_files import ConfigFile, read_configs
from plugins.leaves import flatten, set_leaf
from plugins.parts import (
    RESULTS,
    files_of,
    list_parts,
    opening,
    part_order,
    require_store,
    retry_vanished,
)
from plugins.registry import UnknownName, did_you_mean
from plugins.result import BOOKKEEPING
from plugins.scan import scan_files, scan_without
from plugins.winners import (
    DONE,
    STATUS,
    judge,
    number_of_attempt,
    rows_of_parts,
    short_keys,
)

Params = Literal["varying", "all"] | Sequence[str]


def load_sweep(
    *stores: Path | str, params: Params = "varying", status: Sequence[str] = DONE
) -> pl.DataFrame:
    """One row per run, in plan order; columns as in `scan_sweep`."""

    def read() -> pl.DataFrame:
        rows = _Rows(stores, status)
        with opening(rows.files):
            return rows.scan(params).collect().sort("plan", "index", "run_id")

    return retry_vanished(read)


def scan_sweep(
    *stores: Path | str, params: Params = "varying", status: Sequence[str] = DONE
) -> pl.LazyFrame:
    """One row per run that ended with one of `status`, lazily, in no order.

    Columns: keys of the configs, `step`, other curves, scalars, bookkeeping. The keys are, for
    `params`
      "varying"  those that vary in a plan of these rows (command-line order), then those that
                 differ between their plans or stores; with them `version`, the experiment's;
      "all"      every leaf of the configs;
      [keys]     these; raises UnknownName for a key that no config has.
    A key that one plan varied and another fixed has its value in all rows. Mappings and lists are
    JSON text. null is the value null, or a key that the row's config does not have.

    The parts are listed at once, their values read when collected: a compaction in between may
    take one away (FileNotFoundError: scan again). Raises FileNotFoundError for what is no store,
    CorruptPart naming a file that cannot be read, ColumnConflict naming a column that holds text
    in one file and numbers in another.
    """
    return retry_vanished(lambda: _Rows(stores, status).scan(params))


def load_table(*stores: Path | str, name: str) -> pl.DataFrame:
    """The long table `name` of all runs, in plan order: run_id, the table's columns.

    Only rows of the attempts that count. Raises UnknownName for a table that no run has.
    """
    return retry_vanished(lambda: _read_table(_list(stores), name))


def load_sweep_config(store: Path | str, run_id: str | None = None) -> dict[str, Any]:
    """The full nested config of one run; without `run_id` what all runs of the store share.

    The shared part is what `load_sweep` shows no column for: leaves that vary in no plan and
    differ between none. Raises UnknownName for a run that is not stored.
    """
    if run_id is None:
        return retry_vanished(lambda: _Rows([store], STATUS).shared_config())
    return retry_vanished(lambda: _Rows([store], STATUS).config_of(run_id))


class _Rows:
    """The rows of some stores that count, and the config files they refer to."""

    def __init__(self, stores: Sequence[Path | str], status: Sequence[str]):
        if unknown := set(status) - set(STATUS):
            raise ValueError(f"status {sorted(unknown)} is none of {', '.join(STATUS)}")
        self.stores, self.status = stores, list(status)
        self.parts = _list(stores)
        self.files = [part / RESULTS for part in self.parts]
        keys = short_keys(self.parts, ["config_id", "plan"])
        winners, self.losers = judge(keys)
        self.counts = rows_of_parts(keys)
        self.known = {
            id: file for store in stores for id, file in read_configs(Path(store)).items()
        }
        plans = winners.filter(pl.col("status").is_in(self.status))
        ids = plans.group_by("config_id").agg(pl.col("plan").min()).sort("plan", "config_id")
        for id in ids["config_id"]:
            if id not in self.known:
                raise FileNotFoundError(
                    f"configs/{id}.yaml is missing in {_names(stores)}: the command that computed "
                    "its runs, given again, writes it anew and computes nothing twice"
                )
        self.configs = {id: self.known[id] for id in ids["config_id"]} or self.known

    @cached_property
    def leaves(self) -> dict[str, dict[str, Any]]:
        """Leaves of the config files, the experiments' versions as one more."""
        leaves = {id: flatten(file.config) for id, file in self.configs.items()}
        for id, file in self.configs.items():
            leaves[id].setdefault("version", file.version)
        return leaves

    def varying(self) -> list[str]:
        names = dict.fromkeys(key for file in self.configs.values() for key in file.varying)
        for leaf in dict.fromkeys(leaf for leaves in self.leaves.values() for leaf in leaves):
            values = {
                config_value(self.leaves[id].get(leaf))
                for id, file in self.configs.items()
                if not any(leaf.startswith(f"{key}.") for key in file.varying)
            }
            if len(values) > 1:
                names.setdefault(leaf)
        return list(names)

    def all_keys(self) -> list[str]:
        leaves = (leaf for leaves in self.leaves.values() for leaf in leaves)
        return list(dict.fromkeys([*self.varying(), *leaves]))

    def scan(self, params: Params) -> pl.LazyFrame:
        if params == "varying":
            keys = self.varying()
        elif params == "all":
            keys = self.all_keys()
        else:
            keys, known = list(params), self.all_keys()
            for key in keys:
                if key not in known:
                    hint = did_you_mean(key, known)
                    raise UnknownName(f"no config in {_names(self.stores)} has a key {key!r}{hint}")
        schema = union(read_schemas(self.files)) if self.files else BOOKKEEPING_SCHEMA
        stored_keys = {key for file in self.known.values() for key in file.varying}
        results = [n for n in schema.names if n not in stored_keys and n not in BOOKKEEPING]
        curves = [name for name in results if pa.types.is_list(schema.field(name).type)]
        order = dict.fromkeys([*(["step"] if "step" in curves else []), *curves, *results])
        keys = [key for key in keys if key not in BOOKKEEPING]
        if twice := [key for key in keys if key in order]:
            raise ValueError(f"config keys and results have the same names: {twice}")
        exprs = [self._key(key, schema).alias(key) for key in keys]
        rows = scan_without(self.losers, self.counts, self.parts, pl.Schema(schema))
        return rows.filter(pl.col("status").is_in(self.status)).select(*exprs, *order, *BOOKKEEPING)

    def _key(self, key: str, schema: pa.Schema) -> pl.Expr:
        """The key's column where the row's plan varied it, its config file's value elsewhere."""
        dtype = where = None
        fixed = {
            id: _value(file, leaves, key)
            for (id, file), leaves in zip(self.configs.items(), self.leaves.values(), strict=True)
            if key not in file.varying
        }
        stored = key in schema.names and len(fixed) < len(self.configs)
        types = {"its column": schema.field(key).type} if stored else {}
        types |= {
            f"configs/{id}.yaml": scalar(value)[1]
            for id, value in fixed.items()
            if value is not None
        }
        for place, found in types.items():
            try:
                dtype, where = common_type(dtype or found, found), where or place
            except ColumnConflict as conflict:
                raise ColumnConflict(
                    f"config key {key!r} holds {describe(dtype)} in {where} and {describe(found)} "
                    f"in {place}: load them apart, or leave it out of params"
                ) from conflict
        target = pl.Schema(pa.schema([(key, dtype or pa.null())]))[key]
        filled = pl.col("config_id").replace_strict(
            list(fixed), list(fixed.values()), default=None, return_dtype=target
        )
        column = pl.col(key).cast(target) if stored else pl.lit(None, target)
        return pl.coalesce(column, filled) if fixed else column

    def shared_config(self) -> dict[str, Any]:
        first = next(iter(self.configs.values()), None)
        differing = self.varying()
        shared: dict[str, Any] = {}
        for leaf, value in flatten(first.config if first else {}).items():
            if leaf not in differing and not any(leaf.startswith(f"{key}.") for key in differing):
                set_leaf(shared, leaf, value)
        return shared

    def config_of(self, run_id: str) -> dict[str, Any]:
        varying = [key for key in self.varying() if key not in BOOKKEEPING]
        frame = self.scan(varying).filter(pl.col("run_id") == run_id)
        with opening(self.files):
            rows = frame.select("config_id", *varying).collect()
        if rows.is_empty():
            raise UnknownName(f"{_names(self.stores)} holds no run {run_id!r}")
        row = rows.row(0, named=True)
        return self.configs[row["config_id"]].full(row)


def _list(stores: Sequence[Path | str]) -> list[Path]:
    for store in stores:
        require_store(Path(store))
    return sorted({part for store in stores for part in list_parts(Path(store))}, key=part_order)


def _read_table(parts: Sequence[Path], name: str) -> pl.DataFrame:
    winners, _ = judge(short_keys(parts, ["plan", "index"]))
    tables = [file for part in parts for file in files_of(part) if file.name != RESULTS]
    files = [file for file in tables if file.stem == name]
    if not files:
        hint = did_you_mean(name, {file.stem for file in tables})
        raise UnknownName(f"no run has a table {name!r}{hint}")
    paths = {parts.index(file.parent): str(file) for file in files}
    places = pl.Enum(paths.values())
    with opening(files):
        schema = pl.Schema(union(read_schemas(files)))
        rows = scan_files(files, schema, include_file_paths="_file").collect()
    counted = winners.filter(pl.col("part").is_in(list(paths))).select(
        "attempt", "plan", "index", _file=pl.col("part").replace_strict(paths, return_dtype=places)
    )
    rows = rows.with_columns(pl.col("_file").cast(places), number_of_attempt(pl.col("attempt")))
    rows = rows.join(counted, on=["_file", "attempt"], how="inner", maintain_order="left")
    rows = rows.sort("plan", "index", "run_id", maintain_order=True)
    return rows.drop("_file", "attempt", "plan", "index")


def _value(file: ConfigFile, leaves: Mapping[str, Any], key: str) -> Any:
    """A fixed key's value as a column holds it; a mapping where another plan varied it whole."""
    if key in leaves:
        return config_value(leaves[key])
    node: Any = file.config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return config_value(node)


def _names(stores: Iterable[Path | str]) -> str:
    return ", ".join(map(str, stores))
