"""The tiny model's world: four families of questions it is pretrained on, a fifth it never saw.

All is ASCII, no instruction holds "=", no answer is longer than 8 bytes, and each family has more
than 20 different questions. The answers are functions of the questions.
"""

from collections.abc import Callable

import numpy as np

from qlora_probe.examples import Example

CAPITALS = {
    "austria": "vienna",
    "cuba": "havana",
    "france": "paris",
    "greece": "athens",
    "italy": "rome",
    "japan": "tokyo",
    "norway": "oslo",
    "peru": "lima",
}
WORDINGS = ("capital {}", "capital of {}", "main city of {}")
CLOSERS = {"(": ")", "[": "]", "{": "}"}
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
N_UPPER = len(_LETTERS) ** 4  # different examples of upper


def sum_digits(rng: np.random.Generator) -> Example:
    """ "sum 3 4" -> "7": two digits of 0..4, 25 questions."""
    a, b = rng.integers(5, size=2)
    return Example(f"sum {a} {b}", str(a + b))


def reverse(rng: np.random.Generator) -> Example:
    """ "reverse abcd" -> "dcba": 26^4 questions, too many to learn by heart."""
    word = _word(rng)
    return Example(f"reverse {word}", word[::-1])


def close(rng: np.random.Generator) -> Example:
    """ "close ([({" -> "})])": four open brackets of three kinds, 81 questions.

    As many brackets as reverse has letters, so both answers read the same places. With one to four
    brackets most seeds of the tiny model had not learned reverse after its 600 steps.
    """
    opened = "".join(rng.choice(list(CLOSERS), size=4))
    return Example(f"close {opened}", "".join(CLOSERS[bracket] for bracket in reversed(opened)))


def capital(rng: np.random.Generator) -> Example:
    """ "capital of france" -> "paris": eight countries asked for in three wordings."""
    country = rng.choice(list(CAPITALS))
    return Example(rng.choice(WORDINGS).format(country), CAPITALS[country])


def upper(rng: np.random.Generator) -> Example:
    """ "upper abcd" -> "ABCD": the fine-tuning task; no family has a byte of its answers."""
    word = _word(rng)
    return Example(f"upper {word}", word.upper())


FAMILIES: dict[str, Callable[[np.random.Generator], Example]] = {
    "sum": sum_digits,
    "reverse": reverse,
    "close": close,
    "capital": capital,
}


def mixed(n: int, rng: np.random.Generator) -> list[Example]:
    """n examples, the families taking turns: any four neighbours are one of each."""
    families = list(FAMILIES.values())
    return [families[i % len(families)](rng) for i in range(n)]


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(_LETTERS, size=4))
