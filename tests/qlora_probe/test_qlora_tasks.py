"""The tiny model's world: right answers, questions enough, bytes apart."""

from collections import Counter

import numpy as np
import pytest

from qlora_probe.tasks import CAPITALS, FAMILIES, mixed, upper

_ALL = {**FAMILIES, "upper": upper}


def draw(name, n=2000):
    rng = np.random.default_rng(0)
    return [_ALL[name](rng) for _ in range(n)]


def test_answers_of_each_family():
    for example in draw("sum"):
        _, a, b = example.instruction.split(" ")
        assert (0 <= int(a) <= 4, 0 <= int(b) <= 4) == (True, True)
        assert example.answer == str(int(a) + int(b))
    for example in draw("reverse"):
        name, word = example.instruction.split(" ")
        assert (name, len(word), word.isalpha()) == ("reverse", 4, True)
        assert example.answer == "".join(reversed(word))
    for example in draw("close"):
        text = example.instruction.removeprefix("close ") + example.answer
        while (shorter := text.replace("()", "").replace("[]", "").replace("{}", "")) != text:
            text = shorter
        assert text == ""
    for example in draw("capital"):
        assert CAPITALS[example.instruction.split(" ")[-1]] == example.answer
    for example in draw("upper"):
        assert example.answer == example.instruction.removeprefix("upper ").upper()


@pytest.mark.parametrize("name", _ALL)
def test_questions_are_short_ascii_without_the_sign_that_ends_them(name):
    for example in draw(name):
        assert (example.instruction + example.answer).isascii()
        assert "=" not in example.instruction
        assert 1 <= len(example.answer) <= 8
        assert type(example.instruction) is type(example.answer) is str  # not numpy.str_


@pytest.mark.parametrize("name", _ALL)
def test_answer_is_a_function_of_the_question(name):
    examples = set(draw(name))
    assert len({example.instruction for example in examples}) == len(examples)


def test_number_of_questions_of_each_family():
    n = {name: len({example.instruction for example in draw(name)}) for name in _ALL}
    # 2000 draws of 26^4 repeat 4.4 times in the mean: 20 are beyond all chance.
    assert n.pop("reverse") > 1980
    assert n.pop("upper") > 1980
    assert n == {"sum": 25, "close": 81, "capital": 24}


def test_families_have_no_byte_of_the_upper_answers():
    known = {c for name in FAMILIES for e in draw(name) for c in e.instruction + e.answer}
    new = {c for e in draw("upper") for c in e.answer}
    assert len(new) == 26
    assert not new & known
    assert {c for e in draw("upper") for c in e.instruction} <= known


def test_families_take_turns():
    examples = mixed(48, np.random.default_rng(0))
    names = [
        "capital"
        if len(e.answer) > 1 and e.answer in CAPITALS.values()
        else e.instruction.split(" ")[0]
        for e in examples
    ]
    assert Counter(names) == dict.fromkeys(FAMILIES, 12)
    assert names[:4] == list(FAMILIES)


def test_generator_decides():
    first, again, other = (mixed(40, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
