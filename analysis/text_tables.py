"""Tables of text, for reports."""

from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

_WIDE = 1000  # lines are not wrapped


def text_table(rows: Sequence[Mapping[str, str]], indent: str = "") -> str:
    """A line of the keys, and one per row; the first column to the left, the others to the right.

    Spaces around a key are left out: they tell columns of one name apart.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for i, header in enumerate(rows[0]):
        table.add_column(header.strip(), justify="right" if i else "left")
    for row in rows:
        table.add_row(*row.values())
    console = Console(file=StringIO(), width=_WIDE, color_system=None, markup=False)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return "".join(f"{indent}{line.rstrip()}\n" for line in lines)
