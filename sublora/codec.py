"""From trained coordinates to the message: what is evaluated is what its bits say."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sublora.config import QuantConfig
from sublora.message import Layout, Message, Packed, codebook_of, pack
from sublora.quantize import on_levels, quantize
from sublora.subspace import Allotment


def layout_of(allotment: Allotment, cfg: QuantConfig) -> Layout:
    """What the config tells the decoder."""
    n_codebooks = 2 if cfg.codebooks == "ab" else 1
    return Layout(allotment.d, cfg.levels, n_codebooks, cfg.coder, allotment.budgets, allotment.d_a)


def levels_of(w: NDArray, which: NDArray, layout: Layout, method: str) -> NDArray:
    """float16 [codebooks, K] for w float32 [d], coordinate i of codebook which[i].

    Raises ValueError for a w that is not finite, or too large for float16.
    """
    levels = np.zeros((layout.n_codebooks, layout.levels), np.float16)
    for i in np.unique(which):
        levels[i] = quantize(w[which == i], layout.levels, method).codebook
    return levels


def encode(w: NDArray, gates: Sequence[int] | None, levels: NDArray, layout: Layout) -> Packed:
    """Every coordinate on the nearest of the levels [codebooks, K] of its codebook, as float16.

    Raises ValueError for a level that is too large for float16.
    """
    which = codebook_of(layout, gates)
    codebooks, symbols = levels.astype(np.float16), np.zeros(layout.d, np.int64)
    for i in np.unique(which):
        found = on_levels(w[which == i], levels[i])
        codebooks[i], symbols[which == i] = found.codebook, found.symbols
    return pack(Message(codebooks, gates, symbols), layout)
