"""Which layers change first, and which go with reproduction?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import gammaln

from memdyn.theory.columns import grid

SMALLEST_G = 0.2  # a small effect (Cohen 1988)


@dataclass(frozen=True)
class LayerPattern:
    """Change since the first epoch, trained against novel passages, by layer and epoch."""

    pattern: str | None  # early_first late_first simultaneous early_only late_only no_differences
    reason: str | None  # why pattern is None, or says little
    layers: np.ndarray  # [L]
    epochs: np.ndarray  # [E], without the first
    g: np.ndarray  # [L, E] Hedges' g of the changes: > 0 where trained passages rise more
    p: np.ndarray  # [L, E] Welch's t test
    q: np.ndarray  # [L, E] false discovery rate over the grid (Benjamini & Hochberg 1995)
    difference: np.ndarray  # [L, E] mean change of trained minus that of novel, metric's unit
    emergence: tuple[int | None, ...]  # [L] first epoch of a lasting difference; None: none


@dataclass(frozen=True)
class LayerCorrelations:
    """Spearman correlation of a metric with accuracy over the trained passages of one epoch."""

    layers: np.ndarray  # [L]
    rho: np.ndarray  # [L]; nan where undefined
    p: np.ndarray  # [L] two-sided, by the t distribution
    q: np.ndarray  # [L] false discovery rate over layers (Benjamini & Hochberg 1995)
    best_layer: int | None  # of the smallest p
    reason: str | None  # why there is no best layer


def analyze_layer_temporal_patterns(
    data: Any, metric: str = "nv_rel", *, alpha: float = 0.05
) -> LayerPattern:
    """Where trained and novel passages part, by Welch t tests of each passage's change.

    A layer's emergence is the first epoch with q < alpha and |g| >= .2 that the next measured
    epoch confirms. The layers are halved, a middle one belongs to both halves; a half emerges with
    its first layer: early_first where the lower half does before the upper one, early_only where
    the upper one never does, and so on. Missing values drop out test by test.
    Raises ValueError as `columns.grid`.
    """
    table = grid(data)
    layers, epochs = table.layers, table.epochs[1:]
    values = table.by_layer(metric)
    change = values[:, 1:] - values[:, :1]  # [L, E, 2N]
    trained, novel = change[..., table.is_trained], change[..., ~table.is_trained]
    (n1, m1, v1), (n2, m2, v2) = _moments(trained), _moments(novel)
    difference = m1 - m2
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.ttest_ind_from_stats(m1, v1**0.5, n1, m2, v2**0.5, n2, equal_var=False).pvalue
        dof = n1 + n2 - 2
        pooled = np.sqrt(((n1 - 1) * v1 + (n2 - 1) * v2) / dof)
        unbiased = np.exp(gammaln(dof / 2) - gammaln((dof - 1) / 2)) / np.sqrt(dof / 2)
        g = difference / pooled * unbiased  # Hedges 1981, the exact factor
    q = _false_discovery(p)
    apart = (q < alpha) & (np.abs(g) >= SMALLEST_G)
    lasting = apart[:, :-1] & apart[:, 1:] & (g[:, :-1] * g[:, 1:] > 0)
    emergence = tuple(int(epochs[row.argmax()]) if row.any() else None for row in lasting)
    pattern, reason = _pattern(emergence), None
    if not np.isfinite(p).any():
        pattern, reason = None, f"2 epochs and 2 passages of each group with {metric} needed"
    elif len(epochs) < 2:
        pattern, reason = None, "2 epochs after the first needed"
    elif len(layers) < 2:
        reason = "a single layer: nothing to compare"
    return LayerPattern(pattern, reason, layers, epochs, g, p, q, difference, emergence)


def layer_correlations(data: Any, epoch: int, metric: str = "nv_rel") -> LayerCorrelations:
    """Which layer's metric goes best with accuracy at one epoch, over trained passages.

    Raises ValueError for an epoch that was not measured, and as `columns.grid`.
    """
    table = grid(data)
    at, layers = table.index("epoch", epoch), table.layers
    accuracy = table.of_passage("accuracy")[at, table.is_trained]
    scores = table.by_layer(metric)[:, at, table.is_trained]  # [L, n]
    rho, p = np.full((2, len(layers)), np.nan)
    for i, x in enumerate(scores):
        known = np.isfinite(x) & np.isfinite(accuracy)
        x, y = x[known], accuracy[known]
        if len(x) > 2 and np.ptp(x) and np.ptp(y):
            rho[i], p[i] = stats.spearmanr(x, y)
    if np.isnan(p).all():
        reason = f"{metric} or accuracy is constant, or known for fewer than 3 passages"
        return LayerCorrelations(layers, rho, p, p, None, reason)
    best = int(layers[np.nanargmin(p)])
    return LayerCorrelations(layers, rho, p, _false_discovery(p), best, None)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean and variance (ddof 1) over the last axis, of finite values; nan where none."""
    known = np.isfinite(x)
    n = known.sum(-1)
    x = np.where(known, x, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = x.sum(-1) / n
        variance = np.square(np.where(known, x - mean[..., None], 0)).sum(-1) / (n - 1)
    return n, mean, variance


def _false_discovery(p: np.ndarray) -> np.ndarray:
    """Adjusted p of all finite ones together; the others stay nan."""
    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def _pattern(emergence: tuple[int | None, ...]) -> str:
    L = len(emergence)
    early, late = (
        min((e for e in half if e is not None), default=None)
        for half in (emergence[: (L + 1) // 2], emergence[L // 2 :])
    )
    if early is None and late is None:
        return "no_differences"
    if late is None:
        return "early_only"
    if early is None:
        return "late_only"
    if early == late:
        return "simultaneous"
    return "early_first" if early < late else "late_first"
