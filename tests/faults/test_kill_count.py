"""The suite kills living processes more than 300 times, at seeded moments of their lives.

Writers 100, compactions 60, merges 60, drivers 32, workers 20, all at once 24, SIGTERM 24: each
test asserts the number of its own.
"""

import importlib
from pathlib import Path


def test_there_are_three_hundred_kills():
    names = [path.stem for path in Path(__file__).parent.glob("test_*.py")]
    modules = [importlib.import_module(name) for name in names]
    assert sum(getattr(module, "KILLS", 0) for module in modules) >= 300
