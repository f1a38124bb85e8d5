"""Generated derivations: every number in them is right."""

import re
from itertools import islice

import pytest

from compressor.column_arithmetic import derivation
from plugins.lm.corpora import check_corpus, iter_corpus
from plugins.registry import UnknownName

PLACES = ["ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands", "millions"]
STEP = re.compile(
    r"(?P<place>[a-z ]+): (?P<x>\d) (?P<sign>[+x-]) (?P<y>\d)(?: (?P<kept_sign>[+-]) (?P<kept>\d))?"
    r" = (?P<total>-?\d+)(?:, plus 10 is (?P<lifted>\d))?"
    r", write (?P<digit>\d), (?P<word>carry|borrow) (?P<carry>\d)"
)
TEXT = re.compile(
    r"Question: what is (\d+) ([+x-]) (\d+)\?\n<think>\nColumn by column, from the right\.\n"
    r"(.+?\n)(?:left: write (\d)\n)?The digits are (\d+), so the result is (\d+)\.\n</think>\n"
    r"Answer: (\d+)\n",
    re.DOTALL,
)


def texts(n, seed):
    return [document.text for document in islice(iter_corpus("column_arithmetic", seed=seed), n)]


def kept(a, sign, b, j):
    """What enters column j, from the numbers' last j digits: no recursion over columns."""
    a_end, b_end = a % 10**j, b % 10**j
    if sign == "-":
        return int(a_end < b_end)
    return (a_end + b_end if sign == "+" else a_end * b) // 10**j


def check(text):
    a, sign, b, steps, left, digits, result, answer = TEXT.fullmatch(text).groups()
    a, b = int(a), int(b)
    right = {"+": a + b, "-": a - b, "x": a * b}[sign]
    assert int(digits) == int(result) == int(answer) == right
    steps = steps.splitlines()
    n = len(str(a))
    assert len(steps) == n
    for j, line in enumerate(steps):
        step = STEP.fullmatch(line)
        x, y = a // 10**j % 10, b if sign == "x" else b // 10**j % 10
        enters, leaves = kept(a, sign, b, j), kept(a, sign, b, j + 1)
        total = {"+": x + y + enters, "-": x - y - enters, "x": x * y + enters}[sign]
        assert step["place"] == PLACES[j]
        assert (int(step["x"]), step["sign"], int(step["y"])) == (x, sign, y)
        assert int(step["kept"] or 0) == enters
        assert step["kept_sign"] == (("-" if sign == "-" else "+") if enters else None)
        assert int(step["total"]) == total
        assert step["lifted"] == (str(total + 10) if total < 0 else None)
        assert int(step["digit"]) == int(digits[::-1][j]) == right // 10**j % 10
        assert step["word"] == ("borrow" if sign == "-" else "carry")
        assert int(step["carry"]) == leaves
    assert left == (str(kept(a, sign, b, n)) if len(digits) > n else None)
    return sign


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_every_digit_and_carry_is_right(seed):
    signs = [check(text) for text in texts(300, seed)]
    assert min(signs.count(sign) for sign in "+-x") > 60  # of 100 +- 8


@pytest.mark.parametrize(
    ("a", "sign", "b"),
    [(999, "+", 999), (999, "+", 1), (1000, "-", 1), (1000000, "-", 999999), (500, "-", 500),
     (9999999, "x", 9), (100, "x", 2), (10203, "+", 90807)],
)  # fmt: skip
def test_carries_and_borrows_through_every_column(a, sign, b):
    check(derivation(a, sign, b))


def test_text_in_full():
    assert derivation(104, "-", 96) == (
        "Question: what is 104 - 96?\n<think>\nColumn by column, from the right.\n"
        "ones: 4 - 6 = -2, plus 10 is 8, write 8, borrow 1\n"
        "tens: 0 - 9 - 1 = -10, plus 10 is 0, write 0, borrow 1\n"
        "hundreds: 1 - 0 - 1 = 0, write 0, borrow 0\n"
        "The digits are 008, so the result is 8.\n</think>\nAnswer: 8\n"
    )


def test_one_thinking_span_in_ascii_of_a_few_hundred_characters():
    for text in texts(500, 7):
        assert text.isascii()
        assert [text.count(marker) for marker in ("<think>", "</think>")] == [1, 1]
        assert text.index("<think>") < text.index("</think>")
        assert 200 <= len(text) <= 600


def test_stream_by_seed():
    assert texts(50, 0) == texts(50, 0)
    assert not set(texts(50, 0)) & set(texts(50, 1))
    assert texts(50, 0)[:10] == texts(10, 0)
    assert len(set(texts(2000, 0))) > 1950  # a x b of 900 x 8 questions of three digits may recur
    ids = [document.doc_id for document in islice(iter_corpus("column_arithmetic"), 50)]
    assert len(set(ids)) == 50


def test_takes_no_path():
    check_corpus("column_arithmetic", None, None)
    with pytest.raises(UnknownName, match=r"data\.corpus=column_arithmetic: .*parameter 'path'"):
        check_corpus("column_arithmetic", "x.jsonl", None)
