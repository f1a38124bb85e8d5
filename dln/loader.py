"""Loaders: what the gradient of each step is computed from, drawn by blocks of steps.

A block is a speed matter only: the batch of a step does not depend on where blocks begin.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dln.config import TrainConfig
from dln.data import Dataset, project
from dln.streams import Stream

_BLOCK_ENTRIES = 2**17  # numbers of all replicas' inputs drawn at once, unless one step needs more


class Batch(NamedTuple):
    """The samples of one step."""

    inputs: Tensor  # [R, B, d]
    targets: Tensor  # [R, B, o]


class _BlockLoader:
    """Hands out the batches of a block one by one and draws the next block when it is used up."""

    def __init__(self, n_steps: int):
        self._steps_left = n_steps  # no block reaches beyond them
        self._inputs = self._targets = None  # [S, R, B, *] of the steps of a block
        self._next = self._end = 0

    def next_batch(self) -> Batch:
        """The batch of the next step."""
        if self._next == self._end:
            self._inputs, self._targets = self._draw_block()
            self._next, self._end = 0, len(self._inputs)
        batch = Batch(self._inputs[self._next], self._targets[self._next])
        self._next += 1
        self._steps_left -= 1
        self._advance()
        return batch

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on."""
        if self._end > 0:
            self._inputs = self._inputs[self._next :, index]
            self._targets = self._targets[self._next :, index]
            self._next, self._end = 0, len(self._inputs)

    def _drop_block(self) -> None:
        self._next = self._end = 0

    def _block_steps(self, step_entries: int) -> int:
        """Steps whose draws, of `step_entries` numbers each, make a block."""
        return max(1, min(_BLOCK_ENTRIES // step_entries, self._steps_left))


class TrainSetLoader(_BlockLoader):
    """The train set: whole, or each epoch a new permutation in slices of exactly batch_size.

    The last partial slice of an epoch is dropped. A batch size that is null or not below the
    number of samples is the whole set, without randomness. A change of the batch size starts the
    next epoch of the same stream.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int | None,
        seeds: Sequence[int],
        n_steps: int,
    ):
        super().__init__(n_steps)
        self._train = Batch(inputs, targets)  # [R, N, *]
        self._order = Stream("dln/batch_order", seeds, inputs.device)
        self._first_epoch = 0  # of the current batch size
        self._batches = 0  # handed out since then
        self.batch_size = self._effective(batch_size)

    def next_batch(self) -> Batch:
        return self._train if self.batch_size is None else super().next_batch()

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next step on; the same size changes nothing."""
        size = self._effective(batch_size)
        if size == self.batch_size:
            return
        if self.batch_size is not None:
            self._first_epoch += -(-self._batches // self._batches_per_epoch())
        self._batches = 0
        self.batch_size = size
        self._drop_block()

    def keep(self, index: Tensor) -> None:
        super().keep(index)
        self._train = Batch(*(part[index] for part in self._train))
        self._order.keep(index)

    def _effective(self, batch_size: int | None) -> int | None:
        full = batch_size is None or batch_size >= self._train.inputs.shape[1]
        return None if full else batch_size

    def _batches_per_epoch(self) -> int:
        return self._train.inputs.shape[1] // self.batch_size

    def _advance(self) -> None:
        self._batches += 1

    def _draw_block(self) -> tuple[Tensor, Tensor]:
        replicas, n, d = self._train.inputs.shape
        per_epoch = self._batches_per_epoch()
        epoch = self._first_epoch + self._batches // per_epoch  # blocks are whole epochs
        n_epochs = -(-self._block_steps(replicas * self.batch_size * d) // per_epoch)
        order = self._order.permutations(n, range(epoch, epoch + n_epochs))
        order = order[..., : per_epoch * self.batch_size].flatten(1)  # [R, S B]
        steps = order.reshape(replicas, n_epochs * per_epoch, self.batch_size).transpose(0, 1)
        replica = torch.arange(replicas, device=order.device)[:, None]
        inputs, targets = (part[replica, steps] for part in self._train)
        return inputs, targets


class OnlineLoader(_BlockLoader):
    """Fresh samples for every step: x ~ N(0, I_d), y = A x + noise."""

    def __init__(
        self,
        teacher: Tensor,
        projector: Tensor | None,
        noise_std: Tensor,
        batch_size: int | None,
        seeds: Sequence[int],
        n_steps: int,
    ):
        super().__init__(n_steps)
        self._teacher, self._projector = teacher, projector  # [R, o, d], [R, d, d]
        self._noise_std = noise_std[:, None, None]  # [R, 1, 1]
        self._inputs_stream = Stream("dln/online_x", seeds, teacher.device)
        self._noise_stream = Stream("dln/online_noise", seeds, teacher.device)
        self._samples = 0  # handed out
        self.batch_size = _online_size(batch_size)

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next step on; the stream goes on. None: ValueError."""
        self.batch_size = _online_size(batch_size)
        self._drop_block()

    def keep(self, index: Tensor) -> None:
        super().keep(index)
        self._teacher, self._noise_std = self._teacher[index], self._noise_std[index]
        self._projector = None if self._projector is None else self._projector[index]
        self._inputs_stream.keep(index)
        self._noise_stream.keep(index)

    def _advance(self) -> None:
        self._samples += self.batch_size

    def _draw_block(self) -> tuple[Tensor, Tensor]:
        replicas, o, d = self._teacher.shape
        steps = self._block_steps(replicas * self.batch_size * d)
        shape = (replicas, steps * self.batch_size)
        dtype = self._teacher.dtype

        def draw(stream: Stream, dim: int) -> Tensor:
            normals = stream.normals(self._samples * dim, shape[1] * dim)
            return normals.reshape(*shape, dim)

        inputs = project(draw(self._inputs_stream, d).to(dtype), self._projector)
        targets = inputs @ self._teacher.mT
        if self._noise_std.any():
            targets += self._noise_std * draw(self._noise_stream, o).to(dtype)
        return _by_steps(inputs, steps), _by_steps(targets, steps)


def make_loader(
    cfg: TrainConfig,
    dataset: Dataset,
    *,
    batch_seeds: Sequence[int],
    noise_stds: Sequence[float],
    dtype: torch.dtype,
) -> TrainSetLoader | OnlineLoader:
    """The loader of a config, handing out batches in the training dtype."""
    size, n_steps = cfg.training.batch_size, cfg.max_steps
    if cfg.data.online:
        noise_std = torch.tensor(noise_stds, dtype=dtype, device=dataset.teacher.device)
        projector = None if dataset.projector is None else dataset.projector.to(dtype)
        teacher = dataset.teacher.to(dtype)
        return OnlineLoader(teacher, projector, noise_std, size, batch_seeds, n_steps)
    inputs, targets = dataset.train_inputs.to(dtype), dataset.train_targets.to(dtype)
    return TrainSetLoader(inputs, targets, size, batch_seeds, n_steps)


def _by_steps(samples: Tensor, steps: int) -> Tensor:
    """[R, S B, *] as contiguous [S, R, B, *]."""
    return samples.unflatten(1, (steps, -1)).transpose(0, 1).contiguous()


def _online_size(batch_size: int | None) -> int:
    if batch_size is None:
        raise ValueError("online data has no full batch: the batch size must be an integer >= 1")
    return batch_size
