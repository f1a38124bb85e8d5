"""Instructions with their answers: what a run trains on, by the name of the source."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plugins.lm.hub import train_rows

SOURCES = ("synthetic", "jsonl", "alpaca")


@dataclass(frozen=True)
class Example:
    instruction: str
    answer: str


def check_source(source: str, path: str | None) -> None:
    """Raises ValueError for what can be known to fail without reading a file or asking the hub."""
    if source not in SOURCES:
        raise ValueError(f"data.source must be one of {', '.join(SOURCES)}, got {source!r}")
    if path is not None and source != "jsonl":
        raise ValueError(f"data.path={path}: data.source={source} takes none (null)")
    if source == "jsonl":
        if path is None:
            raise ValueError(
                "data.source=jsonl needs data.path: a file of JSON objects, one a line"
            )
        if not Path(path).expanduser().is_file():
            raise ValueError(f"data.path={path}: no such file")


def load_examples(source: str, path: str | None, n: int, seed: int) -> list[Example]:
    """At most n different examples; the first n of a permutation by `seed` where there are more.

    synthetic: the tiny model's fifth task, made from `seed`. jsonl: objects with the texts
    instruction, output and perhaps input, one a line. alpaca: 52,002 instructions (Taori et al.
    2023) from the hub, but for the few whose output is empty. Raises ValueError for a source or
    path that check_source refuses and for a bad file, OSError for a hub that cannot be read.
    """
    check_source(source, path)
    if source == "synthetic":
        return _synthetic(n, seed)
    found = _jsonl(path) if source == "jsonl" else _alpaca()
    # The same example on both sides of a split would be no held-out one.
    examples = list(dict.fromkeys(found))
    if not examples:
        raise ValueError(f"data.path={path}: no example there")
    if len(examples) <= n:
        return examples
    order = np.random.default_rng(seed).permutation(len(examples))
    return [examples[i] for i in order[:n]]


def n_with_held_out(n_train: int) -> int:
    """How many examples to load for `n_train` training ones: a ninth as many more, rounded up."""
    return n_train + -(-n_train // 9)


def split(examples: list[Example], seed: int = 42) -> tuple[list[Example], list[Example]]:
    """(train, held out): nine tenths, rounded down, of a permutation by `seed`, and the others.

    Of n_with_held_out(n) examples n are for training and ceil(n/9) held out; a shorter source keeps
    the proportion. Raises ValueError where a side would be empty: fewer than 2 examples.
    """
    n_train = len(examples) * 9 // 10
    if n_train == 0:
        raise ValueError(
            f"data.n_examples: {len(examples)} example{'s' * (len(examples) != 1)} in the source "
            "cannot be split, training and held-out text need one each"
        )
    order = np.random.default_rng(seed).permutation(len(examples))
    shuffled = [examples[i] for i in order]
    return shuffled[:n_train], shuffled[n_train:]


def _synthetic(n: int, seed: int) -> list[Example]:
    from qlora_probe import tasks  # makes Examples, so it imports this module

    rng = np.random.default_rng(seed)
    found: dict[Example, None] = {}
    while len(found) < min(n, tasks.N_UPPER):
        found[tasks.upper(rng)] = None
    return list(found)


def _jsonl(path: str) -> Iterator[Example]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path={path} is not UTF-8: {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):  # U+2028 ends no line
        if not line.strip():
            continue
        try:
            yield _example(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"data.path={path}, line {number}: no JSON: {error}") from None
        except ValueError as error:
            raise ValueError(f"data.path={path}, line {number}: {error}") from None


def _example(entry: Any) -> Example:
    """Instruction and input joined by a blank line; an input of null or white space is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("not an object with the keys instruction and output")
    texts = {"input": "", **{key: value for key, value in entry.items() if value is not None}}
    for key in ("instruction", "input", "output"):
        if key not in texts:
            raise ValueError(f"the key {key} is missing")
        if not isinstance(texts[key], str):
            raise ValueError(f"{key} is no text: {json.dumps(texts[key])}")
    for key in ("instruction", "output"):
        if not texts[key].strip():
            raise ValueError(f"{key} is empty")
    parts = texts["instruction"], texts["input"]
    return Example("\n\n".join(part for part in parts if part.strip()), texts["output"])


def _alpaca() -> Iterator[Example]:
    instead = "data.source=synthetic, or data.source=jsonl data.path=<your file>"
    columns = ("instruction", "input", "output")
    for row in train_rows("tatsu-lab/alpaca", None, columns, instead):
        if row["output"].strip():
            yield _example(row)
