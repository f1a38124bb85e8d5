"""From axes to configs: what Hydra composes once, and the leaves that vary as columns of values.

Hydra needs about 100 ms for a config. So it composes one base per distinct set of group choices and
`+`/`~` edits; plain values are applied to that base, each distinct value once.
"""

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.nodes import (
    ValueNode,
)

from plugins.axes import Axis, Grid, plain, related
from plugins.instances import first_line, instantiate, node_at, with_path
from plugins.interpolation import Reads, dependents, reads_of
from plugins.leaves import flatten, json_text
from plugins.registry import UnknownName, did_you_mean

ABSENT = object()  # a leaf that a value of its group does not have
_MOST_JOINT_VALUES = 100_000
_SCALARS = (int, float, str, bool)


@dataclass(frozen=True)
class LeafGroup:
    """Leaves that vary together, for every combination of values of the axes behind them.

    `roots` are the keys that vary: leaves, or mappings and lists (`encoded`: their JSON text, one
    per value). `leaves[key][v]` is the resolved value of a leaf at or below a root.
    """

    roots: tuple[str, ...]
    leaves: dict[str, list[Any]]
    encoded: dict[str, list[str]]
    codes: np.ndarray  # [runs of the base] uint32


@dataclass(frozen=True)
class Base:
    """One config as Hydra composed it, the runs that start from it, and what varies among them."""

    probe: dict[str, Any]  # nested, resolved, at the first value of every axis
    instance: Any  # of the schema, equal to probe
    rows: np.ndarray  # runs of the grid
    groups: tuple[LeafGroup, ...]
    varying: tuple[str, ...]  # roots of the groups: the keys given, in their order, then dependents

    def fixed_leaves(self) -> dict[str, Any]:
        leaves = flatten(self.probe)
        return {
            key: value
            for key, value in leaves.items()
            if not any(related(key, root) for root in self.varying)
        }

    def fixed_part(self) -> dict[str, Any]:
        """The probe without what varies, nested."""
        part = copy.deepcopy(self.probe)
        for root in self.varying:
            *path, last = root.split(".")
            node = part
            for key in path:
                node = node[key]
            node.pop(last, None)
        return part


def compose(
    grid: Grid,
    hydra_compose: Callable[[list[str]], DictConfig],
    is_group: Callable[[str], bool],
    schema_of: Callable[[DictConfig], type],
) -> list[Base]:
    """The bases of a grid. `hydra_compose` gives the config (without its hydra node) of a list of
    overrides; `is_group` says whether a key is a config group.

    Raises UnknownName for keys that no config has, ValueError for values that the schema refuses
    and for keys inside a mapping that is inherited as a whole.
    """
    fixed = list(grid.fixed)
    composed, applied = [], []  # axes whose values Hydra composes, axes whose values are columns
    for i, axis in enumerate(grid.axes):
        if any(key[0] in "+~" or "@" in key or is_group(key) for key in axis.keys):
            composed.append(i)
        elif axis.swept or _touches_an_axis_of_values(axis, grid, is_group):
            applied.append(i)
        else:
            fixed += axis.lines(0)
    bases = []
    for combination, rows in _combinations([grid.codes[i] for i in composed], grid.n_runs):
        lines = [*fixed]
        for i, code in zip(composed, combination, strict=True):
            lines += grid.axes[i].lines(code)
        config = hydra_compose(lines)
        for line in lines:
            _refuse_inherited(config, line.partition("=")[0].lstrip("+~"))
        axes = [grid.axes[i] for i in applied]
        codes = [grid.codes[i][rows] for i in applied]
        bases.append(_base(config, axes, codes, rows, schema_of(config)))
    return bases


def _touches_an_axis_of_values(axis: Axis, grid: Grid, is_group: Callable[[str], bool]) -> bool:
    return any(
        other.swept and key[0] not in "+~" and not is_group(key) and related(key, axis.keys[0])
        for other in grid.axes
        for key in other.keys
    )


