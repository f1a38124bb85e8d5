"""A report's page as tests read it: tables of texts, captions."""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from analysis.report.__main__ import main


class Page(HTMLParser):
    """tables: under the id of the section, each a list of rows of cell texts; `text` of a section;
    images: their alt texts."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.texts: dict[str, str] = {}
        self.images: list[str] = []
        self.tags: list[str] = []
        self._section, self._in_cell = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if tag == "section":
            self._section = attrs["id"]
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
            self._in_cell = True
        elif tag == "br" and self._in_cell:
            self.handle_data(" ")
        elif tag == "img":
            self.images.append(attrs["alt"])

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.texts[self._section] = self.texts.get(self._section, "") + data
        if self._in_cell:
            self.tables[self._section][-1][-1][-1] += data.strip("\n")


def report_of(store: Path, output: Path, status: int = 0) -> Page:
    assert main([str(store), "-o", str(output)]) == status
    return Page(output.read_text())


def columns_of(table: Sequence[Sequence[str]], *names: str) -> list[tuple[str, ...]]:
    """The rows of some columns."""
    header, *rows = table
    places = [header.index(name) for name in names]
    return [tuple(row[place] for place in places) for row in rows]
