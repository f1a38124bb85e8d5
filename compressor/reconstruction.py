"""States and their reconstructions, summed up once for all metrics."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from compressor.spectrum import Spectrum, chunks


@dataclass(frozen=True)
class Reconstruction:
    """Sums over the states x of one split and xhat = offset + (x - offset) W^T W, float64.

    Centred means: after subtracting mu, the mean of the train split, from both.
    """

    # of each token [N]
    x2: Tensor  # |x|^2
    xhat2: Tensor
    dot: Tensor  # x . xhat
    error2: Tensor  # |xhat - x|^2
    mean_dot: Tensor  # x . mu
    centered_x2: Tensor  # |x - mu|^2
    centered_xhat2: Tensor
    centered_dot: Tensor  # (x - mu) . (xhat - mu)
    # of each dimension [D], over the tokens; about mu and its reconstruction muhat: a variance
    # keeps its digits beside a large mean
    sum_x: Tensor  # of x - mu
    sum_xhat: Tensor  # of xhat - muhat
    sum_x2: Tensor  # of (x - mu)^2
    sum_xhat2: Tensor


def reconstruct(X: Tensor, W: Tensor, spectrum: Spectrum) -> Reconstruction:
    """One pass over the states X [N, D] of a split, chunk by chunk; W [k, D] float64."""
    mean, offset = spectrum.mean, spectrum.offset
    mean_hat = offset + (mean - offset) @ W.T @ W
    tokens, dimensions = [], []
    for x in chunks(X):
        y = x - offset
        yhat = y @ W.T @ W
        xhat, error = offset + yhat, yhat - y
        a, b = x - mean, xhat - mean
        pairs = ((x, x), (xhat, xhat), (x, xhat), (error, error))
        centered = ((a, a), (b, b), (a, b))
        dots = [(u * v).sum(1) for u, v in pairs] + [x @ mean]
        tokens.append(torch.stack(dots + [(u * v).sum(1) for u, v in centered]))
        c = xhat - mean_hat
        dimensions.append(torch.stack([u.sum(0) for u in (a, c, a * a, c * c)]))
    return Reconstruction(*torch.cat(tokens, 1), *sum(dimensions))


@dataclass(frozen=True)
class Context:
    """What a metric is given: one W, both splits, and the optimum of the same rank."""

    W: Tensor  # [k, D] float64
    spectrum: Spectrum
    train_states: Tensor  # [N, D]
    heldout_states: Tensor
    optima: dict[int, "Context"] = field(default_factory=dict)  # shared by the W of a stack

    @property
    def k(self) -> int:
        return len(self.W)

    @cached_property
    def train(self) -> Reconstruction:
        return reconstruct(self.train_states, self.W, self.spectrum)

    @cached_property
    def heldout(self) -> Reconstruction:
        return reconstruct(self.heldout_states, self.W, self.spectrum)

    @property
    def optimum(self) -> "Context":
        """Of the train split's PCA of rank k."""
        if self.k not in self.optima:
            W = self.spectrum.leading(self.k)
            self.optima[self.k] = Context(W, self.spectrum, self.train_states, self.heldout_states)
        return self.optima[self.k]
