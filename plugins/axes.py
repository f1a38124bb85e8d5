"""Axes of a sweep: what the overrides ask for, as distinct values and one code per run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hydra.core.override_parser.types import Override, OverrideType, QuotedString, Transformer

from plugins.registry import UnknownName, did_you_mean


@dataclass(frozen=True)
class Axis:
    """Keys that take their values together: one key, or the members of a zip group."""

    keys: tuple[str, ...]  # as typed, with their + or ~
    elements: tuple[tuple[Any, ...], ...]  # distinct values: one parsed element per key
    swept: bool = True  # false: one value, kept apart because a swept key lies inside or above it

    def lines(self, code: int) -> list[str]:
        """Hydra overrides for the axis's value number `code`."""
        pairs = zip(self.keys, self.elements[code], strict=True)
        return [f"{key}={Transformer.str(element)}" for key, element in pairs]

    def values(self, code: int) -> list[Any]:
        """Plain values, one per key, of the axis's value number `code`."""
        return [plain(element) for element in self.elements[code]]


@dataclass(frozen=True)
class Grid:
    """All runs of a sweep: what is fixed, and for each axis the code of every run's value."""

    fixed: tuple[str, ...]  # override lines
    axes: tuple[Axis, ...]
    codes: tuple[np.ndarray, ...]  # per axis [runs] uint32

    @property
    def n_runs(self) -> int:
        return len(self.codes[0]) if self.codes else 1


def expand(overrides: Sequence[Override], zip_groups: Sequence[Sequence[str]] = ()) -> Grid:
    """The Cartesian product of the swept overrides, the leftmost axis slowest.

    A zip group is one axis that stands where its first member stood. Raises ValueError for zip
    members that are not swept or differ in length, and for sweeps that cannot be enumerated.
    """
    swept = [override for override in overrides if override.is_sweep_override()]
    for override in swept:
        if not override.is_discrete_sweep():
            raise ValueError(
                f"{override.input_line}: an interval cannot be enumerated; use range or choice"
            )
        if not any(True for _ in override.sweep_iterator()):
            raise ValueError(f"{override.input_line}: the axis has no values")
    by_key = {override.get_key_element(): override for override in swept}
    groups = _zip_groups(by_key, zip_groups)
    swept_keys = [override.key_or_group for override in swept]
    fixed, axes = [], []
    for override in overrides:
        key = override.get_key_element()
        if key in by_key:
            members = groups.get(key, (key,))
            if key == members[0]:
                columns = [list(by_key[member].sweep_iterator()) for member in members]
                axes.append(Axis(members, tuple(zip(*columns, strict=True))))
        elif override.type is OverrideType.CHANGE and any(
            related(override.key_or_group, other) for other in swept_keys
        ):
            axes.append(Axis((key,), ((override._value,),), swept=False))
        else:
            fixed.append(override.input_line)
    return Grid(tuple(fixed), tuple(axes), _product([len(axis.elements) for axis in axes]))


def plain(element: Any) -> Any:
    """A parsed element of Hydra's override grammar as a plain Python value."""
    if isinstance(element, QuotedString):
        return element.text
    if isinstance(element, list):
        return [plain(item) for item in element]
    if isinstance(element, dict):
        return {plain(key): plain(value) for key, value in element.items()}
    return element


def related(a: str, b: str) -> bool:
    """Whether two dotted keys are equal or one lies inside the other."""
    return a == b or a.startswith(b + ".") or b.startswith(a + ".")


def _zip_groups(
    by_key: dict[str, Override], zip_groups: Sequence[Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Member -> its group, members in the order of the command line."""
    groups: dict[str, tuple[str, ...]] = {}
    for group in zip_groups:
        text = ",".join(group)
        for key in group:
            if key not in by_key:
                raise UnknownName(
                    f"--zip={text}: {key!r} is not an axis of the sweep{did_you_mean(key, by_key)}"
                )
            if key in groups:
                raise ValueError(f"--zip={text}: {key!r} is zipped twice")
        members = tuple(key for key in by_key if key in group)
        lengths = {key: len(list(by_key[key].sweep_iterator())) for key in members}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {n} values" for key, n in lengths.items())
            raise ValueError(f"--zip={text}: the axes differ in length: {counts}")
        groups |= dict.fromkeys(members, members)
    return groups


def _product(sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
    n, block = math.prod(sizes), 1
    codes = []
    for size in reversed(sizes):
        pattern = np.repeat(np.arange(size, dtype=np.uint32), block)
        codes.append(np.tile(pattern, n // (size * block)))
        block *= size
    return tuple(reversed(codes))
