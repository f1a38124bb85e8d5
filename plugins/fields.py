"""Checks of one field of a schema, for its `__post_init__`: ValueError naming field and value."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any


def at_least(config: Any, name: str, least: int) -> None:
    if getattr(config, name) < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {getattr(config, name)}")


def finite(config: Any, name: str, *, positive: bool = False) -> None:
    """And not negative."""
    value = getattr(config, name)
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        bound = "> 0" if positive else ">= 0"
        raise ValueError(f"{name} must be finite and {bound}, got {value}")


def one_of(config: Any, name: str, known: Sequence[str | None]) -> None:
    value = getattr(config, name)
    if value not in known:
        accepted = ", ".join("null" if option is None else option for option in known)
        close = get_close_matches(str(value), [option for option in known if option], 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name} must be one of {accepted}, got {value!r}{hint}")
