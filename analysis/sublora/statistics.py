"""Statistics over few seeds: t intervals, t tests, fronts."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import ttest_1samp

from analysis.curves import LEVEL

FEWEST = 3  # seeds that make an interval


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Student's, of the mean.

    None for n < 3, and where all values are equal: they do not say what another seed would give.
    """
    if not _has_spread(values):
        return None
    low, high = ttest_1samp(values, 0.0).confidence_interval(level)
    return float(low), float(high)


def t_test(values: Sequence[float]) -> float | None:
    """Two-sided p of mean 0; None where there is no interval."""
    return float(ttest_1samp(values, 0.0).pvalue) if _has_spread(values) else None


def dominated_by(points: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Per point those that are nowhere larger and somewhere smaller; empty: on the front."""
    return {
        name: [
            other
            for other, at in points.items()
            if np.less_equal(at, point).all() and np.less(at, point).any()
        ]
        for name, point in points.items()
    }


def _has_spread(values: Sequence[float]) -> bool:
    return len(values) >= FEWEST and np.ptp(values) > 0
