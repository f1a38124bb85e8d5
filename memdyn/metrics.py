"""Geometry of hidden states: how tightly neighbours stay together, dimension, direction, change.

nv, nv_rel and nv_contract ask how far the k nearest neighbours of a token (in X, among the tokens
of both groups) spread after the next block; they are means over the tokens of a passage, then over
the passages of a group. The others are numbers of the states Y of a group. Sums over tokens and
passages are in float64; a number that its formula does not define is nan.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memdyn.neighbours import centred, nearest_neighbours, neighbour_variance
from memdyn.registry import register_metric
from memdyn.states import LayerStates, Values
from memdyn.theory import GROUPS

NV_FLOOR = 1e-10  # caps nv at 23.02585
RELATIVE_FLOOR = 1e-12  # of tr Cov Y


@register_metric("nv")
def nv(states: LayerStates) -> Values:
    """-ln(V_i(Y) + 1e-10); higher is tighter. Y -> cY subtracts 2 ln c: no measure of shape."""
    V = neighbour_variance(states.Y, states.neighbours).double()
    return _over_passages(states, -(V + NV_FLOOR).log())


@register_metric("nv_rel")
def nv_rel(states: LayerStates) -> Values:
    """-ln((V_i(Y) + e) / (tr Cov Y + e)), e = 1e-12 tr Cov Y, over all tokens; scale-free."""
    V = neighbour_variance(states.Y, states.neighbours).double()
    total = _total_variance(states.Y)
    floor = RELATIVE_FLOOR * total
    return _over_passages(states, ((total + floor) / (V + floor)).log())


@register_metric("nv_contract")
def nv_contract(states: LayerStates) -> Values:
    """-ln((V_i(Y) + e) / (V_i(X) + e)), e = 1e-12 tr Cov Y: > 0 where the block contracts."""
    before, after = (
        neighbour_variance(Z, states.neighbours).double() for Z in (states.X, states.Y)
    )
    floor = RELATIVE_FLOOR * _total_variance(states.Y)
    return _over_passages(states, ((before + floor) / (after + floor)).log())


@register_metric("pr")
def pr(states: LayerStates) -> Values:
    """Participation ratio tr(C)^2 / tr(C^2) of Y's covariance C, 1 .. d (Gao et al. 2017)."""
    of_passages = [
        _participation_ratio(states.Y[states.passage == i]) for i in range(len(states.group))
    ]
    return Values(_of_groups(states, _participation_ratio), torch.stack(of_passages))


@register_metric("max_share")
def max_share(states: LayerStates) -> Values:
    """Largest share of one token of the passage, or group, in tr Cov Y over all tokens, 0 .. 1.

    Pretrained models have massive activations (Sun et al. 2024): where a few tokens hold most of
    tr Cov Y, nv_rel and pr follow these, not the other thousands.
    """
    squares = centred(states.Y).double().square().sum(1)
    shares = squares / squares.sum()
    passages = [shares[states.passage == i].max() for i in range(len(states.group))]
    groups = [shares[states.group_of_token == g].max() for g in range(len(GROUPS))]
    return Values(torch.stack(groups), torch.stack(passages))


@register_metric("id2nn")
def id2nn(states: LayerStates) -> Values:
    """Intrinsic dimension from two neighbours, (m - 1) / sum ln(r2 / r1) over m tokens with r1 > 0.

    The ratios of Facco et al. (2017) in the maximum-likelihood form of Denti et al. (2022);
    neighbours within the group.
    """
    return Values(_of_groups(states, _two_neighbour_dimension))


@register_metric("aniso")
def aniso(states: LayerStates) -> Values:
    """Mean cosine of two different tokens, (|sum u_i|^2 - n) / (n (n - 1)) (Ethayarajh 2019)."""
    return Values(_of_groups(states, _mean_cosine))


@register_metric("cka0")
def cka0(states: LayerStates) -> Values:
    """Linear CKA of Y with the same block and tokens at epoch 0, 0 .. 1 (Kornblith et al. 2019)."""
    at = [states.group_of_token == g for g in range(len(GROUPS))]
    return Values(torch.stack([_linear_cka(states.Y_initial[rows], states.Y[rows]) for rows in at]))


def _over_passages(states: LayerStates, of_tokens: Tensor) -> Values:
    """Means of [n] float64 over tokens of a passage, then over passages of a group."""
    passages = _means(of_tokens, states.passage, len(states.group))
    return Values(_means(passages, states.group, len(GROUPS)), passages)


def _means(values: Tensor, label: Tensor, n: int) -> Tensor:
    sums = values.new_zeros(n).index_add(0, label, values)
    return sums / label.bincount(minlength=n)


def _of_groups(states: LayerStates, number: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([number(states.Y[states.group_of_token == g]) for g in range(len(GROUPS))])


def _total_variance(Z: Tensor) -> Tensor:
    """tr Cov Z, ddof 0."""
    return centred(Z).square().sum(dtype=torch.float64) / len(Z)


def _participation_ratio(Z: Tensor) -> Tensor:
    Z = centred(Z)
    if len(Z) < Z.shape[1]:
        Z = Z.T  # the same spectrum, fewer products
    return Z.square().sum(dtype=torch.float64) ** 2 / _square_norm(Z.T @ Z)


def _two_neighbour_dimension(Z: Tensor) -> Tensor:
    if len(Z) < 3:
        return torch.full((), torch.nan, dtype=torch.float64, device=Z.device)
    # Anew from differences: products of rows round short distances, and equal tokens are not at 0.
    r1, r2 = (Z[nearest_neighbours(Z, 2)] - Z[:, None]).norm(dim=2).double().sort(1).values.T
    r1, r2 = r1[r1 > 0], r2[r1 > 0]
    total = (r2 / r1).log().sum()
    return torch.where(total > 0, (len(r1) - 1) / total, torch.nan)


def _mean_cosine(Z: Tensor) -> Tensor:
    n = len(Z)
    direction = (Z / Z.norm(dim=1, keepdim=True)).sum(0, dtype=torch.float64)
    return (direction.square().sum() - n) / (n * (n - 1) or torch.nan)


def _linear_cka(X: Tensor, Y: Tensor) -> Tensor:
    X, Y = centred(X), centred(Y)
    return _square_norm(Y.T @ X) / (_square_norm(X.T @ X) * _square_norm(Y.T @ Y)).sqrt()


def _square_norm(matrix: Tensor) -> Tensor:
    return matrix.square().sum(dtype=torch.float64)
