"""Theory of gradient noise: expected size and spread of one sample's gradient, without sampling.

Inputs N(0, I_d), targets A x + sigma z, z ~ N(0, I_o); g_i is the gradient of one sample's loss
(1/o) ||y_i - E x_i||^2, g its mean, Sigma its covariance. Let a = 2/o, D = E - A, P_k and Q_k the
products before and after layer k. Layer k of g_i is a Q_k^T r_i x_i^T P_k^T with
r_i = D x_i - sigma z_i. Isserlis' theorem gives, with U_k = D^T Q_k Q_k^T D and V_k = P_k^T P_k,

    mean ||g_i||^2 = a^2 sum_k [ tr U_k tr V_k + 2 tr U_k V_k + sigma^2 tr Q_k Q_k^T tr V_k ]
    ||g||^2        = a^2 sum_k tr U_k V_k
    Tr Sigma       = a^2 sum_k [ tr U_k tr V_k + tr U_k V_k + sigma^2 tr Q_k Q_k^T tr V_k ].

Where all V_k are multiples of I, Tr Sigma = (d + 1) ||g||^2 whatever E and A (sigma = 0): always
for a single matrix, at an aligned start, and for normal weights in the limit of wide layers, where
V_k = h^(k (1 - gamma)) (I + O(sqrt(k d / h))). At width h, for weights that make E small against A,
Tr Sigma / ||g||^2 - (d + 1) has a mean O(1/h) and, to leading order, the variance

    (d^2 / h) (tr (A^T A)^2 / (tr A^T A)^2 - 1/d) (L - 1) (2L - 1) / (3 L),

from the L - 1 independent errors, of variance (1 + delta_ij) / h per entry, that pile up in
V_1 .. V_{L-1}. Metrics on N test samples are off by O(1/sqrt(N)) besides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class GradientNoise(NamedTuple):
    """Population values of the metrics of the same names."""

    grad_norm_squared: np.ndarray  # ||g||^2
    trace_gradient_covariance: np.ndarray  # Tr Sigma


def gradient_noise(
    weights: Sequence[np.ndarray], teacher: np.ndarray, noise_std: float = 0.0
) -> GradientNoise:
    """Of a network W_0 .. W_{L-1}, each [*, n_{l+1}, n_l], and a teacher A [*, o, d]: [*]."""
    o, d = teacher.shape[-2:]
    before, after = [np.eye(d)], [np.eye(o)]
    for W in weights:
        before.append(W @ before[-1])
    for W in weights[::-1]:
        after.append(after[-1] @ W)
    D = before.pop() - teacher
    after.pop()
    squared, crossed = 0.0, 0.0
    for P, Q in zip(before, after[::-1], strict=True):
        QD = np.swapaxes(Q, -1, -2) @ D
        squared = squared + _square(QD @ np.swapaxes(P, -1, -2))
        crossed = crossed + (_square(QD) + noise_std**2 * _square(Q)) * _square(P)
    a = 2 / o
    return GradientNoise(a**2 * squared, a**2 * (crossed + squared))


def aligned_gradient_noise(
    u: np.ndarray, s: np.ndarray, *, n_layers: int, out_dim: int
) -> GradientNoise:
    """Of a balanced aligned network with singular values u [*, d] and a teacher's s [d]: [*].

    All products are diagonal. With w = u^(1/L), delta = u - s:
    ||g||^2 = a^2 L sum_i u_i^(2-2/L) delta_i^2 and
    Tr Sigma = ||g||^2 + a^2 sum_k (sum_i w_i^(2(L-1-k)) delta_i^2) (sum_i w_i^(2k)), k = 0..L-1.
    """
    L, a = n_layers, 2 / out_dim
    w2, delta2 = u ** (2 / L), (u - s) ** 2
    squared = a**2 * L * (w2 ** (L - 1) * delta2).sum(-1)
    crossed = sum((w2 ** (L - 1 - k) * delta2).sum(-1) * (w2**k).sum(-1) for k in range(L))
    return GradientNoise(squared, a**2 * crossed + squared)


def _square(M: np.ndarray) -> np.ndarray:
    return np.square(M).sum((-2, -1))
