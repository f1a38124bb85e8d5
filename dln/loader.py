"""What the gradient of each step is computed from, when the samples are those of a train set.

The permutations are drawn for several epochs at once; the batch of a step does not depend on that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from dln.data import Dataset
from dln.moments import Moments, moments_of
from dln.streams import Stream

_WORDS = 2**18  # of all replicas' permutations drawn at once, unless one epoch needs more
_OUTER_BYTES = 2**24  # most bytes of the samples' outer products: they are read at random


class Batch(NamedTuple):
    """Samples of one step."""

    inputs: Tensor  # [R, B, d]
    targets: Tensor  # [R, B, o]


class TrainSetLoader:
    """The train set: whole, or each epoch a new permutation in slices of exactly batch_size.

    The last partial slice of an epoch is dropped. A batch size that is null or not below the
    number of samples is the whole set, without randomness. A change of the batch size starts the
    next epoch of the same stream. With `by_moments` (of a mean squared error) a batch of d samples
    or more is handed out as its moments.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | None,
        seeds: Sequence[int],
        n_steps: int,
        *,
        dtype: torch.dtype,
        by_moments: bool,
    ):
        self._dataset, self._dtype, self._by_moments = dataset, dtype, by_moments
        self._stream = Stream("dln/batch_order", seeds, dataset.teacher.device)
        self._steps_left = n_steps  # no block of permutations reaches far beyond them
        self._first_epoch = 0  # of the current batch size
        self._batches = 0  # handed out since then
        self.batch_size = self._effective(batch_size)
        self._prepare()

    def next_batch(self) -> Batch | Moments:
        """The batch of the next step."""
        self._steps_left -= 1
        if self.batch_size is None:
            return self._whole
        if self._next == len(self._order):
            self._draw_order()
        rows = self._order[self._next]
        self._next += 1
        self._batches += 1
        return self._take(rows)

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next step on; the same size changes nothing."""
        size = self._effective(batch_size)
        if size == self.batch_size:
            return
        if self.batch_size is not None:
            self._first_epoch += -(-self._batches // self._batches_per_epoch())
        self._batches = 0
        self.batch_size = size
        self._prepare()

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on; the data set has been told before."""
        self._stream.keep(index)
        if self.batch_size is None:
            self._prepare()
        else:
            self._order = self._order[:, index]

    def _effective(self, batch_size: int | None) -> int | None:
        full = batch_size is None or batch_size >= self._dataset.train_inputs.shape[1]
        return None if full else batch_size

    def _batches_per_epoch(self) -> int:
        return self._dataset.train_inputs.shape[1] // self.batch_size

    def _prepare(self) -> None:
        """What batches of this size are taken from: the whole set, or a table with a row a sample.

        A row holds the sample and its target or noise, or its share of their outer products' mean.
        """
        data, d = self._dataset, self._dataset.train_inputs.shape[-1]
        self._order = data.which.new_empty(0, len(data.which), 0)  # none drawn yet
        self._next = 0
        self._hands_moments = self._by_moments and (self.batch_size or d) >= d
        if self.batch_size is None:
            whole = (data.train_inputs, data.train_targets)
            if self._hands_moments:
                whole = moments_of(data.train_inputs, data.train_noise)
            kind = Moments if self._hands_moments else Batch
            self._whole = kind(*(data.spread(part.to(self._dtype)) for part in whole))
            return
        second = data.train_noise if self._hands_moments else data.train_targets
        rows = torch.cat([data.train_inputs, second], -1).flatten(0, 1).to(self._dtype)
        row_bytes = d * rows[0].nbytes
        self._is_outer = self._hands_moments and len(rows) * row_bytes <= _OUTER_BYTES
        if self._is_outer:
            rows = (rows[:, :d, None] * rows[:, None, :]).flatten(1) / self.batch_size
        self._table = rows

    def _draw_order(self) -> None:
        """Rows of the table for whole epochs: [S, R, B] int32."""
        n, per_epoch = self._dataset.train_inputs.shape[1], self._batches_per_epoch()
        which = self._dataset.which
        wanted = min(_WORDS // (len(which) * n), -(-self._steps_left // per_epoch))
        epoch = self._first_epoch + self._batches // per_epoch
        order = self._stream.permutations(n, range(epoch, epoch + max(1, wanted)))
        order += (n * which.int())[:, None, None]
        order = order[..., : per_epoch * self.batch_size].unflatten(-1, (per_epoch, -1))
        self._order = order.permute(1, 2, 0, 3).flatten(0, 1).contiguous()
        self._next = 0

    def _take(self, rows: Tensor) -> Batch | Moments:
        d, size = self._dataset.train_inputs.shape[-1], self.batch_size
        if self._is_outer:
            products = embedding_bag(rows, self._table, mode="sum").unflatten(1, (d, -1))
            return Moments(products[..., :d], products[..., d:])
        samples = self._table.index_select(0, rows.flatten()).unflatten(0, (-1, size))
        inputs, second = samples[..., :d], samples[..., d:]
        return moments_of(inputs, second) if self._hands_moments else Batch(inputs, second)
