"""The closed form that the runs are checked against: numbers in, numbers out.

With noise of covariance diag(h) / B on every gradient (Zhang et al. 2019), the directions are
independent, and with a_i = 1 - lr h_i

    E w_i(t)^2 = a_i^(2t) w_i(0)^2 + lr^2 h_i / B (1 - a_i^(2t)) / (1 - a_i^2).
"""

import numpy as np


def eigenvalues(dim: int, alpha: float) -> np.ndarray:
    """[dim] h_i = i^-alpha, the largest first."""
    return np.arange(1, dim + 1) ** -float(alpha)


def expected_mode_losses(
    h: np.ndarray, initial_square: np.ndarray, lr: float, batch_size: int | None, step: np.ndarray
) -> np.ndarray:
    """[steps, dim] h_i E w_i(t)^2 / 2 at the steps t, over the noise; their sum is the loss.

    initial_square: [dim] w_i(0)^2 of a run, or 1, its mean over seeds. lr < 2 / h_1.
    """
    a2 = (1 - lr * h) ** 2
    power = a2 ** np.asarray(step)[:, None]
    variance = 0.0 if batch_size is None else lr**2 * h / batch_size
    return h / 2 * (power * initial_square + variance * (1 - power) / (1 - a2))
