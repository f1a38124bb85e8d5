"""Run identity: the canonical text of a resolved config and the hash that names a run.

The text is one JSON object over the dotted leaves, keys sorted, `"version"` last; leaves that are
null, execution keys, or a later field at its neutral value are left out, so that adding such a
field renames no stored run. run_id = blake2b(text, digest_size=8).
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, get_type_hints

import numpy as np

from plugins.experiment import Experiment
from plugins.leaves import flatten

_CHUNK = 50_000  # runs hashed at once: bounds the memory of the joined fragments


@dataclass(frozen=True)
class Slots:
    """Leaves that vary together: their fragments for each of the group's values.

    `fragments[key][v]` is the text of leaf `key` at value v (empty: left out); `codes[r]` is the
    value of run r.
    """

    fragments: Mapping[str, Sequence[str]]
    codes: np.ndarray  # [runs] uint32


def run_id(config: Mapping[str, Any], experiment: Experiment) -> str:
    """16 hex digits for a resolved, nested config. Raises ValueError for nan or infinite leaves."""
    texts = fragments(flatten(config), experiment)
    return _hex(_head(texts) + _tail(experiment))


def run_ids(fixed: Mapping[str, str], groups: Sequence[Slots], experiment: Experiment) -> list[str]:
    """The run_id of every run of a frame, by splicing fragments into the fixed text.

    `fixed` holds the fragments of the leaves that no group varies. Same ids as `run_id`, at about
    1.5 us a run: text before a slot is glued to its fragments, the first slot's hash state is
    copied instead of computed.
    """
    owner = {key: g for g, group in enumerate(groups) for key in group.fragments}
    slots: list[tuple[int, list[str]]] = []  # (group, text for each of its values)
    pending = "{"
    for key in sorted([*fixed, *owner]):
        if key in fixed:
            pending += fixed[key]
            continue
        texts = groups[owner[key]].fragments[key]
        if slots and slots[-1][0] == owner[key]:
            joined = zip(slots[-1][1], texts, strict=True)
            slots[-1] = (owner[key], [before + pending + text for before, text in joined])
        else:
            slots.append((owner[key], [pending + text for text in texts]))
        pending = ""
    tail = pending + _tail(experiment)
    if not slots:
        return [_hex(tail)]
    last_group, last = slots[-1]
    slots[-1] = (last_group, [text + tail for text in last])
    heads = [hashlib.blake2b(text.encode(), digest_size=8) for text in slots[0][1]]
    rests = [[text.encode() for text in texts] for _, texts in slots[1:]]
    codes = [groups[g].codes for g, _ in slots]
    ids: list[str] = []
    for start in range(0, len(codes[0]), _CHUNK):
        chunk = [column[start : start + _CHUNK].tolist() for column in codes]
        for head, *parts in zip(*chunk, strict=True):
            state = heads[head].copy()
            state.update(b"".join([rest[code] for rest, code in zip(rests, parts, strict=True)]))
            ids.append(state.hexdigest())
    return ids


def fragments(leaves: Mapping[str, Any], experiment: Experiment) -> dict[str, str]:
    """`"key":value,` for each leaf; empty where the leaf does not count for identity."""
    return {key: fragment_writer(key, experiment)(value) for key, value in leaves.items()}


def fragment_writer(key: str, experiment: Experiment) -> Callable[[Any], str]:
    """The function value -> fragment of one leaf: `"key":value,`, or empty where it is left out."""
    if matches(key, experiment.execution_keys):
        return lambda value: ""
    neutral = neutral_values(experiment.schema).get(key)
    return lambda value: "" if value is None or value == neutral else leaf_text(key, value)


def leaf_text(key: str, value: Any) -> str:
    """`"key":value,` in canonical JSON. Raises ValueError for nan and infinities."""
    return f"{canonical_json(key, key)}:{canonical_json(value, key)},"


def canonical_json(value: Any, key: str) -> str:
    """JSON with sorted keys, minimal separators, UTF-8; `key` names the leaf in errors."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}={value}: a config value must be finite")
    try:
        return json.dumps(
            _string_keys(value),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
    except ValueError as error:
        raise ValueError(f"{key}={value}: a config value must be finite") from error


@cache
def neutral_values(schema: type) -> dict[str, Any]:
    """Dotted key -> value at which a field added later is left out of the id."""
    found = {}
    hints = get_type_hints(schema)
    for field in fields(schema):
        if "neutral" in field.metadata:
            found[field.name] = field.metadata["neutral"]
        if is_dataclass(nested := hints[field.name]):
            found |= {f"{field.name}.{key}": v for key, v in neutral_values(nested).items()}
    return found


def matches(key: str, patterns: frozenset[str]) -> bool:
    """Whether a dotted key fits one of the fnmatch patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _head(texts: Mapping[str, str]) -> str:
    return "{" + "".join(texts[key] for key in sorted(texts))


def _tail(experiment: Experiment) -> str:
    return f'"version":{experiment.version}}}'


def _hex(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _string_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _string_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_string_keys(item) for item in value]
    return value
