"""Train and held-out sides of texts that were cut into pieces."""

from collections.abc import Sequence

import numpy as np


def split_documents(
    doc_id: Sequence[str], share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(train, held_out): indices of the items, ascending; no document has items on both sides.

    doc_id [n]: the document of each item. Documents go to the held-out side in an order by `seed`,
    as many as bring its items nearest to `share` of all, at least one and not all. Raises
    ValueError for fewer than two documents and a share outside ]0, 1[.
    """
    if not 0 < share < 1:
        raise ValueError(f"data.heldout={share} must lie between 0 and 1, without them")
    documents, document, sizes = np.unique(doc_id, return_inverse=True, return_counts=True)
    if len(documents) < 2:
        raise ValueError(
            f"data.heldout={share} needs two documents, one for each side; the {len(doc_id)} items "
            f"come from {len(documents)}"
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    held = np.cumsum(sizes[order])[:-1]  # [i]: items of the first i + 1 documents
    n = 1 + np.argmin(np.abs(held - share * len(document)))
    is_held_out = np.isin(document, order[:n])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
