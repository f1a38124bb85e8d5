"""Does the geometry of an epoch tell which passages will be memorized, beyond their likelihood?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit

from memdyn.theory.columns import grid

FOLDS, REPEATS = 5, 20
PERMUTATION_REPEATS = 2  # of the statistic that is permuted: a tenth of the fits
FEWEST = 10  # passages of either class
NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-7


@dataclass(frozen=True)
class Prediction:
    """Cross-validated discrimination of passages memorized at label_epoch, from those of epoch.

    An AUROC is the chance that a memorized passage gets the higher score of a pair: .5 = guessing.
    """

    epoch: int  # of the features
    label_epoch: int | None  # at which memorized is read; None: no epoch fits
    n: int  # trained passages with finite features
    n_memorized: int | None  # of these
    auroc_scores: float | None  # from the metric at all layers
    auroc_nll: float | None  # from the passage's nll alone
    auroc_both: float | None
    gain: float | None  # auroc_both - auroc_nll: what geometry adds
    gain_low: float | None  # 95 % interval of the gain
    gain_high: float | None
    p_scores: float | None  # one-sided, permutation: scores tell nothing
    p_nll: float | None
    reason: str | None  # why something is None


def predict_memorization(
    data: Any,
    epoch: int,
    metric: str = "nv_rel",
    *,
    threshold: float = 0.6,
    label_epoch: int | None = None,
    n_permutations: int = 200,
    seed: int = 0,
) -> Prediction:
    """Logistic regression on the scores of all layers, on nll, and on both, at one epoch.

    Label: accuracy >= threshold at label_epoch, by default the first epoch after `epoch` with 25
    to 75 % of the trained passages memorized. L2 penalty |w|^2 / 2 beside the summed log loss, on
    features standardised by the training part; stratified 5-fold cross-validation repeated 20
    times, AUROC the mean over the 100 test parts. gain_low, gain_high: corrected resampled t
    (Nadeau & Bengio 2003), since training parts overlap. p permutes labels against features; its
    statistic is the mean AUROC of the first two repeats.
    Fewer than 10 passages in either class: None. Trained passages only: of all passages, the label
    would be the membership.
    Raises ValueError for an epoch that was not measured, and as `columns.grid`.
    """
    table = grid(data)
    at = table.index("epoch", epoch)
    memorized = table.of_passage("accuracy")[:, table.is_trained] >= threshold  # [E, n]
    if label_epoch is None:
        rate = memorized.mean(1) if memorized.size else np.zeros(len(memorized))
        fits = (table.epochs > epoch) & (rate >= 0.25) & (rate <= 0.75)
        if not fits.any():
            reason = f"at no epoch after {epoch} 25 to 75 % of the trained passages are memorized"
            return _undefined(epoch, None, memorized.shape[1], None, reason)
        label_epoch = int(table.epochs[fits.argmax()])
    labels = memorized[table.index("label_epoch", label_epoch)]

    scores = table.by_layer(metric)[:, at, table.is_trained].T
    scores = scores[:, np.isfinite(scores).any(0)]  # [n, L]: layers with broken states left out
    nll = None
    if "nll" in data:
        nll = table.of_passage("nll")[at, table.is_trained][:, None]
    everything = scores if nll is None else np.hstack([scores, nll])
    known = np.isfinite(everything).all(1)
    y = labels[known]
    n, n_memorized = len(y), int(y.sum())
    if min(n_memorized, n - n_memorized) < FEWEST:
        reason = f"{n_memorized} of {n} passages memorized at epoch {label_epoch}: "
        reason += f"{FEWEST} of either kind needed"
        return _undefined(epoch, label_epoch, n, n_memorized, reason)
    if not scores.shape[1]:
        reason = f"no finite {metric} at epoch {epoch}"
        return _undefined(epoch, label_epoch, n, n_memorized, reason)

    rng = np.random.default_rng(seed)
    folds = np.stack([stratified_folds(y, rng) for _ in range(REPEATS)])
    orders = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    of_scores = cross_validated_auroc(scores[known], y, folds)
    p_scores = permutation_p(scores[known], y, folds, orders)
    if nll is None:
        fields = {"auroc_scores": float(of_scores.mean()), "p_scores": p_scores}
        empty = _undefined(epoch, label_epoch, n, n_memorized, "data has no column nll")
        return Prediction(**vars(empty) | fields)
    of_nll = cross_validated_auroc(nll[known], y, folds)
    of_both = cross_validated_auroc(everything[known], y, folds)
    gains = (of_both - of_nll).ravel()
    # Test parts are 1 / (FOLDS - 1) of the training parts; 1 / J alone takes them as independent.
    se = np.sqrt((1 / gains.size + 1 / (FOLDS - 1)) * gains.var(ddof=1))
    half = stats.t.isf(0.025, gains.size - 1) * se
    gain = float(gains.mean())
    return Prediction(
        epoch=epoch,
        label_epoch=label_epoch,
        n=n,
        n_memorized=n_memorized,
        auroc_scores=float(of_scores.mean()),
        auroc_nll=float(of_nll.mean()),
        auroc_both=float(of_both.mean()),
        gain=gain,
        gain_low=gain - float(half),
        gain_high=gain + float(half),
        p_scores=p_scores,
        p_nll=permutation_p(nll[known], y, folds, orders),
        reason=None,
    )


def cross_validated_auroc(X: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """AUROC of each test part [R, FOLDS]. X [n, d], y [n] or [R, n] bool, folds [R, n] in 0..4."""
    test = folds[:, None] == np.arange(FOLDS)[:, None]  # [R, FOLDS, n]
    n = X.shape[0]
    labels = np.broadcast_to(np.atleast_2d(y)[:, None], test.shape).reshape(-1, n)
    test = test.reshape(-1, n)
    score = ridge_logistic(X, labels, ~test)
    # A rank sum (Mann & Whitney): the training part, below all, leaves the order of the test part.
    ranks = stats.rankdata(np.where(test, score, -np.inf), axis=1)
    n_train, n_positive = (~test).sum(1), (test & labels).sum(1)
    wins = np.where(test & labels, ranks, 0).sum(1) - n_positive * n_train
    wins -= n_positive * (n_positive + 1) / 2
    return (wins / (n_positive * (n - n_train - n_positive))).reshape(-1, FOLDS)


def ridge_logistic(X: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scores [K, n] of all passages under K logistic regressions at once. Newton's method.

    X [n, d], y and train [K, n] bool. Each minimises log loss + |w|^2 / 2 over its training part,
    for features standardised by that part. Solved in common coordinates: a feature with standard
    deviation s in the training part has the penalty s^2 b^2 / 2 there, and the free intercept
    takes the mean.
    """
    spread = X.std(0)
    X = (X - X.mean(0)) / np.where(spread > 0, spread, 1)
    X1 = np.hstack([np.ones((len(X), 1)), X])
    n, D = X1.shape
    products = (X1[:, :, None] * X1[:, None]).reshape(n, D * D)
    train = train.astype(float)
    n_train = train.sum(1, keepdims=True)
    variance = train @ X**2 / n_train - (train @ X / n_train) ** 2
    variance = np.where(variance > 1e-12, variance, 1.0)  # constant in the part: coefficient 0
    penalty = np.hstack([np.zeros_like(n_train), variance])  # [K, D]
    coefficients = np.zeros_like(penalty)
    diagonal = np.arange(D)
    for _ in range(NEWTON_STEPS):
        chance = expit(coefficients @ X1.T)
        gradient = (train * (chance - y)) @ X1 + penalty * coefficients
        hessian = ((train * chance * (1 - chance)) @ products).reshape(-1, D, D)
        hessian[:, diagonal, diagonal] += penalty
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        coefficients -= step
        if np.abs(step).max() < NEWTON_TOLERANCE:
            break
    return coefficients @ X1.T


