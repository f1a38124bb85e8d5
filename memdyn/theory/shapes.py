"""Is a metric's course over training U-shaped, monotone or flat?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from memdyn.theory.columns import Series, number, series

FEWEST_EPOCHS = 5


@dataclass(frozen=True)
class Trajectory:
    """A trained group's course over E measured epochs, in units of the metric.

    The verdict stands in `shape`; the quadratic and the two lines are reported, they never decide.
    """

    shape: str  # u_shaped inverted_u flat monotone_decreasing monotone_increasing unclear too_few
    reason: str | None  # why unclear or too_few, or why there is no p
    p: float | None  # of a fall and then a rise (see `analyze_u_shape_trajectory`)
    p_inverted: float | None  # of a rise and then a fall
    turning_epoch: int | None  # of the mean's interior extremum when u_shaped or inverted_u
    fall: float | None  # largest decrease of the mean from an epoch to a later one, >= 0
    rise: float | None  # largest increase, >= 0
    min_change: float | None  # what a fall or rise must reach to count
    n: int | None  # trained passages with a value at every epoch; None: only means known
    epochs: np.ndarray  # [E]
    means: np.ndarray  # [E]
    sd_first: float | None  # SD over passages at the first epoch, ddof 1
    a: float | None  # means = a e^2 + b e + c, least squares over epochs e
    b: float | None
    c: float | None
    r_squared: float | None  # of that fit; None for constant means
    vertex: float | None  # -b / 2a, an epoch
    vertex_inside: bool | None  # strictly between the first and the last epoch
    lind_mehlum_p: float | None  # of the quadratic's (inverted) U, Lind & Mehlum 2010
    two_lines: dict[str, tuple[float, float]] | None  # slopes before and after, by regressor
    difference: np.ndarray  # [E] mean of trained minus novel passages; nan where unknown
    difference_low: np.ndarray  # [E] Welch interval of confidence 1 - alpha; nan where unknown
    difference_high: np.ndarray  # [E]


def analyze_u_shape_trajectory(
    data: Any,
    layer: int | None = None,
    metric: str = "nv_rel",
    *,
    alpha: float = 0.05,
    min_effect: float = 0.1,
) -> Trajectory:
    """The shape of the trained passages' mean over the epochs.

    Per passage i and interior epoch t the arms are a_i = y_i(first) - y_i(t) and
    b_i = y_i(last) - y_i(t). p(t) is the larger of both arms' one-sided one-sample t tests (an
    intersection-union test, Berger 1982); `p` is the smallest p(t) times the number of interior
    epochs (Bonferroni), so it holds its level for every course without a U, a saturating fall too.
    (Choosing t on one half of the passages, reading the arms on the other and pooling both ways
    does not: 7 % for 5 % on a fall that has levelled off, as the halves select for each other.)

    u_shaped: p < alpha and both arms of the mean at its interior minimum >= min_change, which is
    min_effect times the SD of the passages at the first epoch. inverted_u: the mirror image.
    Otherwise flat: no fall or rise of the mean reaches min_change; monotone_decreasing: it ends
    min_change or more below its start and never rises by as much between two epochs;
    monotone_increasing: the mirror image; unclear: none of these. too_few: < 5 epochs.

    Where only means are known, or fewer than 2 passages, the same without p; without an SD,
    min_change is min_effect times the range of the means.

    lind_mehlum_p is the t test of the fitted quadratic's slopes at the first and last epoch. Like
    the sign of the quadratic it takes a saturating fall for a U. two_lines: slopes of lines through
    the means up to and from the interior extremum to which the quadratic opens (Simonsohn 2018,
    without his choice of the break), on "epoch" and on "ln(1+epoch)".

    All tests take passages as units; they share one model, so a claim about training needs seeds.
    Raises ValueError as `columns.series`.
    """
    groups = series(data, metric, layer)
    own = groups["trained"]
    epochs, means = own.epochs, own.means
    n = None if own.values is None else own.values.shape[1]
    sd_first = None if own.sd is None or not len(own.sd) else number(own.sd[0])
    base = {"n": n, "epochs": epochs, "means": means, "sd_first": sd_first}
    difference = _difference(groups, alpha)
    if len(epochs) < FEWEST_EPOCHS or np.isnan(means).any():
        fields = dict.fromkeys(Trajectory.__dataclass_fields__) | base | difference
        reason = f"{metric} at {len(epochs)} epochs, {FEWEST_EPOCHS} needed"
        if np.isnan(means).any():
            reason = f"no trained passage has a finite {metric} at every epoch"
        return Trajectory(**fields | {"shape": "too_few", "reason": reason})

    fall, rise = _largest_rise(-means), _largest_rise(means)
    min_change = min_effect * (np.ptp(means) if sd_first is None else sd_first)
    p, p_inverted = (None, None) if sd_first is None or n is None else _turn_p(own.values)
    shape, reason, turn = _verdict(means, min_change, fall, rise, p, p_inverted, alpha)
    if p is None:
        reason = "; ".join(filter(None, [reason, "no test: fewer than 2 passages known"]))
    return Trajectory(
        **base,
        **difference,
        **_quadratic(epochs.astype(float), means),
        two_lines=_two_lines(epochs, means),
        shape=shape,
        reason=reason,
        p=p,
        p_inverted=p_inverted,
        turning_epoch=None if turn is None else int(epochs[turn]),
        fall=float(fall),
        rise=float(rise),
        min_change=float(min_change),
    )


def _turn_p(y: np.ndarray) -> tuple[float, float]:
    """Of a fall and then a rise, and of a rise and then a fall. y [E, n], n >= 2."""
    arms = np.stack([y[0] - y[1:-1], y[-1] - y[1:-1]])  # [2, interior, n]
    n = y.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = arms.mean(2) / (arms.std(2, ddof=1) / np.sqrt(n))
    t = np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf)  # 0/0: arms that are all zero
    return tuple(
        min(1.0, float(stats.t.sf(one, n - 1).max(0).min()) * t.shape[1]) for one in (t, -t)
    )


def _verdict(
    means: np.ndarray,
    min_change: float,
    fall: float,
    rise: float,
    p: float | None,
    p_inverted: float | None,
    alpha: float,
) -> tuple[str, str | None, int | None]:
    """Shape, reason and index of the turning epoch."""

    def counts(change: float) -> bool:
        return change >= min_change and change > 0

    def turns(y: np.ndarray, p: float | None) -> tuple[bool, bool, int]:
        """Whether y falls and rises by enough, whether that is proven, and where it turns."""
        t = 1 + int(y[1:-1].argmin())
        is_large = counts(min(y[0], y[-1]) - y[t])
        return is_large, is_large and (p is None or p < alpha), t

    (dips, is_u, bottom), (peaks, is_inverted, top) = turns(means, p), turns(-means, p_inverted)
    if is_u and not is_inverted:
        return "u_shaped", None, bottom
    if is_inverted and not is_u:
        return "inverted_u", None, top
    if not counts(fall) and not counts(rise):
        return "flat", None, None
    net = means[-1] - means[0]
    if counts(-net) and not counts(rise):
        return "monotone_decreasing", None, None
    if counts(net) and not counts(fall):
        return "monotone_increasing", None, None
    if is_u and is_inverted:
        return "unclear", "the mean goes below and above both of its ends", None
    if dips and not is_u:
        return "unclear", f"a dip of the mean that chance may explain (p = {p:.2g})", None
    if peaks and not is_inverted:
        return "unclear", f"a peak of the mean that chance may explain (p = {p_inverted:.2g})", None
    return "unclear", f"it falls by {fall:.3g} and rises by {rise:.3g}, but not as a U", None


def _largest_rise(y: np.ndarray) -> float:
    """max over i <= j of y_j - y_i"""
    return (y - np.minimum.accumulate(y)).max()


def _quadratic(e: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Least squares y = a e^2 + b e + c and the test of Lind & Mehlum (2010)."""
    X = np.stack([e**2, e, np.ones_like(e)], 1)
    Q, R = np.linalg.qr(X)
    coefficients = np.linalg.solve(R, Q.T @ y)
    a, b, c = coefficients
    residual, total = np.square(y - X @ coefficients).sum(), np.square(y - y.mean()).sum()
    dof = len(e) - 3
    slopes = np.array([[2 * e[0], 1, 0], [2 * e[-1], 1, 0]])  # of the parabola at both ends
    half = np.linalg.solve(R.T, slopes.T)
    se = np.sqrt(np.square(half).sum(0) * residual / dof)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.sign(a) * np.array([-1, 1]) * (slopes @ coefficients) / se
        vertex = -b / (2 * a)
        r_squared = 1 - residual / total
    return {
        "a": float(a),
        "b": float(b),
        "c": float(c),
        "r_squared": number(r_squared),
        "vertex": number(vertex),
        "vertex_inside": bool(e[0] < vertex < e[-1]),
        "lind_mehlum_p": number(stats.t.sf(t, dof).max()),
    }


