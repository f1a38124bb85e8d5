"""When does a passage become memorized, and does its geometry before training tell?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from memdyn.theory.columns import grid


@dataclass(frozen=True)
class Onset:
    """Onsets of the trained passages, each known to lie in an interval (previous, epoch]."""

    median: int | None  # Kaplan-Meier: first epoch by which half are memorized; None: fewer are
    times: np.ndarray  # [m] epochs with an onset, ascending
    survival: np.ndarray  # [m] share not yet memorized after each of them
    n_events: int  # passages with an onset
    n_censored: int  # passages never memorized up to the last epoch
    n_already: int  # passages memorized at the baseline epoch: in none of the other numbers
    onsets: dict[Any, tuple[int, int, bool]]  # passage_id -> previous, epoch, confirmed
    concordance: float | None  # P(the passage with the higher score memorizes earlier)
    p: float | None  # two-sided, permutation
    reason: str | None  # why concordance is None


def analyze_memorization_onset(
    data: Any,
    layer: int | None = None,
    metric: str = "nv_rel",
    *,
    threshold: float = 0.6,
    baseline_epoch: int = 0,
    persistence: int = 2,
    min_events: int = 10,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Onset:
    """Onset = first epoch that opens `persistence` memorized measured epochs in a row.

    Memorized: accuracy >= threshold. Runs that the last epoch cuts short count, unconfirmed. The
    Kaplan-Meier curve takes an onset at the right end of its interval, so the median is an upper
    bound by up to one gap of the schedule.

    Concordance (Harrell's C) over pairs of passages whose onsets differ, never = after all others:
    the share of pairs in which the passage with the higher metric at the baseline epoch memorizes
    earlier, ties of the metric 1/2. With nv, nv_rel (higher = tighter) C < .5 says that passages
    with lower compression memorize earlier. p permutes the scores over passages.
    Raises ValueError for a baseline epoch that was not measured, and as `columns.series`.
    """
    table = grid(data)
    baseline = table.index("baseline_epoch", baseline_epoch)
    ids = table.passages[table.is_trained].tolist()
    epochs = table.epochs[baseline:]
    accuracy, scores = (
        values[baseline:, table.is_trained]
        for values in (table.of_passage("accuracy"), table.of_layer(metric, layer))
    )
    memorized = accuracy >= threshold  # [E, n]; False for nan
    already = memorized[0]
    first = _first_opening(memorized, persistence)  # [n], E where never
    onset = np.append(epochs.astype(float), np.inf)[first]
    is_event = ~already & (first < len(epochs))
    onsets = {
        ids[i]: (
            int(epochs[first[i] - 1]),
            int(epochs[first[i]]),
            bool(first[i] + persistence <= len(epochs)),
        )
        for i in np.flatnonzero(is_event)
    }
    times, counts = np.unique(onset[is_event].astype(int), return_counts=True)
    at_risk = int((~already).sum())
    # Nobody is censored before the last epoch: the product of Kaplan & Meier telescopes.
    survival = 1 - np.cumsum(counts) / at_risk if at_risk else np.empty(0)
    half = np.flatnonzero(survival <= 0.5)

    x = scores[0]
    usable = ~already & np.isfinite(x)
    n_events = int((usable & is_event).sum())
    concordance = p = reason = None
    if n_events < min_events:
        reason = f"{n_events} onsets with a finite {metric} at epoch {baseline_epoch}, "
        reason += f"{min_events} needed"
    elif len(np.unique(onset[usable])) < 2:
        reason = "all passages memorize at the same measured epoch"
    else:
        rng = np.random.default_rng(seed)
        concordance, p = _concordance(x[usable], onset[usable], n_permutations, rng)
    return Onset(
        median=int(times[half[0]]) if len(half) else None,
        times=times,
        survival=survival,
        n_events=int(is_event.sum()),
        n_censored=int((~already & ~is_event).sum()),
        n_already=int(already.sum()),
        onsets=onsets,
        concordance=concordance,
        p=p,
        reason=reason,
    )


def _first_opening(memorized: np.ndarray, persistence: int) -> np.ndarray:
    """[n] index of the first epoch from which `persistence` in a row are memorized; E: none."""
    E = len(memorized)
    opens = [memorized[t : t + persistence].all(0) for t in range(E)]
    opens.append(np.ones(memorized.shape[1], bool))
    return np.argmax(opens, 0)


def _concordance(
    x: np.ndarray, onset: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    higher = (np.sign(x[:, None] - x) + 1) / 2  # [n, n]: 1 where the row's score is the higher one
    levels, level = np.unique(onset, return_inverse=True)
    shuffled = rng.permuted(np.tile(level, (n_permutations, 1)), axis=1)
    level = np.concatenate([level[None], shuffled])  # [1 + permutations, n]
    at = level[..., None] == np.arange(len(levels))  # [., n, levels]
    later = level[..., None] > np.arange(len(levels))
    n_lower_and_later = np.einsum("ij,bjl->bil", higher, later, optimize=True)
    n_pairs = (at[0].sum(0) * later[0].sum(0)).sum()
    C = (at * n_lower_and_later).sum((1, 2)) / n_pairs
    extreme = np.abs(C[1:] - 0.5) >= abs(C[0] - 0.5) - 1e-12
    return float(C[0]), float((1 + extreme.sum()) / (1 + n_permutations))
