"""Batches of fresh samples, drawn by blocks of steps; no batch depends on where blocks begin."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dln.data import Dataset, project
from dln.loader import Batch
from dln.streams import Stream

_BLOCK_ENTRIES = 2**17  # numbers of all replicas' inputs drawn at once, unless one step needs more


class OnlineLoader:
    """Fresh samples for every step: x ~ N(0, I_d), y = A x + noise.

    With `by_moments` (of a mean squared error) a batch of B >= d samples is handed out as d samples
    whose second moments have the law of the batch's.
    """

    def __init__(
        self,
        dataset: Dataset,
        noise_stds: Sequence[float],
        batch_size: int | None,
        seeds: Sequence[int],
        n_steps: int,
        *,
        dtype: torch.dtype,
        by_moments: bool,
    ):
        self._dataset, self._dtype, self._by_moments = dataset, dtype, by_moments
        device = dataset.teacher.device
        self._noise_std = torch.tensor(noise_stds, dtype=dtype, device=device)[:, None, None]
        self._inputs_stream = Stream("dln/online_x", seeds, device)
        self._noise_stream = Stream("dln/online_noise", seeds, device)
        self._step, self._end = 0, n_steps
        self._samples = 0  # handed out one by one
        self._block: list[Batch] = []  # of the next steps, the last one first
        self.set_batch_size(batch_size)

    def next_batch(self) -> Batch:
        """The batch of the next step."""
        if not self._block:
            self._block = self._draw_block()[::-1]
        self._step += 1
        if not self._is_wishart:
            self._samples += self.batch_size
        return self._block.pop()

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next step on; the streams go on. None: ValueError."""
        if batch_size is None:
            raise ValueError(
                "online data has no full batch: the batch size must be an integer >= 1"
            )
        self.batch_size = batch_size
        self._is_wishart = self._by_moments and batch_size >= self._dataset.teacher.shape[-1]
        self._block = []

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on; the data set has been told before."""
        self._noise_std = self._noise_std[index]
        self._inputs_stream.keep(index)
        self._noise_stream.keep(index)
        self._block = [Batch(*(part[index] for part in batch)) for batch in self._block]

    def _draw_block(self) -> list[Batch]:
        data, (o, d) = self._dataset, self._dataset.teacher.shape[-2:]
        rows = d if self._is_wishart else self.batch_size
        entries = len(self._noise_std) * rows * d
        steps = max(1, min(_BLOCK_ENTRIES // entries, self._end - self._step))
        if self._is_wishart:
            inputs = wishart_roots(self._inputs_stream, self._step, steps, d, self.batch_size)
            page = _wishart_page(self.batch_size)
            first_row, scale = self._step * d, (d / self.batch_size) ** 0.5
        else:
            inputs = self._inputs_stream.normals(self._samples * d, steps * rows * d)
            first_row, page, scale = self._samples, 0, 1.0
        inputs = inputs.reshape(-1, steps * rows, d).to(self._dtype)
        inputs = project(inputs, self._spread(data.projector))
        targets = inputs @ self._spread(data.teacher).mT
        if self._noise_std.any():
            noise = self._noise_stream.normals(first_row * o, steps * rows * o, page)
            targets += scale * self._noise_std * noise.reshape(targets.shape).to(self._dtype)
        by_steps = (
            part.unflatten(1, (steps, rows)).transpose(0, 1).contiguous()
            for part in (inputs, targets)
        )
        return [Batch(*parts) for parts in zip(*by_steps, strict=True)]

    def _spread(self, values: Tensor | None) -> Tensor | None:
        return None if values is None else self._dataset.spread(values.to(self._dtype))


def wishart_roots(stream: Stream, first: int, steps: int, d: int, size: int) -> Tensor:
    """X [R, steps, d, d] with X^T X / d distributed as the S = X^T X / B of B = size >= d normals.

    Bartlett (1933): B S = F F^T with F lower triangular, F_ii^2 ~ chi2(B - i + 1) for i = 1..d and
    standard normals below the diagonal. X = sqrt(d / B) F^T; with noise rows sqrt(d / B) g,
    g ~ N(0, I_o), X^T Z / d has the law of the batch's X^T Z / B too, since given X both are normal
    with covariance S / B in each column. `first` is the number of the first step.
    """
    lower = torch.tril_indices(d, d, -1, device=stream.key.device)
    below = lower.shape[1]
    freedom = size - torch.arange(d, dtype=torch.float64, device=stream.key.device)
    page = _wishart_page(size)
    squares = 2 * stream.gammas(first * d, (freedom / 2).repeat(steps), page=page + 1)
    F = torch.diag_embed(squares.sqrt().unflatten(1, (steps, d)))
    normals = stream.normals(first * below, steps * below, page)
    F[..., lower[0], lower[1]] = normals.unflatten(1, (steps, below))
    return F.mT * (d / size) ** 0.5


def _wishart_page(size: int) -> int:
    """The first page of a batch size's draws: no size shares one with another, nor with samples.

    On one page, batches of 10 and of 20 would have the same noise but for a factor, and networks
    that differ in the batch size would stay close. 64: more attempts than a gamma ever takes.
    """
    return 64 * size
