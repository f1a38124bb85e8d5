"""onehot: every parameter follows one coordinate."""

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from sublora.projectors.projector import Projector, random_signs
from sublora.registry import register_matrix


class OneHot(Projector):
    """Slot (i, j) of a table [ceil(D/d), d] is one row's entry in column j; the last are empty."""

    def _times(self, w: Tensor) -> Tensor:
        return (self.weight * w).view(-1).index_select(0, self.slot_of_row)

    def _times_transposed(self, v: Tensor) -> Tensor:
        empty = self.weight.numel() - len(v)
        table = pad(v.index_select(0, self.row_of_slot), (0, empty)).view_as(self.weight)
        return (table * self.weight).sum(0)


@register_matrix("onehot")
def onehot(rows: int, cols: int, generator: np.random.Generator) -> Projector:
    """Row i has one entry +-1/sqrt(b_j) in a random column j; sizes b_j differ by at most 1."""
    depth = -(-rows // cols)
    sizes = np.full(cols, rows // cols)
    sizes[: rows % cols] += 1
    row_of_slot = generator.permutation(rows)
    return OneHot(
        rows,
        cols,
        "exact",
        weight=random_signs(generator, (depth, cols)) / np.sqrt(sizes),
        row_of_slot=row_of_slot,
        slot_of_row=np.argsort(row_of_slot),
    )