def _base(
    config: DictConfig,
    axes: Sequence[Axis],
    codes: Sequence[np.ndarray],
    rows: np.ndarray,
    schema: type,
) -> Base:
    keys = {key for axis in axes for key in axis.keys}
    for key in keys:
        _require_key(config, key)
    first = [(axis, 0) for axis in axes]
    probe = _resolved(_applied(config, first))
    instance = instantiate(probe, schema)
    reads = _reads(config, axes)
    roots = []
    for axis in axes:
        own = list(dict.fromkeys(_owner(config, key) for key in axis.keys))
        roots.append(own + dependents(reads, own))
    groups = []
    for members in _joined(roots):
        # The others stand at their first values: a config may need one of them to be valid.
        others = _applied(config, [pick for i, pick in enumerate(first) if i not in members])
        own_axes, own_codes = [axes[i] for i in members], [codes[i] for i in members]
        own_roots = _topmost([root for i in members for root in roots[i]])
        groups.append(_group(others, own_axes, own_codes, own_roots, schema, instance))
    given = [_owner(config, key) for axis in axes for key in axis.keys]
    found = [root for group in groups for root in group.roots]
    varying = [key for key in dict.fromkeys([*given, *found]) if key in found]
    return Base(probe, instance, rows, tuple(groups), tuple(varying))


def _reads(config: DictConfig, axes: Sequence[Axis]) -> Reads:
    """What each leaf may read, by the config's own interpolations and by the axes' values."""
    reads = {key: set(keys) for key, keys in reads_of(_raw(config)).items()}
    for axis in axes:
        for elements in axis.elements:
            for key, element in zip(axis.keys, elements, strict=True):
                if isinstance(element, int | float | None):
                    continue
                for leaf, keys in reads_of(plain(element), key).items():
                    reads.setdefault(_owner(config, leaf), set()).update(keys)
    return reads


def _raw(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=False)


def _group(
    config: DictConfig,
    axes: list[Axis],
    codes: list[np.ndarray],
    roots: tuple[str, ...],
    schema: type,
    instance: Any,
) -> LeafGroup:
    sizes = [len(axis.elements) for axis in axes]
    n_values = math.prod(sizes)
    if n_values > _MOST_JOINT_VALUES and len(axes) > 1:
        keys = ", ".join(key for axis in axes for key in axis.keys)
        raise ValueError(
            f"{keys} act on the same leaves: their {n_values} combinations would each be composed "
            f"(at most {_MOST_JOINT_VALUES})"
        )
    code = np.ravel_multi_index(codes, sizes).astype(np.uint32)
    columns = _scalar_columns(config, axes, roots, instance)
    if columns is not None:
        return LeafGroup(roots, columns, {}, code)
    resolved = []
    for value in range(n_values):
        picks = np.unravel_index(value, sizes)
        whole = _resolved(_applied(config, list(zip(axes, map(int, picks), strict=True))))
        instantiate(whole, schema)
        resolved.append(whole)
    per_value = [
        {k: v for k, v in flatten(whole).items() if any(related(k, root) for root in roots)}
        for whole in resolved
    ]
    names = dict.fromkeys(key for leaves in per_value for key in leaves)
    columns = {key: [leaves.get(key, ABSENT) for leaves in per_value] for key in names}
    selected = {root: [_select(whole, root) for whole in resolved] for root in roots}
    encoded = {
        root: [json_text(value) for value in values]
        for root, values in selected.items()
        if any(isinstance(value, dict | list) for value in values)
    }
    return LeafGroup(roots, columns, encoded, code)


def _scalar_columns(
    config: DictConfig, axes: list[Axis], roots: tuple[str, ...], instance: Any
) -> dict[str, list[Any]] | None:
    """The columns of one axis whose keys are scalar leaves that others at most copy, converted by
    the schema's nodes (2 us a value); None when the group needs the general way."""
    if len(axes) != 1 or not set(axes[0].keys) <= set(roots):
        return None
    sources = _copied(config, axes[0].keys, roots)
    if len(sources) < len(roots):
        return None
    columns = {}
    for key in roots:
        j = axes[0].keys.index(sources[key])
        values = [plain(element[j]) for element in axes[0].elements]
        node = node_at(config, key)
        if not isinstance(node, ValueNode) or not all(_is_plain_scalar(value) for value in values):
            return None
        columns[key] = [_converted(node, key, value) for value in values]
    for key, values in columns.items():
        *path, name = key.split(".")
        owner = instance
        for part in path:
            owner = owner[part] if isinstance(owner, dict) else getattr(owner, part)
        if hasattr(owner, "__post_init__"):
            _check_values(copy.copy(owner), ".".join(path), name, values)
    return columns


