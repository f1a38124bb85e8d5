"""The plan of a sweep: overrides -> a frame of runs, each with its identity, unit and stack.

Pure: no file, clock or process. Runs are rows of columns, never objects.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from hydra.core.override_parser.types import Override

from plugins.axes import plain
from plugins.composition import ABSENT, Base, LeafGroup
from plugins.config_files import ConfigFile
from plugins.experiment import Experiment
from plugins.identity import (
    Slots,
    fragment_writer,
    fragments,
    leaf_text,
    matches,
    run_ids,
)
from plugins.instances import set_on
from plugins.leaves import flatten, json_text
from plugins.registry import UnknownName, did_you_mean
from plugins.result import BOOKKEEPING

OWN_COLUMNS = ("index", "unit", "stack", "run_id", "config_id", "replaces")


@dataclass(frozen=True)
class Plan:
    """Runs to compute. frame: OWN_COLUMNS and the varying keys, sorted by unit, stack, index."""

    frame: pl.DataFrame
    configs: Mapping[str, ConfigFile]
    planned: int  # distinct runs asked for
    done: int  # of these, stored as ok or diverged and not asked for again
    duplicates: int  # runs asked for more than once

    @property
    def n_units(self) -> int:
        return self.frame["unit"].n_unique()

    @property
    def n_stacks(self) -> int:
        return self.frame["stack"].n_unique()


def identify(bases: Sequence[Base], experiment: Experiment) -> tuple[pl.DataFrame, dict]:
    """(frame, configs): a row per run of the grid with index, run_id, config_id, stack_key and the
    varying keys as typed columns; config_id -> ConfigFile. Raises ValueError for nan, infinities.
    """
    frames, configs, n_keys = [], {}, 0
    for base in bases:
        _refuse_reserved(base)
        columns, encoded = {}, []
        for group in base.groups:
            for root in group.roots:
                column, is_json = _column(root, group)
                columns[root] = column.gather(group.codes)
                encoded += [root] if is_json else []
        file = ConfigFile(base.fixed_part(), base.varying, experiment.version, tuple(encoded))
        configs[file.config_id] = file
        keys = _stack_keys(base, experiment)
        slots = [
            Slots(
                {
                    key: _texts(values, fragment_writer(key, experiment))
                    for key, values in group.leaves.items()
                },
                group.codes,
            )
            for group in base.groups
        ]
        ids = run_ids(fragments(base.fixed_leaves(), experiment), slots, experiment)
        if len(ids) != len(base.rows):  # nothing varies inside this base: one text, one run
            ids = ids * len(base.rows)
        frames.append(
            pl.DataFrame(
                {
                    "index": pl.Series(base.rows, dtype=pl.Int64),
                    "run_id": ids,
                    "config_id": pl.repeat(file.config_id, len(ids), eager=True),
                    "stack_key": pl.Series(keys + n_keys, dtype=pl.Int64),
                }
                | {key: columns[key] for key in base.varying}
            )
        )
        n_keys += int(keys.max()) + 1
    frame = pl.concat(frames, how="diagonal_relaxed").sort("index")
    return frame, configs


def distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """Equal ids in a plan are one run: the first stays."""
    return frame.unique("run_id", keep="first", maintain_order=True)


def check(
    frame: pl.DataFrame, bases: Sequence[Base], experiment: Experiment, checker: Callable
) -> None:
    """Call `checker(cfg, replicas)` once per stack key; its ValueErrors go through."""
    for cfg, rows in _stack_configs(frame, bases):
        checker(cfg, replicas(rows, experiment))


def widths(
    frame: pl.DataFrame,
    bases: Sequence[Base],
    experiment: Experiment,
    stack_width: Callable[[Any], int] | None,
    max_stack: int | None,
) -> dict[int, int]:
    """stack_key -> most replicas in one stack."""
    if experiment.run_stack is None:
        return dict.fromkeys(frame["stack_key"].unique().to_list(), 1)
    if max_stack is not None or stack_width is None:
        return dict.fromkeys(frame["stack_key"].unique().to_list(), max_stack or len(frame))
    return {
        rows["stack_key"][0]: max(1, stack_width(cfg)) for cfg, rows in _stack_configs(frame, bases)
    }


def rerun_mask(
    frame: pl.DataFrame,
    configs: Mapping[str, ConfigFile],
    overrides: Sequence[Override],
    given: Sequence[str],
) -> pl.Series:
    """Runs that `--rerun k=v ...` names: every key has one of its values.

    A key is one that the sweep varies or that its overrides set (`given`). Raises UnknownName for
    any other, ValueError when no run matches.
    """
    varying = [name for name in frame.columns if name not in (*OWN_COLUMNS, "stack_key")]
    mask = pl.Series([True] * len(frame))
    for override in overrides:
        key = override.get_key_element().lstrip("+")
        if key not in (*varying, *given):
            known = (*varying, *given)
            raise UnknownName(f"--rerun: {key!r} is no key of the sweep{did_you_mean(key, known)}")
        swept = override.is_sweep_override()
        values = [plain(v) for v in override.sweep_iterator()] if swept else [override.value()]
        values = [json_text(v) if isinstance(v, dict | list) else v for v in values]
        column = frame[key] if key in varying else _fixed_column(frame, configs, key)
        wanted = [value for value in values if value is not None]
        try:
            wanted = pl.Series(wanted).cast(column.dtype) if wanted else column.clear()
        except (TypeError, pl.exceptions.PolarsError):
            raise ValueError(
                f"--rerun: {override.input_line}: {key} holds {column.dtype} values"
            ) from None
        hit = column.is_in(wanted.implode()).fill_null(False)
        mask &= hit | column.is_null() if None in values else hit
    if overrides and not mask.any():
        asked = " ".join(override.input_line for override in overrides)
        raise ValueError(f"--rerun {asked}: no run of the sweep matches")
    return mask


def _fixed_column(frame: pl.DataFrame, configs: Mapping[str, ConfigFile], key: str) -> pl.Series:
    values = {name: flatten(file.config).get(key) for name, file in configs.items()}
    values = {k: json_text(v) if isinstance(v, list) else v for k, v in values.items()}
    return frame["config_id"].replace_strict(values)


def drop_done(
    frame: pl.DataFrame, done: pl.DataFrame, rerun: pl.Series | None = None
) -> pl.DataFrame:
    """Runs still to compute, with `replaces`: the attempt that a run to be repeated replaces.

    `done` has run_id, attempt of stored ok or diverged runs; `rerun` is a mask over `frame`.
    """
    again = pl.Series([False] * len(frame)) if rerun is None else rerun
    attempts = done.select("run_id", replaces="attempt")
    joined = frame.with_columns(__again=again).join(
        attempts, on="run_id", how="left", maintain_order="left"
    )
    return joined.filter(pl.col("replaces").is_null() | pl.col("__again")).drop("__again")


def pack(frame: pl.DataFrame, widths: Mapping[int, int], units: int | None) -> pl.DataFrame:
    """Give every run its stack and unit; drops stack_key. units None: one unit per stack.

    Runs of a stack key make near-equal stacks, more of them while that fills the units evenly:
    a stack is one tensor program, so too few leave workers idle, too many waste width.
    """
    if frame.is_empty():
        empty = pl.Series([], dtype=pl.Int64)
        return frame.drop("stack_key").with_columns(stack=empty, unit=empty)
    keys, codes = np.unique(frame["stack_key"].to_numpy(), return_inverse=True)
    sizes = np.bincount(codes)
    limits = np.array([widths[int(key)] for key in keys])
    pieces = pieces_per_key(sizes.tolist(), limits.tolist(), units or 1)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    member = np.empty(len(frame), dtype=np.int64)  # position of a run within its stack key
    member[order] = np.arange(len(frame)) - np.repeat(starts, sizes)
    pieces = np.array(pieces)
    within = member * pieces[codes] // sizes[codes]
    raw = (np.concatenate([[0], np.cumsum(pieces)[:-1]]))[codes] + within
    # Stacks are numbered by their first run, so that rows appear in plan order.
    _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    stack = rank[inverse]
    n_units = min(units, len(first)) if units else len(first)
    return (
        frame.drop("stack_key")
        .with_columns(
            stack=pl.Series(stack, dtype=pl.Int64), unit=pl.Series(stack % n_units, dtype=pl.Int64)
        )
        .sort("unit", "stack", "index")
    )


def pieces_per_key(sizes: Sequence[int], limits: Sequence[int], units: int) -> list[int]:
    """Stacks for each stack key, given its runs and the most replicas of a stack.

    For G keys of n runs: p = ceil(n/limit), then p + 1 while G < units, p < n and G p does not
    divide into units. Smaller keys get their share of pieces.
    """
    n = max(sizes)
    p = max(math.ceil(size / limit) for size, limit in zip(sizes, limits, strict=True))
    while len(sizes) < units and p < n and len(sizes) * p % units:
        p += 1
    return [
        min(size, max(math.ceil(size * p / n), math.ceil(size / limit)))
        for size, limit in zip(sizes, limits, strict=True)
    ]


def _refuse_reserved(base: Base) -> None:
    taken = set(base.probe) & set(BOOKKEEPING) - {"experiment"}
    if taken or "experiment" in base.varying:
        key = min(taken, default="experiment")
        raise ValueError(f"{key!r} cannot be a key of a sweep: the store has a column of that name")


def _stack_keys(base: Base, experiment: Experiment) -> np.ndarray:
    """[runs of the base]: number of the stack key, from everything that is no replica key."""
    combined = np.zeros(len(base.rows), dtype=np.int64)
    for group in base.groups:
        texts = [""] * _n_values(group)
        for key, values in group.leaves.items():
            inside = any(key == root or key.startswith(root + ".") for root in group.encoded)
            if inside or not matches(key, experiment.replica_keys):
                texts = [
                    text if value is ABSENT else text + leaf_text(key, value)
                    for text, value in zip(texts, values, strict=True)
                ]
        numbers: dict[str, int] = {}
        codes = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
        combined = combined * len(numbers) + codes[group.codes]
    return np.unique(combined, return_inverse=True)[1]


def _n_values(group: LeafGroup) -> int:
    return len(next(iter(group.leaves.values()), next(iter(group.encoded.values()), [None])))


def _stack_configs(frame: pl.DataFrame, bases: Sequence[Base]):
    """(cfg, rows) for each stack key: a schema instance equal to the key's first run's config."""
    position = np.empty(sum(len(base.rows) for base in bases), dtype=np.int64)
    owner = np.empty(len(position), dtype=np.int64)
    for b, base in enumerate(bases):
        position[base.rows] = np.arange(len(base.rows))
        owner[base.rows] = b
    for rows in frame.partition_by("stack_key", maintain_order=True):
        run = rows["index"][0]
        base = bases[owner[run]]
        for group in base.groups:
            code = int(group.codes[position[run]])
            for key, value in _at(group, code).items():
                set_on(base.instance, key, value)
        yield base.instance, rows


def _at(group: LeafGroup, code: int) -> dict[str, Any]:
    """Root -> value of a group at one of its values; encoded roots nested again."""
    return {
        root: json.loads(group.encoded[root][code])
        if root in group.encoded
        else group.leaves[root][code]
        for root in group.roots
        if root in group.encoded or group.leaves.get(root, [ABSENT])[code] is not ABSENT
    }


def replicas(rows: pl.DataFrame, experiment: Experiment) -> dict[str, list]:
    """The replica keys that vary among rows of one stack key: a value per row; {} for one row."""
    if len(rows) == 1:
        return {}
    names = [name for name in rows.columns if matches(name, experiment.replica_keys)]
    return {name: rows[name].to_list() for name in names if rows[name].n_unique() > 1}


def _texts(values: Sequence[Any], write: Callable[[Any], str]) -> list[str]:
    return ["" if value is ABSENT else write(value) for value in values]


def _column(root: str, group: LeafGroup) -> tuple[pl.Series, bool]:
    """(values of a root, whether they are JSON text): int, float, bool or text; a mapping, a list
    and values of mixed kinds are JSON."""
    if root in group.encoded:
        return pl.Series(group.encoded[root], dtype=pl.String), True
    values = [None if value is ABSENT else value for value in group.leaves[root]]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pl.Series(values, dtype=pl.Float64, strict=False), False
    if len(kinds) > 1:
        texts = [None if value is None else json_text(value) for value in values]
        return pl.Series(texts, dtype=pl.String), True
    return pl.Series(values), False
