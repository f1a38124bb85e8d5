"""What a model is asked before and after its fine-tuning, with the checks of its answers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qlora_probe.checkers import (
    Check,
    all_of,
    any_of,
    exact,
    none_of,
    number,
    python_defines,
    word,
)
from qlora_probe.examples import Example
from qlora_probe.tasks import CAPITALS, CLOSERS, FAMILIES

SUITES = ("auto", "minimum", "forgetting", "tiny")
N_PER_FAMILY = 20  # of the tiny suite
_SEED = 20  # of the tiny suite: its questions are part of what is measured, the same in every run


@dataclass(frozen=True)
class Prompt:
    """A question; without a check it is asked for reading only.

    reference is a right answer, the distractors are wrong ones of the same form; the model's
    preference among them shows a loss before an answer flips.
    """

    prompt_id: str
    category: str
    text: str
    check: Check | None
    reference: str | None
    distractors: tuple[str, ...] = ()


def prompts(suite: str, source: str) -> list[Prompt]:
    """The prompts of eval.suite for a model of model.source; their ids differ.

    auto: tiny for the tiny model, else forgetting. minimum: three to read; the tiny model, which
    cannot answer those, gets the tiny suite too. Raises ValueError for an unknown suite.
    """
    if suite not in SUITES:
        raise ValueError(f"eval.suite must be one of {', '.join(SUITES)}, got {suite!r}")
    is_tiny = source == "tiny"
    if suite == "minimum":
        return [*_MINIMUM, *(_tiny() if is_tiny else ())]
    return _tiny() if suite == "tiny" or (suite == "auto" and is_tiny) else list(_FORGETTING)


_MINIMUM = (
    Prompt(
        "explain",
        "explain",
        "Explain to a curious child why the sky looks blue at noon and red in the evening.",
        None,
        None,
    ),
    Prompt(
        "creative",
        "creative",
        "Write a short poem about a lighthouse keeper who collects lost umbrellas.",
        None,
        None,
    ),
    Prompt(
        "advice",
        "advice",
        "List five tips for somebody who is going to give a first talk in public.",
        None,
        None,
    ),
)

# A number is asked for alone, since the last one of the response counts.
_FORGETTING = (
    Prompt(
        "math_product",
        "math",
        "What is 37 times 46? Reply with the number only.",
        number(1702),
        "1702",
        ("1602", "1712", "83"),
    ),
    Prompt(
        "math_percentage",
        "math",
        "What is 35% of 240? Reply with the number only.",
        number(84),
        "84",
        ("72", "8.4", "205"),
    ),
    Prompt(
        "math_rate",
        "math",
        "A pump moves 18 litres of water per minute. How many litres does it move in 45 minutes? "
        "Reply with the number only.",
        number(810),
        "810",
        ("720", "63", "2.5"),
    ),
    Prompt(
        "math_equation",
        "math",
        "Seven times x, minus 12, equals 44. What is x? Reply with the number only.",
        number(8),
        "8",
        ("7", "32", "56"),
    ),
    Prompt(
        "reasoning_syllogism",
        "reasoning",
        "Every violin is an instrument. Some instruments are made of brass. Does it follow that "
        "some violins are made of brass? Reply with yes or no.",
        all_of(any_of(word("no"), word("does not follow")), none_of(word("yes"))),
        "No",
        ("Yes",),
    ),
    Prompt(
        "reasoning_difference",
        "reasoning",
        "A notebook and a pen cost 540 cents together. The notebook costs 500 cents more than the "
        "pen. How many cents does the pen cost? Reply with the number only.",
        number(20),
        "20",
        ("40", "540"),
    ),
    Prompt(
        "reasoning_parallel",
        "reasoning",
        "6 printers take 6 minutes to print 6 posters. How many minutes do 30 printers take to "
        "print 30 posters? Reply with the number only.",
        number(6),
        "6",
        ("30", "1", "5"),
    ),
    Prompt(
        "code_write",
        "code",
        "Write a Python function count_vowels(text) that returns the number of vowels in a text. "
        "Reply with the code only.",
        python_defines("count_vowels"),
        "def count_vowels(text):\n    return sum(letter in 'aeiou' for letter in text.lower())",
        (
            "def count_letters(text):\n    return sum(letter.isalpha() for letter in text.lower())",
            "count_vowels(text) = sum(letter in 'aeiou' for letter in text.lower())",
        ),
    ),
    Prompt(
        "code_read",
        "code",
        "What is the value of this Python expression: sum([k * k for k in range(1, 6) if k % 2])? "
        "Reply with the number only.",
        number(35),
        "35",
        ("20", "55", "9"),
    ),
    Prompt(
        "code_complexity",
        "code",
        "What is the worst-case time complexity, in big-O notation, of a binary search among n "
        "sorted items?",
        any_of(
            word("logarithmic"),
            *(
                word(f"O({log}{argument})")
                for log in ("log", "log2", "log_2", "\\log", "\\log_2")
                for argument in (" n", "(n)")
            ),
        ),
        "O(log n)",
        ("O(n)", "O(n log n)", "O(1)"),
    ),
    Prompt(
        "knowledge_capital",
        "knowledge",
        "What is the capital of Canada?",
        word("Ottawa"),
        "Ottawa",
        ("Toronto", "Montreal", "Vancouver"),
    ),
    Prompt(
        "knowledge_author",
        "knowledge",
        "Who wrote the novel Moby-Dick?",
        word("Melville"),
        "Herman Melville",
        ("Nathaniel Hawthorne", "Mark Twain", "Joseph Conrad"),
    ),
    Prompt(
        "knowledge_year",
        "knowledge",
        "In which year was the Berlin Wall opened?",
        word("1989"),
        "1989",
        ("1961", "1990", "1991"),
    ),
    Prompt(
        "knowledge_science",
        "knowledge",
        "What is the process called by which green plants make sugar from light, water and carbon "
        "dioxide?",
        word("photosynthesis"),
        "Photosynthesis",
        ("Respiration", "Transpiration", "Fermentation"),
    ),
)


def _tiny() -> list[Prompt]:
    """20 different questions of each family; its name is their category."""
    rng = np.random.default_rng(_SEED)
    found = []
    for family, draw in FAMILIES.items():
        examples: dict[Example, None] = {}
        while len(examples) < N_PER_FAMILY:
            examples[draw(rng)] = None
        found += [
            Prompt(
                f"{family}_{i:02}",
                family,
                example.instruction,
                exact(example.answer),
                example.answer,
                tuple(sorted({*_MISTAKES[family](example.answer)} - {example.answer})),
            )
            for i, example in enumerate(examples)
        ]
    return found


def _near_sums(answer: str) -> list[str]:
    return [str(int(answer) + step) for step in (-1, 1) if 0 <= int(answer) + step <= 8]


def _near_reversals(answer: str) -> list[str]:
    """Not reversed; the last two letters, or the first two, in the wrong order."""
    a, b, c, d = answer
    return [answer[::-1], a + b + d + c, b + a + c + d]


def _near_closings(answer: str) -> list[str]:
    """In the order of the opening; the last bracket of another kind."""
    return [answer[::-1], *(answer[:-1] + bracket for bracket in CLOSERS.values())]


def _other_capitals(answer: str) -> list[str]:
    """The next three."""
    capitals = list(CAPITALS.values())
    i = capitals.index(answer)
    return [*capitals, *capitals][i + 1 : i + 4]


_MISTAKES: dict[str, Callable[[str], list[str]]] = {
    "sum": _near_sums,
    "reverse": _near_reversals,
    "close": _near_closings,
    "capital": _other_capitals,
}
