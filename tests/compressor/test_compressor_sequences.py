"""Which tokens of a corpus are read, and which of their states are kept."""

from itertools import count

import numpy as np
import pytest

from compressor.config import DataConfig
from compressor.sequences import MARKERS, make_sequences
from plugins.lm.corpora import Document
from plugins.lm.tokenizers import byte_bpe, raw_bytes


def documents(*texts):
    return [Document(str(i), text) for i, text in enumerate(texts)]


def make(texts, span="all", tokenizer=None, **data):
    data = {"n_seq": 2, "max_len": 8, "heldout": 0.5, "skip_first": 0} | data
    return make_sequences(documents(*texts), tokenizer or raw_bytes(), DataConfig(**data), span)


def texts_of(sequences, tokenizer=None):
    """The kept text of each sequence, by document."""
    tokenizer = tokenizer or raw_bytes()
    return {
        name: tokenizer.decode(ids[keep])
        for name, ids, keep in zip(sequences.doc_id, sequences.ids, sequences.keep, strict=True)
    }


def test_every_document_gives_a_sequence_before_one_gives_two():
    found = make(["a" * 24, "b" * 5, "c" * 16], n_seq=5)
    assert sorted(found.doc_id) == ["0", "0", "1", "2", "2"]


def test_pieces_follow_each_other_and_the_last_may_be_short():
    text = "abcdefghijklmnopqrst"
    found = make([text], n_seq=3)
    pieces = sorted(raw_bytes().decode(ids) for ids in found.ids)
    assert pieces == ["abcdefgh", "ijklmnop", "qrst"]


def test_piece_of_one_token_is_left_out():
    with pytest.raises(ValueError, match="the corpus has 2 sequences"):
        make(["a" * 17], n_seq=3)


def test_no_more_documents_are_read_than_it_takes():
    read = []

    def endless():
        for i in count():
            read.append(i)
            yield Document(str(i), "abcdefgh")

    data = DataConfig(n_seq=5, max_len=8, heldout=0.5)
    found = make_sequences(endless(), raw_bytes(), data, "all")
    assert len(found.ids) == 5
    assert len(read) == 5


def test_documents_are_on_one_side_of_the_split():
    found = make([letter * 24 for letter in "abcdefghij"], n_seq=30, heldout=0.3, max_len=8)
    train, heldout = found.doc_id[: found.n_train], found.doc_id[found.n_train :]
    assert not set(train) & set(heldout)
    assert len(heldout) == 9
    other = make([letter * 24 for letter in "abcdefghij"], n_seq=30, heldout=0.3, seed=1)
    assert set(other.doc_id[other.n_train :]) != set(heldout)
    again = make([letter * 24 for letter in "abcdefghij"], n_seq=30, heldout=0.3)
    assert again.sha256() == found.sha256() != other.sha256()


def test_sequences_of_one_document_are_split_themselves():
    found = make(["abcdefgh" * 5], n_seq=5, heldout=0.2)
    assert found.n_train == 4


def test_first_tokens_of_every_sequence_are_left_out():
    found = make(["a" * 16, "b" * 8], n_seq=3, skip_first=3)
    for keep in found.keep:
        assert keep.tolist() == [False] * 3 + [True] * 5
    assert found.n_kept().tolist() == [5, 5, 5]


def test_what_is_kept_is_part_of_the_digest():
    one, other = (make(["a" * 8, "b" * 8], skip_first=n) for n in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one.ids, other.ids, strict=True))
    assert one.sha256() != other.sha256()


@pytest.mark.parametrize(("opening", "closing"), MARKERS)
def test_thinking_is_what_is_between_the_markers(opening, closing):
    texts = [f"{i}+1? {opening}thought {i}{closing} answer" for i in range(4)]
    found = make(texts, "thinking", n_seq=4, max_len=100)
    assert texts_of(found) == {str(i): f"thought {i}" for i in range(4)}
    whole = [raw_bytes().decode(ids) for ids in found.ids]
    assert sorted(whole) == texts  # the language model reads all of it


def test_thinking_without_an_end_goes_on_to_the_end():
    found = make([f"q <think>cut off {i}" for i in range(2)], "thinking", max_len=100)
    assert texts_of(found) == {"0": "cut off 0", "1": "cut off 1"}


def test_thinking_keeps_the_first_tokens_left_out_of_a_sequence():
    found = make(["<think>abcdefghi"] * 2, "thinking", max_len=9, skip_first=3)
    # Pieces "<think>ab", of which b is the last but has no next token, and "cdefghi".
    assert sorted(texts_of(found).values()) == ["ab", "ab"]


def test_tokens_of_several_bytes_are_kept_or_not_as_a_whole():
    found = make(["é<think>ü€</think>ß"] * 2, "thinking", max_len=100)
    assert texts_of(found) == {"0": "ü€", "1": "ü€"}


def test_token_across_a_marker_is_left_out():
    """A tokenizer that has learned ">(" and ")</" as tokens: neither is inside."""
    text = "<think>(ab) (cd)</think>"
    tokenizer = byte_bpe(documents(*[text] * 50), 290)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    start, end = len("<think>"), text.index("</")
    across = [(a, b) for a, b in offsets if a < start < b or a < end < b]
    assert len(across) == 2
    found = make([f"{text} {i}" for i in range(2)], "thinking", tokenizer, max_len=100)
    assert texts_of(found, tokenizer) == dict.fromkeys("01", text[across[0][1] : across[1][0]])


def test_document_without_markers_is_named():
    with pytest.raises(ValueError, match=r"document 1 has no marker .*<think>.*data\.span=all"):
        make(["<think>abc", "no marker"], "thinking", max_len=100)


def test_document_without_a_thought_is_passed_over():
    found = make(["<think></think> x", "<think>a b", "<think>c d"], "thinking", max_len=100)
    assert sorted(found.doc_id) == ["1", "2"]


@pytest.mark.parametrize(
    ("texts", "n_seq", "n"), [(["ab"], 2, 1), (["", "a"], 2, 0), (["abc"] * 3, 9, 3)]
)
def test_too_few_sequences_name_the_keys(texts, n_seq, n):
    message = rf"data\.n_seq={n_seq}: the corpus has {n} sequences of data\.max_len=8 tokens"
    with pytest.raises(ValueError, match=message):
        make(texts, n_seq=n_seq)
