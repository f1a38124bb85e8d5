"""The passages of a run: windows of a corpus, N to train on and N that are never seen."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memdyn.config import DataConfig
from plugins.lm.corpora import Document
from plugins.lm.windows import windows


@dataclass(frozen=True)
class Passages:
    """The first N are trained, the others novel; all have equally many tokens."""

    ids: np.ndarray  # [2N, length] int64
    doc_id: list[str]  # of each
    split_level: str  # document: no document has passages of both groups; passage

    @property
    def n(self) -> int:
        """N, of each group."""
        return len(self.ids) // 2

    def sha256(self) -> str:
        """Of all tokens in their order."""
        return hashlib.sha256(np.ascontiguousarray(self.ids, "<i8").tobytes()).hexdigest()


def make_passages(documents: Sequence[Document], tokenizer: Any, data: DataConfig) -> Passages:
    """2N windows drawn by data.seed, both groups from the same pool.

    Each group from documents of its own when there are enough. Raises ValueError when the corpus
    has fewer than 2N different windows.
    """
    ids, doc_id = windows(documents, tokenizer, data.length)
    n = data.n_passages
    if len(ids) < 2 * n:
        raise ValueError(
            f"data.n_passages={n} needs {2 * n} different passages of data.length={data.length} "
            f"tokens, the corpus {data.corpus} has {len(ids)}; lower one of them"
        )
    rng = np.random.default_rng(data.seed)
    order = rng.permutation(len(ids))
    _, document = np.unique(doc_id, return_inverse=True)
    by_chance = rng.permutation(np.arange(document.max() + 1) % 2).astype(bool)
    for is_second in (by_chance, _balanced(np.bincount(document))):
        halves = order[~is_second[document[order]]], order[is_second[document[order]]]
        if min(map(len, halves)) >= n:
            break
    level = "document" if min(map(len, halves)) >= n else "passage"
    first, second = halves if level == "document" else (order[:n], order[n:])
    chosen = np.concatenate([first[:n], second[:n]])
    return Passages(ids[chosen], doc_id[chosen].tolist(), level)


def _balanced(sizes: np.ndarray) -> np.ndarray:
    """[documents] bool: two halves, each document, the largest first, in the smaller one so far."""
    is_second, weights = np.zeros(len(sizes), bool), [0, 0]
    for document in np.argsort(-sizes, kind="stable"):
        half = int(weights[1] < weights[0])
        is_second[document], weights[half] = half, weights[half] + sizes[document]
    return is_second