def _copied(config: DictConfig, keys: Sequence[str], roots: Sequence[str]) -> dict[str, str]:
    """Leaf -> the one of `keys` whose value it has: itself, or along `${key}` and nothing else."""
    sources = dict(zip(keys, keys, strict=True))
    grown = True
    while grown:
        grown = False
        for root in roots:
            node = node_at(config, root)
            text = node._value() if isinstance(node, ValueNode) else None
            whole = re.fullmatch(r"\$\{([\w.]+)\}", text) if isinstance(text, str) else None
            if root not in sources and whole and whole[1] in sources:
                sources[root] = sources[whole[1]]
                grown = True
    return sources


def _check_values(owner: Any, prefix: str, name: str, values: list[Any]) -> None:
    for value in values:
        setattr(owner, name, value)
        with_path(owner.__post_init__, prefix)


def _converted(node: ValueNode, key: str, value: Any) -> Any:
    if value is None:
        if not node._is_optional():
            raise ValueError(f"{key}=null: this key takes no null")
        return None
    try:
        return node.validate_and_convert(value)
    except OmegaConfBaseException as error:  # its text is a template until a container fills it
        text = first_line(error).replace("$VALUE_TYPE", type(value).__name__)
        raise ValueError(f"{key}={value}: {text.replace('$VALUE', str(value))}") from None


def _applied(config: DictConfig, picks: Sequence[tuple[Axis, int]]) -> DictConfig:
    """A copy with the axes' values set, as Hydra applies overrides."""
    config = copy.deepcopy(config)
    for axis, code in picks:
        for key, value in zip(axis.keys, axis.values(code), strict=True):
            try:
                OmegaConf.update(config, key, value, merge=True)
            except OmegaConfBaseException as error:
                raise ValueError(f"{key}={value}: {first_line(error)}") from error
    return config


def _resolved(config: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or 'config'}: {first_line(error)}") from error


def _require_key(config: DictConfig, key: str) -> None:
    node: Any = config
    for part in key.split("."):
        index = int(part) if OmegaConf.is_list(node) and part.isdecimal() else part
        inside = OmegaConf.is_config(node) and bool(node)
        node = node._get_node(index, validate_access=False) if inside else None
        if node is None:
            known = flatten(OmegaConf.to_container(config, resolve=False))
            raise UnknownName(
                f"no key {key!r} in this experiment{did_you_mean(key, known)}; +{key}=... adds one"
            )


def _refuse_inherited(config: DictConfig, key: str) -> None:
    """OmegaConf sets a key inside `${...}` in the mapping read there, for all its readers."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        parent = ".".join(parts[:n])
        node = node_at(config, parent)
        if OmegaConf.is_config(node) and node._is_interpolation():
            raise ValueError(
                f"{key}: {parent} is inherited ({node._value()}); set all of it, "
                f"+{parent}={{{'.'.join(parts[n:])}: ...}}, or the key in the mapping inherited"
            )


def _owner(config: DictConfig, key: str) -> str:
    """The key itself, or the list that it lies in: a list is one leaf."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        if OmegaConf.is_list(node_at(config, ".".join(parts[:n]))):
            return ".".join(parts[:n])
    return key


def _joined(roots: Sequence[Sequence[str]]) -> list[list[int]]:
    """Axes grouped so that no leaf is reached from two groups; in order of their first axis."""
    groups: list[list[int]] = []
    for i, own in enumerate(roots):
        touching = [
            group
            for group in groups
            if any(related(a, b) for j in group for a in roots[j] for b in own)
        ]
        groups = [group for group in groups if group not in touching]
        groups.append(sorted([i, *(j for group in touching for j in group)]))
    return sorted(groups)


def _topmost(roots: Sequence[str]) -> tuple[str, ...]:
    unique = dict.fromkeys(roots)
    return tuple(
        root for root in unique if not any(root.startswith(other + ".") for other in unique)
    )


def _combinations(codes: list[np.ndarray], n_runs: int) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Distinct combinations of codes in first-seen order, with the runs that have each."""
    if not codes:
        return [((), np.arange(n_runs))]
    table = np.stack(codes, axis=1)
    distinct, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [
        (tuple(int(c) for c in distinct[k]), np.flatnonzero(inverse == k))
        for k in np.argsort(first, kind="stable")
    ]


def _select(nested: dict[str, Any], key: str) -> Any:
    node: Any = nested
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _is_plain_scalar(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):  # interpolations and "???" need the general way
        return "$" not in value and value != "???"
    return type(value) in _SCALARS