def permutation_p(X: np.ndarray, y: np.ndarray, folds: np.ndarray, orders: np.ndarray) -> float:
    """Labels move together with their folds, which thus stay stratified."""
    folds = folds[:PERMUTATION_REPEATS]
    measured = cross_validated_auroc(X, y, folds).mean()
    by_chance = cross_validated_auroc(
        X,
        np.repeat(y[orders], len(folds), 0),
        folds[:, orders].swapaxes(0, 1).reshape(-1, len(y)),
    )
    by_chance = by_chance.reshape(len(orders), -1).mean(1)
    return float((1 + (by_chance >= measured - 1e-12).sum()) / (1 + len(orders)))


def stratified_folds(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n] fold of each passage, both classes and all passages as evenly spread as can be."""
    order = np.concatenate([rng.permutation(np.flatnonzero(y == kind)) for kind in (True, False)])
    folds = np.empty(len(y), int)
    folds[order] = np.arange(len(y)) % FOLDS
    return folds


def _undefined(
    epoch: int, label_epoch: int | None, n: int, n_memorized: int | None, reason: str
) -> Prediction:
    fields = dict.fromkeys(Prediction.__dataclass_fields__)
    fields |= {"epoch": epoch, "label_epoch": label_epoch, "n": n, "n_memorized": n_memorized}
    return Prediction(**fields | {"reason": reason})
