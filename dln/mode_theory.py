"""Theory of learning mode by mode: growth of singular values, plateaus of the loss, stability.

Inputs N(0, I_d), loss (1/o) E ||y - f(x)||^2, L layers, teacher singular values s. Gradient flow:
time t = learning rate * step. A start is balanced and aligned when all layers have the same
singular values and neighbours, and the teacher, share singular vectors; each singular value u of
the product then grows by itself.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import OdeSolution, solve_ivp
from scipy.special import boxcox, expit, exprel, hyp2f1

_PRECISE = {"rtol": 1e-12, "atol": 1e-13}


def mode_growth(
    t: ArrayLike, s: ArrayLike, u0: ArrayLike, *, n_layers: int, out_dim: int
) -> np.ndarray:
    """u(t) [T, d] of du/dt = L (2/o) u^(2 - 2/L) (s - u), u(0) = u0, from a balanced aligned start.

    t [T] >= 0, ascending; s [d] >= 0 (0: a silent mode, which decays); u0 > 0, [d] or one number.
    One and two layers in closed form, u = s + (u0 - s) e^(-2t/o) and u = s e^g / (e^g - 1 + s/u0)
    with g = 4 s t/o (Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics
    of learning in deep linear neural networks"); more layers integrated, relative error < 1e-8.
    """
    L, t = n_layers, np.asarray(t, float)
    s, u0 = np.broadcast_arrays(np.asarray(s, float), np.asarray(u0, float))
    if (s < 0).any() or (u0 <= 0).any():
        raise ValueError(f"s must be >= 0 and u0 > 0, got s={s}, u0={u0}")
    if L == 1:
        return s + (u0 - s) * np.exp(-2 / out_dim * t[:, None])
    if L == 2:  # divided by s e^g / u0, with exprel(g) = (e^g - 1) / g: silent modes included
        rate = 4 / out_dim * t[:, None]
        return u0 / (np.exp(-rate * s) + u0 * rate * exprel(-rate * s))
    u = np.repeat(u0[None], len(t), axis=0)  # right where u0 = s
    silent, rising, falling = s == 0, s > u0, (s > 0) & (s < u0)
    p = 2 - 2 / L
    u[:, silent] = (u0[silent] ** -p + p * L * 2 / out_dim * t[:, None]) ** (-1 / p)
    for modes, solve in ((rising, _rising), (falling, _falling)):
        if modes.any() and len(t):
            u[:, modes] = solve(t, s[modes], u0[modes], L, out_dim)
    return u


def mode_time(
    fraction: ArrayLike, s: ArrayLike, u0: ArrayLike, *, n_layers: int, out_dim: int
) -> np.ndarray:
    """The time at which u = fraction * s, exactly: arrays that broadcast, u0 <= fraction * s < s.

    With w = u^(1/L): 2 s t/o = [w^(2-L) / (2-L) + (w^2 / 2s) 2F1(1, 2/L; 1 + 2/L; u/s)] between
    the two ends, the integral of dw / (w^(L-1) (s - w^L)) in partial fractions. The half time of
    two layers is o/(4s) ln(s/u0 - 1).
    """
    L, fraction, s, u0 = n_layers, *(np.asarray(value, float) for value in (fraction, s, u0))
    if (u0 <= 0).any() or (fraction >= 1).any() or (u0 > fraction * s).any():
        raise ValueError(f"needs 0 < u0 <= fraction s < s, got {u0=}, {fraction=}, {s=}")
    return _elapsed(u0, fraction * s, s, L, out_dim)


def plateau_losses(s: ArrayLike, out_dim: int) -> np.ndarray:
    """The loss after k modes are learned: (1/o) sum_{i > k} s_i^2, k = 0..d, s descending.

    Small initial weights visit these saddles one after the other (Jacot, Ged, Simsek, Hongler &
    Gabriel 2021, arXiv:2106.15933). The last is 0.
    """
    squares = np.sort(np.square(s))
    return np.append(0, np.cumsum(squares))[::-1] / out_dim


def plateau_visits(
    step: ArrayLike, loss: ArrayLike, plateaus: ArrayLike, tolerance: float = 0.1
) -> np.ndarray:
    """First and last step [K, 2] of a loss curve's visit to each of K plateaus > 0.

    A visit lasts from the first time that loss <= (1 + tolerance) plateau to the first time that
    loss <= (1 - tolerance) plateau, linear between records; nan where the curve does not come or
    does not leave. exit - entry is its length in steps, log(exit / entry) in log time.
    ValueError for plateaus that do not fall, or are closer than the tolerance tells apart.
    """
    plateaus = np.asarray(plateaus, float)
    high, low = (1 + tolerance) * plateaus, (1 - tolerance) * plateaus
    if not (plateaus > 0).all() or (high[1:] >= low[:-1]).any():
        raise ValueError(
            f"plateaus must be positive, fall, and lie {tolerance:.0%} apart, got {plateaus}"
        )
    step, loss = np.asarray(step, float), np.asarray(loss, float)
    visits = [[_first_below(step, loss, edge) for edge in edges] for edges in (high, low)]
    return np.array(visits).T


def plateau_share(visits: ArrayLike) -> float:
    """Share of the time from leaving the first plateau to leaving the last that plateaus take.

    visits [K, 2] as `plateau_visits` gives them. 1 is a staircase with vertical steps; an
    exponential decay has (K - 1) ln((1 + tolerance) / (1 - tolerance)) / ln(first / last plateau),
    whatever its rate. nan for a curve that does not leave the last.
    """
    entry, leave = np.asarray(visits).T
    return float((leave - entry)[1:].sum() / (leave[-1] - leave[0]))


def sharpness(s: ArrayLike, *, n_layers: int, out_dim: int) -> float:
    """Largest Hessian eigenvalue (2/o) L s_1^(2 - 2/L) at the balanced minimum of teacher s.

    There the Hessian has the eigenvalues (2/o) sum_k s_i^(2(L-1-k)/L) s_j^(2k/L), k = 0..L-1, and
    zeros. No minimum is flatter (Mulayoff & Michaeli 2020, "Unique properties of flat minima in
    deep networks"). Inputs of covariance S instead of I change it by a factor of at most its
    largest eigenvalue.
    """
    return 2 / out_dim * n_layers * float(np.max(s)) ** (2 - 2 / n_layers)


def stability_limit(s: ArrayLike, *, n_layers: int, out_dim: int) -> float:
    """Learning rate 2 / sharpness: gradient descent leaves the minimum at any larger one."""
    curvature = sharpness(s, n_layers=n_layers, out_dim=out_dim)
    return 2 / curvature if curvature else math.inf  # a teacher of zeros


def _rising(t: np.ndarray, s: np.ndarray, u0: np.ndarray, L: int, out_dim: int) -> np.ndarray:
    """u(t) [T, d] for u0 < s: one curve for all modes, in their own time since u = s/2.

    With v = u/s, theta = L (2/o) s^(2-2/L) (t - half time) and y = ln(v / (1 - v)):
    dy/dtheta = v^(1-2/L). From the middle, errors shrink towards both ends; from a small u0 they
    would grow by (s/u0)^(1-2/L).
    """

    def curve(end: float) -> OdeSolution:
        def slope(_: float, y: np.ndarray) -> np.ndarray:
            return expit(y) ** (1 - 2 / L)

        return solve_ivp(slope, (0, end), [0], "DOP853", dense_output=True, **_PRECISE).sol

    theta = L * 2 / out_dim * s ** (2 - 2 / L) * (t[:, None] - _elapsed(u0, s / 2, s, L, out_dim))
    past, future = curve(min(theta.min(), -1)), curve(max(theta.max(), 1))
    flat = theta.ravel()
    y = np.where(flat < 0, past(np.minimum(flat, 0))[0], future(np.maximum(flat, 0))[0])
    return s * expit(y).reshape(theta.shape)


def _falling(t: np.ndarray, s: np.ndarray, u0: np.ndarray, L: int, out_dim: int) -> np.ndarray:
    """u(t) [T, d] for 0 < s < u0, through y = ln(u / (u - s)): y' = L (2/o) s u^(1-2/L)."""

    def product(y: np.ndarray) -> np.ndarray:
        return s / -np.expm1(-y)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        return L * 2 / out_dim * s * product(y) ** (1 - 2 / L)

    start = -np.log1p(-s / u0)
    span = (0, t[-1] or 1)  # a span of 0 gives no values
    return product(solve_ivp(slope, span, start, "DOP853", t_eval=t, **_PRECISE).y.T)


def _elapsed(u0: np.ndarray, u: np.ndarray, s: np.ndarray, L: int, out_dim: int) -> np.ndarray:
    """Time from u0 to u, both between 0 and s; see `mode_time`."""

    def antiderivative(u: np.ndarray) -> np.ndarray:
        w = u ** (1 / L)
        power = boxcox(w, 2 - L)  # (w^(2-L) - 1) / (2 - L), the logarithm for two layers
        return power + w**2 / (2 * s) * hyp2f1(1, 2 / L, 1 + 2 / L, u / s)

    return out_dim / (2 * s) * (antiderivative(u) - antiderivative(u0))


def _first_below(step: np.ndarray, loss: np.ndarray, edge: float) -> float:
    """The step at which the loss first falls to the edge, linear between records; nan: never."""
    below = loss <= edge
    after = int(below.argmax())
    if not below.any() or after == 0:
        return step[0] if below.any() else np.nan
    here = slice(after - 1, after + 1)
    return float(np.interp(-edge, -loss[here], step[here]))
