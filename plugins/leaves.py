"""Leaves of nested configs by dotted key."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested config by dotted key. Lists are leaves; empty mappings have none.

    Raises ValueError for a mapping key with a dot in it.
    """
    leaves = {}
    for key, value in config.items():
        key = str(key)
        if "." in key:
            raise ValueError(f"the mapping key {key!r} under {prefix[:-1]!r} has a dot in it")
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def set_leaf(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested plain dict, making the mappings on the way."""
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value


def json_text(value: Any) -> str:
    """A mapping or list of a config as a text column holds it."""
    return json.dumps(value, ensure_ascii=False)
