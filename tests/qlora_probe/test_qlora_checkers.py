"""Checkers: whole words and whole numbers, on the last number, on code that parses."""

import pytest

from qlora_probe.checkers import all_of, any_of, exact, none_of, number, python_defines, word


@pytest.mark.parametrize(
    ("value", "response"),
    [
        (1234, "1,234"),
        (1234567.5, "It is 1,234,567.5!"),
        (-3, "x = -3"),
        (-3, "x = \N{MINUS SIGN}3"),
        (12, "12%"),
        (12, "**12**"),
        (12, "\\boxed{12}"),
        (12, "$12$"),
        (5, "$5.00"),
        (-5, "-$5"),
        (5, "That leaves 5."),
        (5, "5"),
        (90, "90km/h"),
        (0.5, ".5"),
        (4.5, "4.50"),
        (5, "from 3-5"),
        (84, "35% of 240 is 0.35 x 240 = 84"),
        (6, "Each takes 6 minutes, and so does the 30th"),
        (5, "v1.2.3 costs 5"),
    ],
)
def test_number_that_the_response_ends_with(value, response):
    assert number(value)(response)


@pytest.mark.parametrize(
    ("value", "response"),
    [
        (5, "15"),
        (5, "50"),
        (5, "5.1"),
        (5, "-5"),
        (5, "1,005"),
        (4.5, "4.50001"),
        (4, "4.5"),
        (234, "1,234"),
        (1, "1,234"),
        (3, "-3"),
        (2, "H2"),
        (20, "in the 20th"),
        (2, "in the 20th"),
        (1, "the 1,000th"),
        (8, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
        (6, "6 printers take 6 minutes, so 30 printers take 30"),
        (5, "five"),
        (5, ""),
        (2, "1.2"),
        (3, "1.2.3"),
    ],
)
def test_number_that_is_not_the_last_or_not_whole(value, response):
    assert not number(value)(response)


def test_number_is_within_its_tolerance():
    check = number(3.1416, tol=0.01)
    assert check("pi is about 3.14")
    assert check("3.15")
    assert not check("3.152")
    assert not check("3.13")
    assert not check("3")


@pytest.mark.parametrize("response", ["no", "No.", "NO!", "(no)", "**No**", "Oh no, never", "no\n"])
def test_word_in_any_case(response):
    assert word("no")(response)
    assert word("No")(response)


@pytest.mark.parametrize("response", ["know", "nobody", "piano", "no_one", "no2", "n o", ""])
def test_word_is_in_no_other_word(response):
    assert not word("no")(response)


def test_words_may_have_signs_and_any_white_space():
    assert word("O(log n)")("It is O(log  n).")
    assert not word("O(log n)")("It is O(n log n).")
    assert word("New York")("new\nyork")
    assert word("STRASSE")("Straße")  # casefold, not lower


def test_exact_but_for_white_space_around():
    assert exact("])")(" ])\n")
    assert not exact("])")("])]")
    assert not exact("])")("] )")
    assert not exact("oslo")("Oslo")


def test_combinations_are_those_of_logic():
    yes, no = word("yes"), word("no")
    for response in ("yes", "no", "yes and no", "perhaps"):
        has_yes, has_no = yes(response), no(response)
        assert all_of(yes, no)(response) == (has_yes and has_no)
        assert any_of(yes, no)(response) == (has_yes or has_no)
        assert none_of(yes, no)(response) == (not has_yes and not has_no)


_CODE = "def twice(x):\n    return 2 * x"


@pytest.mark.parametrize(
    "response",
    [
        _CODE,
        f"\n\n{_CODE}\n",
        f"```python\n{_CODE}\n```",
        f"Sure, here it is:\n\n```\n{_CODE}\n```\nIt doubles x.",
        f"```py\n{_CODE}",
        f"```\npip install x y\n```\nthen\n```python\n{_CODE}\n```",
        f"import math\n\nasync {_CODE}",
    ],
)
def test_response_defines_the_function(response):
    assert python_defines("twice")(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "def twice(x): multiplies x by two",
        "def twice(x)\n    return 2 * x",
        "def twice(x):",
        "# def twice(x): return 2 * x",
        "'def twice(x): return 2 * x'",
        "twice = 2",
        "def twice_(x):\n    return 2 * x",
        "class A:\n    def twice(self): ...",
        f"Sure: {_CODE}",
        "```python\ndef twice(x):\n    return 2 *",
        "-" * 5000 + "1",
        "\ud800",
    ],
)
def test_response_defines_no_such_function(response):
    assert not python_defines("twice")(response)


def test_code_is_not_run():
    assert python_defines("twice")(f"raise SystemExit\n{_CODE}")
