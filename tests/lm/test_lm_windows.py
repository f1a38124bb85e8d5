"""Windows of equally many tokens."""

import numpy as np
import pytest

from plugins.lm.corpora import Document, load_corpus
from plugins.lm.tokenizers import byte_bpe
from plugins.lm.windows import windows


@pytest.fixture(scope="module")
def documents():
    return load_corpus("state_of_the_union")


@pytest.fixture(scope="module")
def tokenizer(documents):
    return byte_bpe(documents, 1024)


def test_windows_follow_each_other_in_their_document(documents, tokenizer):
    ids, doc_id = windows(documents[:3], tokenizer, 100)
    for document in documents[:3]:
        tokens = tokenizer(document.text)["input_ids"]
        mine = ids[doc_id == document.doc_id]
        assert mine.shape == (len(tokens) // 100, 100)
        assert mine.ravel().tolist() == tokens[: mine.size]


def test_equal_windows_count_once_and_remainders_not_at_all(tokenizer):
    text = "the people of the United States " * 20
    ids, doc_id = windows(
        [Document("a", text), Document("b", text), Document("c", "x")], tokenizer, 20
    )
    assert len(ids) == len(np.unique(ids, axis=0)) > 0
    assert set(doc_id) == {"a"}


def test_no_window_at_all(tokenizer):
    ids, doc_id = windows([Document("a", "short")], tokenizer, 20)
    assert ids.shape == (0, 20)
    assert len(doc_id) == 0


def test_tokenizer_gives_back_every_text(documents, tokenizer):
    texts = [documents[0].text, "naïve – 中文 \t\n  two  spaces", "<|endoftext|>"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == 1024
    assert tokenizer.eos_token_id == 0
    assert byte_bpe(documents, 1024)(texts[0]) == tokenizer(texts[0])


def test_vocabulary_of_bytes_alone(documents):
    tokenizer = byte_bpe(documents[:2], 257)
    assert len(tokenizer("peace")["input_ids"]) == 5