def _two_lines(epochs: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float]]:
    opens_up = np.polyfit(epochs, y, 2)[0] >= 0
    t = 1 + int((y if opens_up else -y)[1:-1].argmin())
    regressors = {"epoch": epochs.astype(float), "ln(1+epoch)": np.log1p(epochs)}
    return {
        name: (_slope(x[: t + 1], y[: t + 1]), _slope(x[t:], y[t:]))
        for name, x in regressors.items()
    }


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _difference(groups: dict[str, Series], alpha: float) -> dict[str, np.ndarray]:
    """Trained minus novel by epoch, with a Welch interval where two passages of each are known."""
    trained, novel = groups["trained"], groups["novel"]
    difference = trained.means - novel.means
    low, high = np.full((2, len(difference)), np.nan)
    if trained.values is not None and min(trained.values.shape[1], novel.values.shape[1]) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            variances = [g.sd**2 / g.values.shape[1] for g in (trained, novel)]
            dof = sum(variances) ** 2 / sum(
                v**2 / (g.values.shape[1] - 1)
                for v, g in zip(variances, (trained, novel), strict=True)
            )
        half = stats.t.isf(alpha / 2, dof) * np.sqrt(sum(variances))
        low, high = difference - half, difference + half
    return {"difference": difference, "difference_low": low, "difference_high": high}
