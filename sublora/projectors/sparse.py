"""sparse: about sqrt(D) signs in every column."""

import math

import numpy as np
from torch import Tensor

from sublora.projectors.projector import Projector, random_signs
from sublora.registry import register_matrix


class Sparse(Projector):
    """The entries twice: by column for the adjoint, for the forward in rounds.

    Round k has the k-th entry of every row that has so many. With the rows in order of their
    number of entries, a round adds to a prefix of them: no two summands race for one row.
    """

    rounds: list[int]  # entries in each

    def _times(self, w: Tensor) -> Tensor:
        terms = self.value_in_round * w.index_select(0, self.column_in_round)
        theta = terms.new_zeros(self.shape[0])
        for part in terms.split(self.rounds):
            theta[: len(part)] += part
        return theta.index_select(0, self.rank_of_row)

    def _times_transposed(self, v: Tensor) -> Tensor:
        entries = v.index_select(0, self.row_in_column).view_as(self.value_in_column)
        return (entries * self.value_in_column).sum(1)


@register_matrix("sparse")
def sparse(rows: int, cols: int, generator: np.random.Generator) -> Projector:
    """Every column has s = round(sqrt D) entries +-1/sqrt(s) in distinct random rows."""
    s = round(math.sqrt(rows))
    row = np.stack([generator.choice(rows, s, replace=False) for _ in range(cols)]).ravel()
    value = random_signs(generator, (cols, s)) / math.sqrt(s)
    by_row = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=rows)
    before = np.cumsum(counts) - counts
    nth = np.arange(len(row)) - before[row[by_row]]  # of its row, for every entry in `by_row`
    rank_of_row = np.argsort(np.argsort(-counts, kind="stable"))
    in_round = by_row[np.lexsort((rank_of_row[row[by_row]], nth))]
    projector = Sparse(
        rows,
        cols,
        "mean",
        int((counts == 0).sum()),
        rank_of_row=rank_of_row,
        row_in_column=row,
        value_in_column=value,
        column_in_round=in_round // s,
        value_in_round=value.ravel()[in_round],
    )
    projector.rounds = np.bincount(nth).tolist()
    return projector
