"""Closed forms: the optimum, and gradient flow along the eigenvectors. Numbers only, no torch."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# D / k -> mean cosine of states and reconstructions: rough estimates published with the compressor
# that this family follows; not measured.
EXPECTED_COSINE = {48: 0.85, 24: 0.92, 12: 0.96, 6: 0.98, 3: 0.99}


def mse_pca(eigenvalues: ArrayLike, k: int) -> float:
    """sum_{i > k} lambda_i / D, of descending eigenvalues [D]: the least mse of rank k."""
    eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
    return float(eigenvalues[k:].sum() / len(eigenvalues))


def mode_strength(t: ArrayLike, eigenvalue: ArrayLike, start: ArrayLike, dim: int) -> NDArray:
    """s_i(t) = 1 / (1 + (1/s_i(0) - 1) exp(-8 lambda_i t / D)); arguments broadcast.

    v_i^T W^T W v_i under gradient flow, dW/dt = -grad mse, while the rows of W lie along
    eigenvectors: ds/dt = (8 lambda / D) s (1 - s). With steps of SGD t = lr * step. start > 0.
    """
    t, eigenvalue, start = np.asarray(t), np.asarray(eigenvalue), np.asarray(start)
    return 1 / (1 + (1 / start - 1) * np.exp(-8 * eigenvalue * t / dim))


def half_time(eigenvalue: ArrayLike, start: ArrayLike, dim: int) -> NDArray:
    """The time at which a mode's strength is 1/2: D / (8 lambda) log(1/s(0) - 1)."""
    return dim / (8 * np.asarray(eigenvalue)) * np.log(1 / np.asarray(start) - 1)
