"""Cells and tables of a report's page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis.curves import value_text

MOST_ROWS = 1_000  # of a table
MOST_LISTED = 12  # values of a key
# Seconds below which a unit is used, seconds of the unit, its name.
_UNITS = ((1e-3, 1e-6, "us"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"))


class Cell(NamedTuple):
    """What a table shows, and the number it is sorted by, if it is one."""

    text: str
    number: float | int | None = None


@dataclass(frozen=True)
class Table:
    """Header and rows of cells.

    units: a second line of each header, if any. more: what is left out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    more: str = ""
    units: Sequence[str] = ()
    name: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column has a number: it then stands to the right."""
        cells = zip(*self.rows, strict=True)
        return [any(cell.number is not None for cell in column) for column in cells]


def number(value: float | int | None, form: Callable[[Any], str] | None = None) -> Cell:
    """Four digits; nothing for null and nan."""
    if value is None or value != value:
        return Cell("")
    if form:
        return Cell(form(value), value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return Cell(text, value)


def of_value(value: Any) -> Cell:
    """A config key's value: exact; numbers are sorted as such."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(value_text(value), value if is_number and value == value else None)


def duration(seconds: float) -> str:
    """'1.5 ms', '12 s', '3.4 min', '7.1 h'"""
    for limit, unit, name in _UNITS:
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 3600:,.4g} h" if seconds < 1000 * 3600 else f"{seconds / 3600:,.0f} h"


def number_or_text(value: Any) -> str:
    return number(value).text if isinstance(value, float) else value_text(value)


def more_rows(n: int, what: str) -> str:
    """What a table of `n` rows, of which it has the first MOST_ROWS, leaves out."""
    return f"The first {MOST_ROWS:,} of {n:,} {what}." if n > MOST_ROWS else ""


def some(texts: Sequence[str]) -> list[str]:
    """The first MOST_LISTED, and how many more there are."""
    more = [f"and {len(texts) - MOST_LISTED:,} more"] if len(texts) > MOST_LISTED else []
    return [*texts[:MOST_LISTED], *more]
