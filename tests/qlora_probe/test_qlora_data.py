"""Examples as tokens, and the order in which they are read."""

import numpy as np
import pytest
import torch

from plugins.lm.tokenizers import raw_bytes
from qlora_probe.config import DataConfig
from qlora_probe.data import (
    collate,
    encode,
    encode_all,
    order,
    prompt_ids,
    sha256,
    updates,
)
from qlora_probe.examples import Example
from qlora_probe.model import TINY_TEMPLATE


@pytest.fixture
def tokenizer():
    tokenizer = raw_bytes()
    tokenizer.chat_template = TINY_TEMPLATE
    return tokenizer


def text(ids):
    return bytes(ids.tolist())


def test_answer_and_its_end_are_targets(tokenizer):
    tokens = encode(tokenizer, Example("upper ab", "AB"), "completion", 99)
    assert text(tokens.ids) == b"upper ab=AB\0"
    assert text(tokens.ids[tokens.is_target]) == b"AB\0"
    whole = encode(tokenizer, Example("upper ab", "AB"), "all", 99)
    assert text(whole.ids[whole.is_target]) == b"pper ab=AB\0"


def test_bytes_come_back_whatever_they_are(tokenizer):
    words = "naïve <|endoftext|> \t 漢字 \x00!"
    ids = tokenizer(words, add_special_tokens=False).input_ids
    assert bytes(ids) == words.encode()
    assert tokenizer.decode(ids) == words


def test_without_a_chat_template_a_plain_one():
    assert text(torch.tensor(prompt_ids(raw_bytes(), "Add."))) == (
        b"### Instruction:\nAdd.\n\n### Response:\n"
    )


def test_cut_examples_keep_what_is_left_of_the_answer(tokenizer):
    cut = [Example("q", "abc"), Example("a long question", "abc")]
    [tokens] = encode_all(tokenizer, cut, DataConfig(max_len=4))
    assert text(tokens.ids) == b"q=ab"
    with pytest.raises(ValueError, match=r"data\.max_len=2 leaves no example an answer"):
        encode_all(tokenizer, cut, DataConfig(max_len=2))


def test_packed_examples_follow_one_another(tokenizer):
    examples = [Example("a", "A"), Example("b", "B"), Example("c", "C")]
    packed = encode_all(tokenizer, examples, DataConfig(max_len=7, packing=True))
    assert [text(tokens.ids) for tokens in packed] == [b"a=A\0b=B", b"\0c=C\0"]
    # the first token of a sequence is predicted by nothing
    assert [text(t.ids[t.is_target]) for t in packed] == [b"A\0B", b"C\0"]


def test_padding_is_no_target(tokenizer):
    short, long = (encode(tokenizer, Example("q", a), "completion", 99) for a in ("a", "abcd"))
    ids, labels = collate([short, long])
    assert ids.shape == labels.shape == (2, 7)
    assert labels[0].tolist() == [-100, -100, ord("a"), 0, -100, -100, -100]


def test_every_epoch_reads_all_in_another_order():
    found = list(order(10, 4, 3, seed=1))
    assert updates(10, 4, 3) == len(found) == 9
    assert [len(rows) for rows in found] == [4, 4, 2] * 3
    epochs = [np.concatenate(found[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = order(10, 4, 3, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(found, again, strict=True))


def test_digest_sees_tokens_and_targets(tokenizer):
    parts = [encode(tokenizer, Example("ab", "c"), on, 99) for on in ("completion", "all")]
    other = encode(tokenizer, Example("ab", "d"), "all", 99)
    assert len({sha256([tokens]) for tokens in (*parts, other)}) == 3
