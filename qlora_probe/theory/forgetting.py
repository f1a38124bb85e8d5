"""What a fine-tuned model no longer answers: scores, flips, their test and the score's interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Forgetting:
    """Base against tuned model on the same N prompts.

    The interval and p are over prompts like these, for one trained model; they know nothing of
    another training seed.
    """

    n: int
    base_score: float  # mean over categories of the share passed
    tuned_score: float
    change: float  # tuned - base
    change_low: float  # 95 % interval of the change
    change_high: float
    verdict: str  # none, minor, significant; undetermined: no prompt was base-correct
    base_correct: int
    lost: int  # prompts passed by the base alone
    gained: int  # by the tuned model alone
    p: float  # one-sided sign test of lost against gained: each flip is as likely either way
    forgetting_rate: float | None  # lost / base_correct; None where no prompt was base-correct


def measure_forgetting(
    category: Sequence[str], base_pass: Sequence[bool], tuned_pass: Sequence[bool]
) -> Forgetting:
    """Three columns with a row per checked prompt, N >= 1, paired.

    A category counts the same whatever its number of prompts, so one flip in a category of m out
    of C changes the score by 1 / (C m). The exact sign test (McNemar's, one-sided) takes all
    flips alike: p = P(X >= lost), X ~ Binomial(lost + gained, 1/2); 1 without flips.
    """
    category = np.asarray(category)
    base, tuned = np.asarray(base_pass, bool), np.asarray(tuned_pass, bool)
    rows = [category == name for name in np.unique(category)]
    base_score, tuned_score = (float(np.mean([x[r].mean() for r in rows])) for x in (base, tuned))
    lost, gained = base & ~tuned, tuned & ~base
    n_lost, n_gained, base_correct = int(lost.sum()), int(gained.sum()), int(base.sum())
    flips = n_lost + n_gained
    change = tuned_score - base_score
    low, high = _interval([(int(lost[r].sum()), int(gained[r].sum()), int(r.sum())) for r in rows])
    return Forgetting(
        n=len(base),
        base_score=base_score,
        tuned_score=tuned_score,
        change=change,
        change_low=low,
        change_high=high,
        verdict=verdict(change) if base_correct else "undetermined",
        base_correct=base_correct,
        lost=n_lost,
        gained=n_gained,
        p=float(binomtest(n_lost, flips, alternative="greater").pvalue) if flips else 1.0,
        forgetting_rate=n_lost / base_correct if base_correct else None,
    )


def verdict(change: float) -> str:
    """none (change >= -.05), minor (>= -.15), significant; a convention, not a test."""
    change = round(change, 9)  # sums of shares miss -.15 by their rounding
    if change >= -0.05:
        return "none"
    return "minor" if change >= -0.15 else "significant"


def _interval(flips: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """95 % interval of the mean over categories of (gained - lost) / n; flips (lost, gained, n).

    Wilson's interval of each rate, put together from the distances of its ends (MOVER: Zou &
    Donner 2008), lost and gained of one category correlated as in a multinomial. A bootstrap over
    prompts has width 0 without flips and covers 26 to 52 % instead of 95 where few are lost out of
    14; this one 88 to 100 % (loss rates 0 to .98).
    """
    change = below = above = 0.0
    C = len(flips)
    for lost, gained, n in flips:
        a, b = gained / n, lost / n
        of_a, of_b = (binomtest(k, n).proportion_ci(method="wilson") for k in (gained, lost))
        mixed = 0 < a < 1 and 0 < b < 1
        r = -np.sqrt(a * b / ((1 - a) * (1 - b))) if mixed else 0.0
        change += (a - b) / C
        for_low, for_high = (a - of_a.low, of_b.high - b), (of_a.high - a, b - of_b.low)
        below += (for_low[0] ** 2 + for_low[1] ** 2 - 2 * r * for_low[0] * for_low[1]) / C**2
        above += (for_high[0] ** 2 + for_high[1] ** 2 - 2 * r * for_high[0] * for_high[1]) / C**2
    return float(change - np.sqrt(below)), float(change + np.sqrt(above))
