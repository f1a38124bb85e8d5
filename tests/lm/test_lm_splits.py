"""Which documents are held out."""

import numpy as np
import pytest

from plugins.lm.splits import split_documents


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.77, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_sides_part_the_items_and_no_document(share, seed):
    rng = np.random.default_rng(seed)
    doc_id = [f"d{i}" for i in rng.integers(0, 12, 200)]
    train, held_out = split_documents(doc_id, share, seed)
    assert sorted([*train, *held_out]) == list(range(200))
    assert min(len(train), len(held_out)) >= 1
    assert not {doc_id[i] for i in train} & {doc_id[i] for i in held_out}
    assert all(np.diff(train) > 0)
    assert all(np.diff(held_out) > 0)


@pytest.mark.parametrize(
    ("share", "n"), [(0.2, 20), (0.204, 20), (0.206, 21), (0.001, 1), (0.999, 99)]
)
def test_documents_of_one_item_give_the_nearest_share(share, n):
    assert len(split_documents([str(i) for i in range(100)], share, 0)[1]) == n


def test_whole_documents_nearest_to_the_share():
    """Sizes 1, 2, 4, 8, 16: no prefix of their order is nearer, found by trying all of them."""
    doc_id = np.repeat(["a", "b", "c", "d", "e"], [1, 2, 4, 8, 16])
    for seed in range(30):
        train, held_out = split_documents(doc_id, 0.4, seed)
        order = np.random.default_rng(seed).permutation(5)
        prefixes = [sum(2 ** order[:n]) for n in range(1, 5)]
        assert abs(len(held_out) - 12.4) == min(abs(n - 12.4) for n in prefixes)
        assert len(train) + len(held_out) == 31


def test_by_seed_and_not_by_the_order_of_the_items():
    doc_id = np.array([str(i % 50) for i in range(200)])
    held = [set(doc_id[split_documents(doc_id, 0.2, seed)[1]]) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    shuffled = np.random.default_rng(9).permutation(doc_id)
    assert set(shuffled[split_documents(shuffled, 0.2, 0)[1]]) == held[0]


def test_two_documents_give_one_to_each_side():
    sides = {tuple(split_documents(["a", "a", "b"], 0.2, seed)[1]) for seed in range(20)}
    assert sides == {(0, 1), (2,)}


@pytest.mark.parametrize(
    ("doc_id", "share", "message"),
    [
        (["a"] * 7, 0.2, r"data\.heldout=0\.2 needs two documents.* the 7 items come from 1"),
        ([], 0.2, r"the 0 items come from 0"),
        (["a", "b"], 0.0, r"data\.heldout=0\.0 must lie between 0 and 1"),
        (["a", "b"], 1.0, r"data\.heldout=1\.0 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_split(doc_id, share, message):
    with pytest.raises(ValueError, match=message):
        split_documents(doc_id, share, 0)
