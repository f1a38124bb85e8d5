"""Metrics of a trained W, by their columns: <name>_train and <name>_heldout.

All are sums over every state of a split, in float64; what is not defined is left out.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compressor import evaluate
from compressor.reconstruction import Context, Reconstruction
from compressor.registry import register_metric

Row = dict[str, float]


def by_split(name: str, of: Callable[[Reconstruction], float | None], ctx: Context) -> Row:
    """`of` both splits, by column; None is left out."""
    return _columns(name, of(ctx.train), of(ctx.heldout))


@register_metric("mse")
def mse(ctx: Context) -> Row:
    """Mean over tokens and dimensions of (xhat - x)^2."""
    return by_split("mse", _mse, ctx)


@register_metric("rel_error")
def rel_error(ctx: Context) -> Row:
    """|Xhat - X|_F / |X|_F, and the mean over tokens of |xhat - x| / |x|, 0 where x = 0."""
    return {
        **by_split("rel_error", _rel_error, ctx),
        **by_split("rel_error_token", _rel_error_token, ctx),
    }


@register_metric("cos")
def cos(ctx: Context) -> Row:
    """Mean over tokens of cos(x, xhat), 0 where either is 0; n_zero tokens have x = 0.

    cos_centered: after subtracting the train split's mean from both. States far from the origin
    all have a large cosine with each other; cos_mean_only tells how large.
    """
    return {
        **by_split("cos", _cos, ctx),
        **by_split("cos_centered", _cos_centered, ctx),
        **by_split("n_zero", lambda r: int((r.x2 == 0).sum()), ctx),
    }


@register_metric("variance_ratio")
def variance_ratio(ctx: Context) -> Row:
    """Mean over dimensions of var(xhat_d) / (var(x_d) + 1e-8), ddof 1: small dimensions weigh as
    much as large ones. variance_ratio_total: sum_d var(xhat_d) / sum_d var(x_d).

    Left out where a split has one state, the total also where its states are all equal.
    """
    return {
        **by_split("variance_ratio", _variance_ratio, ctx),
        **by_split("variance_ratio_total", _variance_ratio_total, ctx),
    }


@register_metric("pca")
def pca(ctx: Context) -> Row:
    """The same of the optimum, the train split's PCA of rank k, and gap_pca = mse / mse_pca - 1.

    The gap is at least 0 on the train split (up to rounding), not so on the held-out one. Left out
    where mse_pca is 0.
    """
    spectrum = ctx.spectrum
    # From the states, which has more digits than a sum of small eigenvalues; but 0 where those are.
    best = [
        _mse(ctx.optimum.train) if spectrum.mse_pca(ctx.k) else 0.0,
        _mse(ctx.optimum.heldout) if spectrum.mse_pca_heldout(ctx.k) else 0.0,
    ]
    pairs = zip((ctx.train, ctx.heldout), best, strict=True)
    gaps = [_mse(r) / least - 1 if least else None for r, least in pairs]
    return {
        **_columns("mse_pca", *best),
        **_columns("cos_pca", _cos(ctx.optimum.train), _cos(ctx.optimum.heldout)),
        **_columns("rel_pca", _rel_error(ctx.optimum.train), _rel_error(ctx.optimum.heldout)),
        **_columns("gap_pca", *gaps),
    }


@register_metric("oracle")
def oracle(ctx: Context) -> Row:
    """The least mse that any W has on the held-out split, that of its own PCA."""
    return {"mse_oracle_heldout": ctx.spectrum.mse_oracle(ctx.k)}


@register_metric("subspace_overlap")
def subspace_overlap(ctx: Context) -> Row:
    """Of the row space of W with the leading k eigenvectors, 0..1; left out where these are not
    unique, which is_degenerate says.
    """
    if ctx.spectrum.is_degenerate(ctx.k):
        return {"is_degenerate": True}
    overlap = evaluate.subspace_overlap(ctx.W[None], _k(ctx), ctx.spectrum.eigenvectors)
    return {"subspace_overlap": overlap.item(), "is_degenerate": False}


@register_metric("orth_defect")
def orth_defect(ctx: Context) -> float:
    """|W W^T - I|_F / sqrt k."""
    return evaluate.orth_defect(ctx.W[None], _k(ctx)).item()


@register_metric("idem_defect")
def idem_defect(ctx: Context) -> float:
    """|M^2 - M|_F / |M|_F of M = W^T W."""
    return evaluate.idem_defect(ctx.W[None]).item()


@register_metric("mean_only")
def mean_only(ctx: Context) -> Row:
    """Mean over tokens of cos(x, mu): what answering the train split's mean would have."""
    mean2 = ctx.spectrum.mean.square().sum()
    return by_split("cos_mean_only", lambda r: _mean_cos(r.mean_dot, r.x2, mean2), ctx)


@register_metric("participation")
def participation(ctx: Context) -> Row:
    """(sum lambda)^2 / sum lambda^2 of the split's second moment, 1..D."""
    spectrum = ctx.spectrum
    return _columns("participation", spectrum.participation, spectrum.participation_heldout)


def _columns(name: str, train: float | None, heldout: float | None) -> Row:
    columns = {f"{name}_train": train, f"{name}_heldout": heldout}
    return {column: value for column, value in columns.items() if value is not None}


def _k(ctx: Context) -> Tensor:
    return torch.tensor([ctx.k])


def _mse(r: Reconstruction) -> float:
    return (r.error2.mean() / len(r.sum_x)).item()


def _rel_error(r: Reconstruction) -> float:
    return (r.error2.sum() / r.x2.sum()).sqrt().item()


def _rel_error_token(r: Reconstruction) -> float:
    return torch.where(r.x2 > 0, (r.error2 / r.x2).sqrt(), 0.0).mean().item()


def _cos(r: Reconstruction) -> float:
    return _mean_cos(r.dot, r.x2, r.xhat2)


def _cos_centered(r: Reconstruction) -> float:
    return _mean_cos(r.centered_dot, r.centered_x2, r.centered_xhat2)


def _mean_cos(dot: Tensor, a2: Tensor, b2: Tensor) -> float:
    norms = a2.sqrt() * b2.sqrt()
    return torch.where(norms > 0, dot / norms, 0.0).mean().item()


def _variances(r: Reconstruction) -> tuple[Tensor, Tensor] | None:
    """var(x_d) and var(xhat_d) [D], ddof 1; None of one state."""
    n = len(r.x2)
    if n == 1:
        return None
    return (r.sum_x2 - r.sum_x**2 / n) / (n - 1), (r.sum_xhat2 - r.sum_xhat**2 / n) / (n - 1)


def _variance_ratio(r: Reconstruction) -> float | None:
    if (variances := _variances(r)) is None:
        return None
    x, xhat = variances
    return (xhat / (x + 1e-8)).mean().item()


def _variance_ratio_total(r: Reconstruction) -> float | None:
    if (variances := _variances(r)) is None:
        return None
    x, xhat = (variance.sum() for variance in variances)
    return (xhat / x).item() if x > 0 else None
