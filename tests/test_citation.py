"""CITATION.cff and the page of origins: complete, and one with what they are about."""

import re
import tomllib

import yaml

REQUIRED = {"cff-version", "message", "title", "authors"}  # of CFF 1.2.0
FAMILIES = ("dln", "memdyn", "qlora_probe", "compressor", "sublora")
NAMES = r"[A-ZÉ][\w'-]+(?:, [A-ZÉ][\w'-]+)*(?:,? (?:&|and) [A-ZÉ][\w'-]+| et al\.)?"


def test_the_citation_is_of_this_version(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert citation.keys() >= REQUIRED
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    for key, ours in (("title", "name"), ("version", "version"), ("license", "license")):
        assert citation[key] == project[ours]
    [holder] = re.findall(r"Copyright \(c\) \d+ (.+)", (root / "LICENSE").read_text())
    assert holder.lower() == citation["authors"][0]["name"].lower()
    for reference in citation["references"]:
        assert reference.keys() >= {"type", "title", "authors", "year"}
        for author in reference["authors"]:
            assert author.keys() == {"family-names", "given-names"}


def cited(path):
    """(author, year) of what docstrings and comments of a file cite: `Name ... 2014`."""
    for names, year in re.findall(rf"({NAMES}),? \(?((?:19|20)\d\d)\b", path.read_text()):
        yield re.match(r"[\w'-]+", names)[0], year


def test_what_the_code_cites_is_on_the_page_of_origins(root):
    page = (root / "docs/origins.md").read_text()
    entries = [line for line in page.splitlines() if line.startswith("- ")]
    found, missing = set(), set()
    for family in FAMILIES:
        for path in root.glob(f"{family}/**/*.py"):
            for author, year in cited(path):
                found.add((author, year))
                if not any(author in entry and year in entry for entry in entries):
                    missing.add((path.name, author, year))
    assert missing == set()
    assert len(found) > 40
