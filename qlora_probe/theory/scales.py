"""Scales of training: gradient noise, stability limits, clipping, barriers, rank correlation."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

FEWEST = 4  # points of a rank correlation
PAIRINGS = 9_999


@dataclass(frozen=True)
class NoiseScale:
    """Means over the steps given. None: no step told anything."""

    n: int  # steps that are in the means
    G2: float | None  # squared norm of the true gradient; an estimate, may be negative
    S: float | None  # trace of the covariance of one example's gradient; likewise
    ratio: float | None  # S / G2, in examples; None where G2 <= 0


def noise_scale(small: ArrayLike, big: ArrayLike, b: ArrayLike, B: ArrayLike) -> NoiseScale:
    """Gradient noise scale from the gradients of micro-batches and of the whole batch.

    small [T]: mean of |g_b|^2 over the micro-batches of a step; big [T]: |g_B|^2 of the step's
    gradient before clipping; b, B (or [T]): examples in a micro-batch (the harmonic mean where
    they differ) and in the batch. Each gradient is the mean over its own examples. Since
    E|g_b|^2 = |G|^2 + tr(Sigma) / b for independent examples,
        G2 = (B |g_B|^2 - b |g_b|^2) / (B - b),  S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)
    have the expectations |G|^2 and tr(Sigma) (McCandlish et al. 2018, appendix A.1). A step tells
    little, so both are averaged before they are divided. Steps with B = b, one micro-batch, and
    those with norms that are not finite are left out. G moves during training: the means are over
    what it was. With a loss per token and unequal lengths, gradients are means over examples only
    about.
    """
    small, big, b, B = np.broadcast_arrays(*(np.asarray(x, float) for x in (small, big, b, B)))
    known = (b < B) & np.isfinite(small) & np.isfinite(big)
    small, big, b, B = small[known], big[known], b[known], B[known]
    if not small.size:
        return NoiseScale(0, None, None, None)
    G2 = float(np.mean((B * big - b * small) / (B - b)))
    S = float(np.mean((small - big) / (1 / b - 1 / B)))
    return NoiseScale(small.size, G2, S, S / G2 if G2 > 0 else None)


def gradient_descent_limit(lr: float) -> float:
    """Hessian eigenvalue 2 / lr above which gradient descent is unstable on a quadratic."""
    return 2 / lr


def adam_limit(lr: float, b1: float) -> float:
    """Eigenvalue 2 (1 + b1) / ((1 - b1) lr) of P^-1 H above which Adam is unstable.

    P = sqrt(vhat) + eps taken as fixed (Cohen et al. 2022, "Adaptive gradient methods at the edge
    of stability"); 38 / lr at b1 = .9. In the first steps the bias correction of m divides by
    1 - b1^t < 1 and the limit is lower by about this factor. Without weight decay.
    """
    return 2 * (1 + b1) / ((1 - b1) * lr)


def clip_coefficient(norm: ArrayLike, c: float) -> np.ndarray:
    """min(1, c / (norm + 1e-6)), what torch's clip_grad_norm_ multiplies gradients by."""
    return np.minimum(1, c / (np.asarray(norm, float) + 1e-6))


def loss_barrier(a: ArrayLike, loss: ArrayLike) -> float:
    """Largest loss above the straight line between the ends, max of loss(a) - (1-a) L0 - a L1.

    loss [n] at theta_0 + a (theta_1 - theta_0), L0 and L1 its values at a = 0 and 1; points
    outside 0 .. 1 do not count. At least 0, which says that no point measured lies above; nan
    where a loss is. Raises ValueError where a = 0 or a = 1 is missing. (Frankle et al. 2020.)
    """
    a, loss = np.asarray(a, float), np.asarray(loss, float)
    ends = [np.flatnonzero(np.isclose(a, end)) for end in (0, 1)]
    if not all(len(end) for end in ends):
        raise ValueError(f"a loss barrier needs a = 0 and a = 1 among its points, got {a.tolist()}")
    (L0, *_), (L1, *_) = (loss[end] for end in ends)
    between = (a > -1e-8) & (a < 1 + 1e-8)
    return float((loss - (1 - a) * L0 - a * L1)[between].max())


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho; rho and p are None below 4 points and where x or y is constant."""

    n: int  # points with finite x and y
    rho: float | None
    p: float | None  # two-sided


def rank_correlation(x: ArrayLike, y: ArrayLike) -> RankCorrelation:
    """Spearman's rank correlation of x [N] and y [N] over the points where both are finite.

    p by permutation of the pairings: all of them up to 7 points, else 9,999 at random with a
    fixed seed, so never below 2e-4. (The t approximation calls four points in order p = 0; 2/24
    is right.)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    if n < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return RankCorrelation(n, None, None)
    x, y = (_standard_ranks(z) for z in (x, y))
    test = stats.permutation_test(
        (x,),
        lambda x, axis: (x * y).sum(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=PAIRINGS,
        random_state=np.random.default_rng(0),
    )
    return RankCorrelation(n, float(test.statistic), float(test.pvalue))


def _standard_ranks(z: np.ndarray) -> np.ndarray:
    ranks = stats.rankdata(z)
    ranks -= ranks.mean()
    return ranks / math.sqrt(np.square(ranks).sum())
