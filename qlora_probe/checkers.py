"""Claims about a response, as functions of its text alone: has it the number, word, function?"""

import ast
import re
from collections.abc import Callable, Iterator

Check = Callable[[str], bool]

# Not inside a word or a version ("H2O", "1.2.3"); a hyphen after a letter or digit is no minus; no
# ordinals. The atomic group (?>...) keeps "20th" from matching as 2 and "1,000th" as 1.
_NUMBER = re.compile(
    r"(?<![^\W_])(?<!\d\.)(?P<sign>[-\N{MINUS SIGN}]?)[$€£]?"
    r"(?P<size>(?>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d++)?|(?<!\.)\.\d++)(?!st|nd|rd|th)"
)
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def number(value: float, tol: float = 0.0) -> Check:
    """The last number of the response is within tol of value.

    The last, as conclusions come last: "35% of 240 is 0.35 x 240 = 84" passes for 84. Any number
    would pass a response that goes through candidates, counts to 100 or repeats the question; the
    first is mostly one of the question's. The price is a right answer with an afterthought ("8,
    since 7 x 8 - 12 = 44"), so the prompts ask for the number alone.
    Thousands are grouped by commas; signs of currency and percent and units do not matter ("12%" is
    12); a fraction is two numbers; numbers in words are none.
    """
    return lambda response: any(
        abs(found - value) <= tol for found in list(_numbers(response))[-1:]
    )


def word(text: str) -> Check:
    """The text stands in the response, in any case and with any white space, inside no word."""
    words = r"\s+".join(re.escape(part) for part in text.casefold().split())
    pattern = re.compile(rf"(?<!\w){words}(?!\w)")
    return lambda response: pattern.search(response.casefold()) is not None


def exact(text: str) -> Check:
    """The response is the text, but for white space around it."""
    return lambda response: response.strip() == text


def all_of(*checks: Check) -> Check:
    return lambda response: all(check(response) for check in checks)


def any_of(*checks: Check) -> Check:
    return lambda response: any(check(response) for check in checks)


def none_of(*checks: Check) -> Check:
    """For answers of which a response may hold the opposite too: "Yes, no doubt" is no "no"."""
    return lambda response: not any(check(response) for check in checks)


def python_defines(name: str) -> Check:
    """The response, or one of its fenced code blocks, is Python that defines the function `name`.

    At the top level; parsed, never run. The last block needs no closing fence. Code that was cut
    off in the middle of a statement does not parse and defines nothing.
    """

    def check(response: str) -> bool:
        return any(
            isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name
            for code in (response, *_FENCED.findall(response))
            for statement in _statements(code)
        )

    return check


def _numbers(text: str) -> Iterator[float]:
    for found in _NUMBER.finditer(text):
        size = float(found["size"].replace(",", ""))
        yield -size if found["sign"] else size


def _statements(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # prose; a lone surrogate; "-----..." of a model that repeats itself
