"""Closed forms of the dynamics against steps along the gradient."""

import numpy as np
import pytest
import torch

from compressor.evaluate import mode_strength as strength_of
from compressor.objectives import mse_and_gradient
from compressor.spectrum import spectrum
from compressor.theory import EXPECTED_COSINE, half_time, mode_strength, mse_pca

LAMBDAS = np.array([1.0, 0.25])


def test_known_strengths_and_half_times():
    assert mode_strength(2, LAMBDAS, 0.01, 2) == pytest.approx([0.96786, 0.06945], abs=5e-6)
    assert half_time(LAMBDAS, 0.01, 2) == pytest.approx([1.14878, 4.59512], abs=5e-6)


def test_half_time_is_when_the_strength_is_a_half():
    t = half_time(LAMBDAS, 0.01, 2)
    assert mode_strength(t, LAMBDAS, 0.01, 2) == pytest.approx([0.5, 0.5])
    assert half_time(LAMBDAS, 0.5, 2) == pytest.approx([0, 0])


def test_strengths_start_where_told_and_end_at_one():
    """Also from above one; times along another axis than the modes."""
    start = np.array([0.01, 4.0])
    s = mode_strength(np.array([0, 100])[:, None], LAMBDAS, start, 2)
    assert s[0] == pytest.approx(start)
    assert s[1] == pytest.approx([1, 1])


def test_gradient_flow_along_eigenvectors_follows_the_closed_form():
    """Euler steps of 1e-4 up to t = 2: their error is O(1e-4), measured 7e-6."""
    X = torch.diag(torch.tensor([1.0, 0.25], dtype=torch.float64).mul(2).sqrt())[None]
    W, offset = 0.1 * torch.eye(2, dtype=torch.float64)[None], torch.zeros(2).double()
    dt = 1e-4
    for _ in range(20000):
        W = W - dt * mse_and_gradient(X, W, offset)[1]
    found = strength_of(W, torch.eye(2, dtype=torch.float64), 2)[0]
    assert found.tolist() == pytest.approx(mode_strength(2, LAMBDAS, 0.01, 2), abs=2e-5)


def test_least_error_is_that_of_the_states():
    X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = spectrum(X, X, None)
    for k in range(1, 7):
        assert mse_pca(s.eigenvalues.numpy(), k) == pytest.approx(s.mse_pca(k), rel=1e-12)
    assert mse_pca([4.0, 2, 1, 1], 1) == 1


def test_expected_cosines_rise_as_the_compression_falls():
    assert list(EXPECTED_COSINE) == sorted(EXPECTED_COSINE, reverse=True)
    assert list(EXPECTED_COSINE.values()) == sorted(EXPECTED_COSINE.values())
