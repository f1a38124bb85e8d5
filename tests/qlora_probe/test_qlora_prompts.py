"""Prompts: each reference passes its own check, each distractor fails it, the answers are right."""

import math
from collections import Counter

import pytest

from qlora_probe.prompts import SUITES, prompts

FORGETTING = {prompt.prompt_id: prompt for prompt in prompts("forgetting", "hf")}
CHECKED = [*FORGETTING.values(), *prompts("tiny", "tiny")]


def test_sizes_of_the_suites():
    forgotten = Counter(prompt.category for prompt in FORGETTING.values())
    assert forgotten == {"math": 4, "reasoning": 3, "code": 3, "knowledge": 4}
    tiny = Counter(prompt.category for prompt in prompts("tiny", "hf"))
    assert tiny == {"sum": 20, "reverse": 20, "close": 20, "capital": 20}
    assert [p.prompt_id for p in prompts("minimum", "hf")] == ["explain", "creative", "advice"]
    assert len(prompts("minimum", "tiny")) == 83


def test_auto_follows_the_model():
    for source, suite in (("tiny", "tiny"), ("smollm2", "forgetting"), ("hf", "forgetting")):
        ids = [prompt.prompt_id for prompt in prompts("auto", source)]
        assert ids == [prompt.prompt_id for prompt in prompts(suite, source)]


def test_unknown_suite():
    with pytest.raises(ValueError, match=r"eval\.suite must be one of auto, minimum, .*got 'all'"):
        prompts("all", "tiny")


@pytest.mark.parametrize("source", ["tiny", "hf"])
@pytest.mark.parametrize("suite", SUITES)
def test_ids_and_questions_differ_and_stay(suite, source):
    found = prompts(suite, source)
    assert len({prompt.prompt_id for prompt in found}) == len(found)
    assert len({prompt.text for prompt in found}) == len(found)
    key = [(p.prompt_id, p.text, p.reference, p.distractors) for p in found]
    assert key == [
        (p.prompt_id, p.text, p.reference, p.distractors) for p in prompts(suite, source)
    ]


@pytest.mark.parametrize("prompt", CHECKED, ids=lambda prompt: prompt.prompt_id)
def test_reference_passes_and_wrong_answers_fail(prompt):
    assert prompt.check(prompt.reference)
    assert prompt.check(f"\n{prompt.reference} \n")
    assert prompt.distractors
    assert len(set(prompt.distractors)) == len(prompt.distractors)
    for wrong in (*prompt.distractors, "", " ", "I do not know.", prompt.text):
        assert not prompt.check(wrong), wrong


@pytest.mark.parametrize("prompt", CHECKED, ids=lambda prompt: prompt.prompt_id)
def test_no_answer_passes_for_another_question_of_its_category(prompt):
    """But for equal answers: sums, brackets and wordings repeat."""
    for other in CHECKED:
        if other.category == prompt.category and other.reference != prompt.reference:
            assert not prompt.check(other.reference)


def test_minimum_has_no_right_answers():
    for prompt in prompts("minimum", "hf"):
        assert (prompt.check, prompt.reference, prompt.distractors) == (None, None, ())


@pytest.mark.parametrize(
    ("prompt_id", "answer"),
    [
        ("math_product", 37 * 46),
        ("math_percentage", 240 * 35 / 100),
        ("math_rate", 18 * 45),
        ("math_equation", (44 + 12) / 7),
        ("reasoning_difference", (540 - 500) / 2),
        ("reasoning_parallel", 6 * 30 / 6 / 30 * 6),
        ("code_read", sum([k * k for k in range(1, 6) if k % 2])),
    ],
)
def test_numbers_are_the_computed_ones(prompt_id, answer):
    prompt = FORGETTING[prompt_id]
    assert float(prompt.reference) == pytest.approx(answer)
    assert prompt.check(f"The answer is {prompt.reference}.")
    assert prompt.check(f"**{prompt.reference}**")
    for near in (answer + 1, answer - 1, answer + 0.5, 10 * answer, answer / 10, -answer):
        assert not prompt.check(f"{near:g}")
    assert not prompt.check(f"1{prompt.reference}")


def test_reference_code_counts_vowels():
    found = {}
    exec(FORGETTING["code_write"].reference, found)
    assert found["count_vowels"]("A lighthouse keeper") == 8
    assert found["count_vowels"]("") == 0


def test_syllogism_has_a_counterexample():
    """Violins of wood, trumpets of brass: both premises hold, the conclusion does not."""
    instruments = {"violin": "wood", "trumpet": "brass"}
    assert "violin" in instruments
    assert "brass" in instruments.values()
    assert instruments["violin"] != "brass"
    check = FORGETTING["reasoning_syllogism"].check
    for right in ("no", "No, it does not follow.", "**No.** The brass ones may all be horns."):
        assert check(right)
    for wrong in ("Yes, there is no doubt.", "I know.", "Yes or no.", "Not sure", "Nothing."):
        assert not check(wrong)


def test_binary_search_halves():
    def comparisons(n):
        return 0 if n == 0 else 1 + comparisons(n // 2)

    for n in (1, 10, 1000, 10**6):
        assert comparisons(n) == math.floor(math.log2(n)) + 1
    check = FORGETTING["code_complexity"].check
    for right in ("It is o(log n).", "$O(\\log n)$", "O(log(n)) time", "**O(log_2 n)**",
                  "Logarithmic time"):  # fmt: skip
        assert check(right)
    for wrong in ("O(n)", "O(n log n)", "O(log n^2)", "O(n^2)", "O(log log n)", "linearithmic"):
        assert not check(wrong)


@pytest.mark.parametrize(
    ("prompt_id", "right", "wrong"),
    [
        ("knowledge_capital", "It is OTTAWA, in Ontario.", "The Ottawans live in Toronto"),
        ("knowledge_author", "Herman Melville (1819-1891)", "Melvillean"),
        ("knowledge_year", "On 9 November 1989, in the evening", "19890"),
        ("knowledge_science", "This is photosynthesis.", "photosynthesise"),
    ],
)
def test_knowledge_is_whole_words(prompt_id, right, wrong):
    assert FORGETTING[prompt_id].check(right)
    assert not FORGETTING[prompt_id].check(wrong)
