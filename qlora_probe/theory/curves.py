"""What a loss curve and its two evaluations say in a dozen numbers."""

import math
from collections.abc import Sequence

import numpy as np


def curve_summary(
    loss: Sequence[float], initial: float, final: float, final_train: float | None = None
) -> dict[str, float | int | bool | str | None]:
    """Scalars of one training run. None: not defined.

    loss [n], n >= 1: training loss of each optimiser step, its k-th number measured by the k-th
    step before that step's update. initial, final: loss on the held-out examples before the first
    and after the last update, nan where the run did not come that far. final_train: training loss
    of the final model, if it was evaluated; else the mean of the last fifth of the curve stands
    for it (dropout on, model still moving). The last fifth is the last max(1, n // 5) steps.

    initial_eval_loss, final_eval_loss
        initial and final; None where not finite.
    min_loss, max_loss
        of the finite training losses.
    reduction
        (initial - final) / initial, negative where the loss rose.
    reduction_class
        strong (reduction > .5), moderate (> .2), limited.
    plateau
        The means of both halves of the last fifth differ by less than 1 % of the larger one. None
        where the fifth has fewer than 4 steps or is not finite. A flat mean, not convergence: the
        learning rate decays to 0 there.
    overfit
        final > 1.1 final_train.
    steps_to_80
        Number, from 1, of the first step whose training loss has made 80 % of the fall from
        initial to final: loss <= initial - .8 (initial - final). So steps_to_80 - 1 updates were
        enough. One batch decides, a lucky one too. None where no step has, or final >= initial.
    diverged
        Any of these losses is not finite, or final > 1.5 initial.
    """
    loss = np.asarray(loss, float)
    finite = loss[np.isfinite(loss)]
    tail = loss[-max(1, len(loss) // 5) :]
    if final_train is None:
        final_train = tail.mean()
    excess = _finite(final - 1.1 * final_train)
    reduction = (initial - final) / initial if initial else math.nan
    reached = np.flatnonzero(loss <= initial - 0.8 * (initial - final))
    broken = len(finite) < len(loss) or not math.isfinite(initial) or not math.isfinite(final)
    return {
        "initial_eval_loss": _finite(initial),
        "final_eval_loss": _finite(final),
        "min_loss": float(finite.min()) if finite.size else None,
        "max_loss": float(finite.max()) if finite.size else None,
        "reduction": _finite(reduction),
        "reduction_class": _reduction_class(reduction) if math.isfinite(reduction) else None,
        "plateau": _plateau(tail),
        "overfit": None if excess is None else excess > 0,
        "steps_to_80": int(reached[0]) + 1 if final < initial and reached.size else None,
        "diverged": bool(broken or final > 1.5 * initial),
    }


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _reduction_class(reduction: float) -> str:
    if reduction > 0.5:
        return "strong"
    return "moderate" if reduction > 0.2 else "limited"


def _plateau(tail: np.ndarray) -> bool | None:
    if len(tail) < 4 or not np.isfinite(tail).all():
        return None
    first, second = (half.mean() for half in np.array_split(tail, 2))
    return math.isclose(first, second, rel_tol=0.01)
