"""What was asked: the keys that all runs share, those that vary, those that differ by plan."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from analysis.curves import value_text
from analysis.report.cells import MOST_LISTED, MOST_ROWS, Cell, Table, number, some
from analysis.report.runs import StoredRuns
from plugins.config_files import ConfigFile
from plugins.leaves import flatten


def fixed_keys(runs: StoredRuns) -> list[tuple[str, str]]:
    """Key and value of everything that all runs share."""
    return [(key, _text(value)) for key, value in runs.fixed.items()]


def _text(value: Any) -> str:
    """As a column of a store holds it: lists are JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value_text(value)


def varying_keys(runs: StoredRuns) -> Table:
    """A row per key that varies: how many values, which."""
    rows = []
    for key in runs.keys:
        counts = runs.rows[key].value_counts().sort(key, nulls_last=True)
        rows.append([Cell(key), number(len(counts)), Cell(_values(counts, key))])
    return Table(["key", "values", "which (runs)"], rows)


def _values(counts: pl.DataFrame, key: str) -> str:
    values, n = counts[key].to_list(), counts["count"].to_list()
    if len(values) > MOST_LISTED:
        known = counts[key].drop_nulls()
        if known.dtype.is_numeric():
            return f"{value_text(known.min())} ... {value_text(known.max())}"
        first = ", ".join(map(value_text, values[: MOST_LISTED // 2]))
        return f"{first}, ... and {len(values) - MOST_LISTED // 2} more"
    if len(set(n)) == 1:
        return f"{', '.join(map(value_text, values))} ({n[0]:,} each)"
    return ", ".join(f"{value_text(x)} ({count:,})" for x, count in zip(values, n, strict=True))


def differences(runs: StoredRuns) -> Table:
    """A row per key that is not the same in all config files: its values and their runs.

    A config file is the fixed part of one plan's configs, or of those with the same group choices.
    """
    n_runs = dict(runs.rows["config_id"].value_counts().iter_rows())
    leaves = {id: _fixed(config) for id, config in runs.configs.items()}
    names = dict.fromkeys(name for of_config in leaves.values() for name in of_config)
    rows = []
    for name in names:
        found: dict[str, int] = {}
        for id, of_config in leaves.items():
            absent = _absent(name, runs.configs[id].varying)
            text = of_config.get(name, absent)
            found[text] = found.get(text, 0) + n_runs.get(id, 0)
        if len(found) > 1:
            texts = some([f"{value} ({n:,})" for value, n in found.items()])
            rows.append([Cell(name), number(len(found)), Cell("; ".join(texts))])
    return Table(["key", "kinds", "fixed at (runs)"], rows)


def _fixed(config: ConfigFile) -> dict[str, str]:
    leaves = {key: _text(x) for key, x in flatten(config.config).items()}
    return leaves | dict.fromkeys(config.varying, "varies") | {"version": str(config.version)}


def _absent(name: str, varying: Sequence[str]) -> str:
    """A leaf of a mapping that varies as a whole is not named there."""
    return "varies" if any(name.startswith(f"{key}.") for key in varying) else "not there"


def config_table(runs: StoredRuns) -> Table:
    """A row per config file: its runs and plans, and what varies in it."""
    found = runs.rows.group_by("config_id").agg(n=pl.len(), plans=pl.col("plan").n_unique())
    counts = {id: (n, plans) for id, n, plans in found.iter_rows()}
    rows = [
        [Cell(id), *map(number, counts.get(id, (0, 0))), Cell(", ".join(config.varying) or "-")]
        for id, config in runs.configs.items()
    ]
    return Table(["config file", "runs", "plans", "varies"], rows[:MOST_ROWS])
