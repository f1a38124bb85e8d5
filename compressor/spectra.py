"""Eigenvalues of the second moment of synthetic states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from compressor.registry import register_spectrum, spectra

_SHORT = {"power": "a", "geometric": "q"}  # the parameter that name:value gives


@register_spectrum("power")
def power(dim: int, a: float) -> Tensor:
    """lambda_i = i^-a, i = 1..dim."""
    return torch.arange(1, dim + 1, dtype=torch.float64) ** -float(a)


@register_spectrum("geometric")
def geometric(dim: int, q: float) -> Tensor:
    """lambda_i = q^i, i = 0..dim-1."""
    return torch.tensor(float(q), dtype=torch.float64) ** torch.arange(dim)


@register_spectrum("list")
def listed(dim: int, values: Sequence[float]) -> Tensor:
    """These. ValueError unless they are dim."""
    if len(values) != dim:
        raise ValueError(f"{len(values)} eigenvalues for states of {dim} dimensions (lm.dim)")
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def parse_spectrum(spec: str | Mapping | Sequence[float]) -> Callable[[int], Tensor]:
    """dim -> eigenvalues [dim] float64, as lm.spectrum names them.

    `spec` is power:a, geometric:q, a list of numbers, or {name: {parameters}} as of any plugin.
    Raises ValueError naming lm.spectrum; what comes back does, too, where the eigenvalues are not
    dim, or not finite, >= 0 and not all 0.
    """
    with _naming(spec):
        resolved = spectra.resolve(_plugin(spec))

    def eigenvalues(dim: int) -> Tensor:
        with _naming(spec):
            values = resolved(dim)
            if not values.isfinite().all() or (values < 0).any() or not values.any():
                raise ValueError("eigenvalues are finite, >= 0 and not all 0")
            return values

    return eigenvalues


def _plugin(spec: str | Mapping | Sequence[float]) -> str | Mapping:
    """The spec of a plugin that a short form stands for."""
    if isinstance(spec, str):
        name, _, value = spec.partition(":")
        return {name: {_SHORT[name]: value}} if value and name in _SHORT else spec
    return spec if isinstance(spec, Mapping) else {"list": {"values": spec}}


@contextmanager
def _naming(spec: object) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"lm.spectrum={spec}: {error}") from error
