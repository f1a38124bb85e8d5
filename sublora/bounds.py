"""Compression bounds: from the length of a message and a risk to a bound on the true risk.

A bound holds with probability >= 1 - delta over the m training units, at once for every model that
has a code. Losses are in bits or errors, KL in nats, code lengths in bits.
SubLoRA: Lotfi et al. 2023 (arXiv 2312.17173); token level: Lotfi et al. 2024 (arXiv 2407.18158).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_WIDTHS = 16


def delta_range(alpha: ArrayLike, vocab: int) -> NDArray:
    """Delta = log2(1 + (1 - alpha) V / alpha): how far -log2 p_alpha can vary, bits.

    p_alpha = (1 - alpha) p + alpha / V is the smoothed prediction over V outputs (SubLoRA);
    0 < alpha < 1.
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    return np.log2(1 + (1 - alpha) * vocab / alpha)


def price_bits(length_bits: ArrayLike, kind: str = "prefix_free") -> NDArray:
    """Bits that a message of L >= 1 bits costs under a prior over all messages of all lengths.

    prefix_free: L + log2 L + log2(L + 1); over all strings 2^-price = sum_L 1 / (L (L + 1)) = 1.
    paper: L + 2 log2 L as published (SubLoRA), which sums to pi^2 / 6 > 1: no prior, so what
    follows from it is no bound.
    """
    L = np.asarray(length_bits, dtype=np.float64)
    last = {"prefix_free": L + 1, "paper": L}[kind]
    return L + np.log2(L) + np.log2(last)


def kl_nats(length_bits: ArrayLike, search_bits: ArrayLike, price: str = "prefix_free") -> NDArray:
    """KL = ln 2 * (price + S): -ln of the prior mass of a message and of a choice among 2^S."""
    return math.log(2) * (price_bits(length_bits, price) + search_bits)


def bound(
    risk: ArrayLike,
    kl: ArrayLike,
    m: int,
    n: int,
    delta: ArrayLike,
    search_bits: ArrayLike,
    delta_range: ArrayLike,
) -> NDArray:
    """Upper bound on the true risk, of the mean loss of n of the m training units.

    n = m: risk + Delta sqrt((KL + ln(1/delta)) / (2 m)).
    n < m, drawn without replacement, apart from training; with r = n / (n + m):
      risk + Delta [sqrt((KL + ln(1/(r delta))) / (2 m))
                    + sqrt((S ln 2 + ln(1/((1-r) delta))) / (2 n))].
    Units are independent, or follow each other and each loss varies by Delta at most given the
    units before it; then the mean of the conditional expected losses is bounded. `kl` holds the
    search_bits S already; other arguments than m and n broadcast.
    """
    kl, delta = np.asarray(kl, dtype=np.float64), np.asarray(delta, dtype=np.float64)
    if n == m:
        return risk + delta_range * np.sqrt((kl - np.log(delta)) / (2 * m))
    r = n / (n + m)
    on_training = np.sqrt((kl - np.log(r * delta)) / (2 * m))
    # The published form has no S here, but alpha and the best run are chosen on the subsample.
    chosen = math.log(2) * np.asarray(search_bits, dtype=np.float64)
    on_sample = np.sqrt((chosen - np.log((1 - r) * delta)) / (2 * n))
    return risk + delta_range * (on_training + on_sample)


def predictable_bound(
    risk: ArrayLike,
    kl: ArrayLike,
    m: int,
    delta: ArrayLike,
    delta_range: ArrayLike,
    mean_square_range: ArrayLike,
) -> NDArray:
    """Bound on the mean conditional expected loss of m tokens whose ranges differ by context.

    risk + min_j [lam_j v / 8 + A / (lam_j m)], A = KL + ln(16/delta), v = mean over tokens of
    Delta_i^2 (`mean_square_range`), Delta_i <= Delta known before token i,
    lam_j = sqrt(8 A / m) / (Delta 2^(-j/4)), j = 0..15. The published token bound is
    sqrt(v (KL + ln(1/delta)) / (2 m)), at the best lam for v; but v is data, so lam must come from
    a grid fixed before, and ln 16 pays for the choice. Arguments broadcast.
    """
    A = np.asarray(kl, dtype=np.float64) + math.log(N_WIDTHS) - np.log(delta)
    widths = np.asarray(delta_range, dtype=np.float64)[..., None] * 2 ** (-np.arange(N_WIDTHS) / 4)
    A, v = A[..., None], np.asarray(mean_square_range, dtype=np.float64)[..., None]
    lam = np.sqrt(8 * A / m) / widths
    return risk + (lam * v / 8 + A / (lam * m)).min(-1)


def guess_bits(vocab: int) -> float:
    """log2 V, the loss of the uniform prediction: a bound that is not below says nothing."""
    return math.log2(vocab)


def guess_error(k: int, vocab: int) -> float:
    """1 - k/V, the top-k error of guessing: a bound that is not below says nothing."""
    return 1 - k / vocab
