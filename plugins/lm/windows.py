"""Documents cut into windows of equally many tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from plugins.lm.corpora import Document


def windows(
    documents: Sequence[Document], tokenizer: Any, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """(ids [n, length] int64, doc_id [n]): neighbouring, not overlapping windows of each document.

    No special tokens; a remainder shorter than `length`, and a window equal to an earlier one, is
    dropped.
    """
    found: dict[bytes, tuple[np.ndarray, str]] = {}
    for document in documents:
        ids = np.asarray(tokenizer(document.text, add_special_tokens=False)["input_ids"], np.int64)
        for window in ids[: len(ids) // length * length].reshape(-1, length):
            found.setdefault(window.tobytes(), (window, document.doc_id))
    rows = [window for window, _ in found.values()]
    ids = np.stack(rows) if rows else np.empty((0, length), np.int64)
    return ids, np.array([doc_id for _, doc_id in found.values()], dtype=str)
