"""The pages from the scripts' commands to ours: keys, names and files in their right columns.

Whole commands are planned and parsed as those of all pages are (tests/test_docs.py).
"""

import importlib
import re

import pytest
from omegaconf import OmegaConf

from plugins import api
from plugins.experiment import experiments
from plugins.leaves import flatten

BASE = {  # family -> the experiment that changes of keys are made to
    "dln": "gph",
    "memdyn": "memdyn",
    "qlora_probe": "qlora_probe",
    "compressor": "compressor",
    "sublora": "sublora",
}
OVERRIDE = re.compile(r"[\w.]+=\S+")
KEY = re.compile(r"(?:data|model|training)\.[a-z_]+")
OF_CHECKOUT = re.compile(r"(?:analysis|conf|dln|plugins)/[\w/]*(?:\.\w+)?")


def right_column(root, family):
    """The code in the last cell of every row of the page's tables."""
    text = (root / f"docs/from_scripts/{family}.md").read_text()
    cells = [row.split("|")[2] for row in text.splitlines() if row.startswith("|")]
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def test_changes_of_keys_are_planned(root, tmp_path, monkeypatch):
    """Composed and checked, not computed; changes of different keys together."""
    planned, sweeps, found = [], [], 0
    monkeypatch.setattr(api, "execute_here", planned.append)
    for family, name in BASE.items():
        first: dict[str, str] = {}
        for change in filter(OVERRIDE.fullmatch, right_column(root, family)):
            found += 1
            key = change.partition("=")[0]
            if first.setdefault(key, change) != change:
                sweeps.append((name, [change]))
        sweeps.append((name, list(first.values())))
    for name, changes in sweeps:
        api.sweep(name, changes, output=tmp_path)
    assert len(planned) == len(sweeps)
    assert found > 20


@pytest.mark.parametrize("family", BASE)
def test_names_keys_files_and_targets_are_there(root, family):
    schemas = [OmegaConf.structured(each.schema) for each in experiments(family)]
    keys = {key for s in schemas for key in flatten(OmegaConf.to_container(s, resolve=False))}
    for code in right_column(root, family):
        if match := re.fullmatch(r"from (\S+) import (.+)", code):
            module = importlib.import_module(match[1])
            assert all(hasattr(module, name) for name in match[2].split(", ")), code
        elif KEY.fullmatch(code):
            assert code in keys, code
        elif OF_CHECKOUT.fullmatch(code):
            assert (root / code).exists(), code
        elif code.startswith("make "):
            assert f"{code.removeprefix('make ')}:" in (root / "Makefile").read_text()
