"""How the d subspace coordinates are shared between LoRA's A and B, and between the layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from plugins.registry import did_you_mean


@dataclass(frozen=True)
class Allocation:
    """`ratio` is the share of d that goes to B; None unless the mode is "fixed"."""

    mode: Literal["uniform", "fixed", "learned"]
    ratio: float | None = None


def parse_allocation(name: str) -> Allocation:
    """uniform | fixed_<rho> | learned; ValueError for another name or rho outside (0, 1)."""
    if name in ("uniform", "learned"):
        return Allocation(name)
    mode, _, digits = name.partition("_")
    try:
        ratio = float(digits) if mode == "fixed" else math.nan
    except ValueError:
        ratio = math.nan
    if math.isnan(ratio):
        hint = did_you_mean(name, ("uniform", "fixed_<rho>", "learned"))
        raise ValueError(f"allocation.name={name} is no allocation{hint}")
    if not 0 < ratio < 1:
        raise ValueError(f"allocation.name={name}: rho must lie in (0, 1)")
    return Allocation("fixed", ratio)


def split_ab(rho: float, d: int) -> tuple[int, int]:
    """(d_A, d_B) with d_B = floor(rho d + 1/2) and d_A = d - d_B; ValueError when one is 0.

    rho counts as the decimal it is written as: 0.29 of 50 is 14.5 and gives 15, where the
    float product is less than 14.5.
    """
    d_b = math.floor(Fraction(str(rho)) * d + Fraction(1, 2))
    if d_b in (0, d):
        raise ValueError(
            f"allocation.name=fixed_{rho} with subspace.d={d} leaves {'B' if d_b == 0 else 'A'} "
            f"no coordinate (d_A={d - d_b}, d_B={d_b}); both need at least 1"
        )
    return d - d_b, d_b


def layer_budgets(sizes: Sequence[int], d: int, how: Literal["params", "equal"]) -> list[int]:
    """d_l of every layer, sum d, each at least 1; proportional to `sizes` (parameters) or equal.

    Largest remainder, ties to the lower index. Layers that would get 0 have 1, and the others
    share the rest by the same rule. ValueError when d is less than the number of layers.
    """
    if d < len(sizes):
        raise ValueError(
            f"subspace.d={d} is less than the {len(sizes)} layers (the head is one); "
            "allocation.name=learned gives each at least 1"
        )
    weights = list(sizes) if how == "params" else [1] * len(sizes)
    budgets = [1] * len(sizes)
    sharing = list(range(len(sizes)))
    while True:
        left = d - (len(sizes) - len(sharing))
        shares = _largest_remainder([weights[i] for i in sharing], left)
        if 0 not in shares:
            break
        sharing = [i for i, share in zip(sharing, shares, strict=True) if share > 0]
    for i, share in zip(sharing, shares, strict=True):
        budgets[i] = share
    return budgets


def _largest_remainder(weights: list[int], total: int) -> list[int]:
    """Integers that sum to `total`, proportional to `weights` (Hamilton's method)."""
    whole = sum(weights)
    shares = [weight * total // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(weights[i] * total % whole))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def gate_bits(budgets: Sequence[int]) -> int:
    """Bits for k_l in 0..d_l of all layers in mixed radix: ceil(sum_l log2(d_l + 1)), exactly."""
    return (math.prod(d + 1 for d in budgets) - 1).bit_length()
