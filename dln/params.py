"""Checks of the parameters that a config gives to a plugin: integers and numbers in a range."""

import math
from numbers import Integral, Real
from typing import Any


def require_int(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int; ValueError unless it is an integer (no bool) in least..most."""
    inside = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
    if not inside or (most is not None and value > most):
        accepted = f">= {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{name} must be an integer {accepted}, got {value!r}")
    return int(value)


def require_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    below: float = math.inf,
    *,
    exclusive: bool = False,
) -> float:
    """`value` as a float; ValueError unless it is finite and in [least, below), or (least, below).

    `exclusive` takes `least` itself out.
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least or value >= below or (exclusive and value == least):
        accepted = "finite"
        if least > -math.inf:
            accepted += f" and {'>' if exclusive else '>='} {least:g}"
        if below < math.inf:
            accepted += f" and < {below:g}"
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return float(value)
