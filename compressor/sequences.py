"""Token sequences of a corpus, and which of their tokens' states are kept."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

import numpy as np

from compressor.config import DataConfig
from plugins.lm.corpora import Document
from plugins.lm.splits import split_documents

MARKERS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))


@dataclass(frozen=True)
class Sequences:
    """The first n_train are for training, the others are held out."""

    ids: Sequence[np.ndarray]  # int64 [length] each
    keep: Sequence[np.ndarray]  # bool [length] each: tokens whose states are kept
    doc_id: Sequence[str]
    n_train: int

    def n_kept(self) -> np.ndarray:
        """[n] states of each."""
        return np.array([keep.sum() for keep in self.keep])

    def sha256(self) -> str:
        """Of all tokens in their order, and of which are kept."""
        found = hashlib.sha256()
        for ids, keep in zip(self.ids, self.keep, strict=True):
            found.update(f"{len(ids)}:".encode() + ids.astype("<i8").tobytes() + keep.tobytes())
        return found.hexdigest()


def make_sequences(
    documents: Iterable[Document], tokenizer: Any, data: DataConfig, span: str
) -> Sequences:
    """n_seq sequences of at most max_len tokens: one of each document, then second ones, and so on.

    Reads no more documents than it takes. Documents are on one side of the split, sequences where
    there is one document only. Raises ValueError for a corpus that is too small, and for a document
    without markers of thinking where span is "thinking".
    """
    found = (_windows(document, tokenizer, data, span) for document in documents)
    of_documents = list(islice((windows for windows in found if windows), data.n_seq))
    rounds = (window for round_ in zip_longest(*of_documents) for window in round_ if window)
    chosen = list(islice(rounds, data.n_seq))
    if len(chosen) < data.n_seq:
        raise ValueError(
            f"data.n_seq={data.n_seq}: the corpus has {len(chosen)} sequences of "
            f"data.max_len={data.max_len} tokens; lower one of them"
        )
    doc_id = [window[2] for window in chosen]
    units = doc_id if len(set(doc_id)) > 1 else [str(i) for i in range(len(chosen))]
    train, heldout = split_documents(units, data.heldout, data.seed)
    ids, keep, doc_id = zip(*(chosen[i] for i in (*train, *heldout)), strict=True)
    return Sequences(ids, keep, doc_id, len(train))


Window = tuple[np.ndarray, np.ndarray, str]


def _windows(document: Document, tokenizer: Any, data: DataConfig, span: str) -> list[Window]:
    """Consecutive pieces of a document, with a state to keep and a next token each."""
    encoded = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.asarray(encoded["input_ids"], np.int64)
    keep = np.ones(len(ids), bool)
    if span == "thinking":
        start, end = _thinking(document)
        begins, ends = np.asarray(encoded["offset_mapping"]).reshape(-1, 2).T
        keep = (begins >= start) & (ends <= end)
    windows = []
    for at in range(0, len(ids), data.max_len):
        piece, kept = ids[at : at + data.max_len], keep[at : at + data.max_len].copy()
        kept[: data.skip_first] = False
        if len(piece) > 1 and kept[:-1].any():
            windows.append((piece, kept, document.doc_id))
    return windows


def _thinking(document: Document) -> tuple[int, int]:
    """Characters between the markers."""
    for opening, closing in MARKERS:
        start = document.text.find(opening)
        if start >= 0:
            end = document.text.find(closing, start)
            return start + len(opening), len(document.text) if end < 0 else end
    known = ", ".join(opening for opening, _ in MARKERS)
    raise ValueError(
        f"document {document.doc_id} has no marker of thinking ({known}); "
        "data.span=all takes all of its tokens"
    )
