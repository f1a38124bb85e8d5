"""Second moments of the states and their eigendecomposition: the optimum every run is held against.

The best rank-k reconstruction of x - offset in the mean square is the projection on the leading k
eigenvectors of its second moment (Eckart & Young 1936; Baldi & Hornik 1989 for tied weights).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

CHUNK = 8192  # states taken into float64 at once
_FILE = "spectrum.pt"


@dataclass(frozen=True)
class Spectrum:
    """Moments of the states of both splits about one offset, all float64 on the CPU."""

    mean: Tensor  # [D], of the train split
    offset: Tensor  # [D], what is subtracted from both splits: mean, or zeros
    eigenvalues: Tensor  # [D], of C, descending; those within rounding of 0 are 0
    eigenvectors: Tensor  # [D, D], columns; the largest entry of each is positive
    heldout_eigenvalues: Tensor  # [D], of heldout_C
    C: Tensor  # [D, D], E (x - offset)(x - offset)^T over the train split
    heldout_C: Tensor  # [D, D], over the held-out split

    @property
    def dim(self) -> int:
        return len(self.mean)

    def leading(self, k: int) -> Tensor:
        """W [k, D] of the optimum: the leading eigenvectors as rows."""
        return self.eigenvectors[:, :k].T.contiguous()

    def mse_pca(self, k: int) -> float:
        """sum_{i > k} lambda_i / D: no W of rank k has a smaller mse on the train split."""
        return (self.eigenvalues[k:].sum() / self.dim).item()

    def mse_pca_heldout(self, k: int) -> float:
        """The mse of the same W on the held-out split, where others may be better."""
        return (self._heldout_energy[k:].sum() / self.dim).item()

    def mse_oracle(self, k: int) -> float:
        """As mse_pca, of the held-out split's own eigenvalues: no W is better there."""
        return (self.heldout_eigenvalues[k:].sum() / self.dim).item()

    def is_degenerate(self, k: int) -> bool:
        """lambda_k = lambda_{k+1}, up to 1e-10 lambda_k: the leading subspace is not unique."""
        if k == self.dim:
            return False
        here, after = self.eigenvalues[k - 1].item(), self.eigenvalues[k].item()
        return here - after <= max(1e-10 * here, _rounding(self.eigenvalues))

    @property
    def participation(self) -> float:
        """(sum lambda)^2 / sum lambda^2 of the train split, 1..D."""
        return _participation(self.eigenvalues)

    @property
    def participation_heldout(self) -> float:
        return _participation(self.heldout_eigenvalues)

    @cached_property
    def _heldout_energy(self) -> Tensor:
        """v_i^T heldout_C v_i [D] of the train split's eigenvectors."""
        energy = (self.eigenvectors * (self.heldout_C @ self.eigenvectors)).sum(0)
        return torch.where(energy > _rounding(self.heldout_eigenvalues), energy, 0.0)


def spectrum(train: Tensor, heldout: Tensor, center: Literal["mean"] | None) -> Spectrum:
    """Moments of states [N, D] of any float dtype, summed in float64 chunk by chunk.

    States may be memory-mapped: they are read twice.
    """
    mean = sum(chunk.sum(0) for chunk in chunks(train)) / len(train)
    offset = mean if center == "mean" else torch.zeros_like(mean)
    C, heldout_C = (second_moment(states, offset) for states in (train, heldout))
    eigenvalues, eigenvectors = _eigh(C)
    heldout_eigenvalues, _ = _eigh(heldout_C)
    return Spectrum(mean, offset, eigenvalues, eigenvectors, heldout_eigenvalues, C, heldout_C)


def save(spectrum: Spectrum, folder: Path) -> None:
    tensors = {field.name: getattr(spectrum, field.name) for field in fields(spectrum)}
    torch.save(tensors, folder / _FILE)


def load(folder: Path) -> Spectrum:
    return Spectrum(**torch.load(folder / _FILE, weights_only=True))


def chunks(states: Tensor) -> Iterator[Tensor]:
    """Consecutive rows of states [N, D], CHUNK at a time, as float64."""
    for start in range(0, len(states), CHUNK):
        yield states[start : start + CHUNK].double()


def second_moment(states: Tensor, offset: Tensor) -> Tensor:
    """E (x - offset)(x - offset)^T [D, D] float64 over states [N, D]."""
    # About the offset at once: E x x^T - mu mu^T would lose the digits that a large mean takes.
    centered = (chunk - offset for chunk in chunks(states))
    return sum(y.T @ y for y in centered) / len(states)


def _eigh(C: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues descending and not below 0, eigenvectors as columns with fixed signs."""
    values, vectors = torch.linalg.eigh(C)
    values, vectors = values.flip(0), vectors.flip(1)
    values = torch.where(values > _rounding(values), values, 0.0)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return values, vectors * largest.sign()


def _participation(eigenvalues: Tensor) -> float:
    return (eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item()


def _rounding(eigenvalues: Tensor) -> float:
    """What an eigenvalue of 0 may come out as: 2e-12 of the largest, after sums of CHUNK products.

    States of float32 hold no directions below 4e-15 of it anyway.
    """
    return CHUNK * torch.finfo(torch.float64).eps * eigenvalues[0].item()
