"""Passages: the same for the same seed, both groups from one pool, apart where they can be."""

import numpy as np
import pytest

from memdyn.config import DataConfig
from memdyn.data import make_passages
from plugins.lm.corpora import Document, load_corpus
from plugins.lm.tokenizers import byte_bpe
from plugins.lm.windows import windows


@pytest.fixture(scope="module")
def documents():
    return load_corpus("state_of_the_union")


@pytest.fixture(scope="module")
def tokenizer(documents):
    return byte_bpe(documents, 1024)


def test_groups_share_no_passage_and_no_document(documents, tokenizer):
    passages = make_passages(documents, tokenizer, DataConfig())
    assert passages.ids.shape == (100, 128)
    assert passages.n == 50
    assert len(np.unique(passages.ids, axis=0)) == 100
    assert passages.split_level == "document"
    assert not set(passages.doc_id[:50]) & set(passages.doc_id[50:])
    assert len(set(passages.doc_id[:50])) > 25


@pytest.mark.slow
def test_groups_come_from_the_same_pool(documents, tokenizer):
    """Over seeds the years of trained and novel passages have the same mean: no file order."""
    gaps = []
    for seed in range(40):
        passages = make_passages(documents, tokenizer, DataConfig(seed=seed))
        years = np.array([int(name[:4]) for name in passages.doc_id])
        gaps.append(years[:50].mean() - years[50:].mean())
    # A single year's sd is 65, a group's passages share documents: sd of a gap is about 15.
    assert abs(np.mean(gaps)) < 4 * np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    assert np.std(gaps) < 30


def test_seed_decides(documents, tokenizer):
    first, again, other = (
        make_passages(documents, tokenizer, DataConfig(seed=seed)).sha256() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_one_document_is_split_by_passages(documents, tokenizer):
    one = [Document("all", " ".join(document.text for document in documents[:9]))]
    passages = make_passages(one, tokenizer, DataConfig(n_passages=20, length=40))
    assert passages.split_level == "passage"
    assert len(np.unique(passages.ids, axis=0)) == 40


def test_uneven_documents_are_kept_apart_where_they_can_be(documents, tokenizer):
    """6 windows and three times 2: most random halves of the documents have fewer than 6."""
    text = tokenizer.decode([i for d in documents[:4] for i in tokenizer(d.text)["input_ids"]])
    ids = tokenizer(text)["input_ids"]
    bounds = [(0, 6), (6, 8), (8, 10), (10, 12)]
    parts = [Document(str(a), tokenizer.decode(ids[40 * a : 40 * b])) for a, b in bounds]
    for seed in range(5):
        passages = make_passages(parts, tokenizer, DataConfig(n_passages=5, length=38, seed=seed))
        assert passages.split_level == "document"


def test_too_few_passages_say_what_there_is(documents, tokenizer):
    few = documents[:3]
    have = len(windows(few, tokenizer, 128)[0])
    with pytest.raises(
        ValueError, match=f"data.n_passages=50 needs 100 different passages .* has {have}"
    ):
        make_passages(few, tokenizer, DataConfig())
    make_passages(few, tokenizer, DataConfig(n_passages=have // 2))
