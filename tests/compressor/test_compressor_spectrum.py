"""Second moments, eigenvalues, and the optimum that Eckart and Young's theorem gives."""

import dataclasses

import numpy as np
import pytest
import torch

from compressor.evaluate import mse_of
from compressor.spectrum import CHUNK, load, save, spectrum

SMALL = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def powers_of_a_half():
    """Eight rows along the axes, C = diag(1, 1/2, .., 2^-7)."""
    return torch.diag((8 * 2.0 ** -torch.arange(8, dtype=torch.float64)).sqrt())


def skewed(n, dim, seed=0):
    """Rows with a mean and a falling spectrum in no special directions."""
    scales = torch.arange(1, dim + 1, dtype=torch.float64).rsqrt()
    return (normal(n, dim, seed=seed) * scales) @ normal(dim, dim, seed=9) + 3


def test_least_errors_of_a_known_spectrum():
    X = powers_of_a_half()
    s = spectrum(X, X, None)
    torch.testing.assert_close(s.eigenvalues, 2.0 ** -torch.arange(8, dtype=torch.float64))
    assert [s.mse_pca(k) for k in (1, 2, 4, 7, 8)] == pytest.approx(
        [0.1240234375, 0.0615234375, 0.0146484375, 0.0009765625, 0], abs=1e-15
    )
    assert s.mse_pca(8) == s.mse_pca_heldout(8) == s.mse_oracle(8) == 0
    torch.testing.assert_close(s.eigenvectors, torch.eye(8, dtype=torch.float64))


def test_least_errors_of_four_rows():
    s = spectrum(SMALL, SMALL, None)
    assert [s.mse_pca(1), s.mse_pca(2)] == pytest.approx([0.5534251, 0.1367584], abs=5e-8)
    torch.testing.assert_close(s.C, SMALL.T @ SMALL / 4)


@pytest.mark.parametrize("center", [None, "mean"])
def test_eigenvectors_are_those_of_the_second_moment(center):
    X = skewed(200, 12)
    s = spectrum(X, X[:50] + 1, center)
    Y = X - X.mean(0) if center else X
    assert s.offset.any() == (center == "mean")
    torch.testing.assert_close(s.mean, X.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(s.C, Y.T @ Y / 200, rtol=1e-12, atol=1e-12)
    held = X[:50] + 1 - s.offset  # the offset is the train split's
    torch.testing.assert_close(s.heldout_C, held.T @ held / 50, rtol=1e-12, atol=1e-12)
    V = s.eigenvectors
    torch.testing.assert_close(V @ torch.diag(s.eigenvalues) @ V.T, s.C, rtol=1e-11, atol=1e-11)
    assert (s.eigenvalues.diff() <= 0).all()
    torch.testing.assert_close(s.heldout_eigenvalues.sum(), s.heldout_C.trace())
    torch.testing.assert_close(s.leading(5), V.T[:5])
    assert (V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all()
    assert s.participation == pytest.approx((s.C.trace() ** 2 / (s.C**2).sum()).item())
    assert s.participation_heldout == pytest.approx(
        (s.heldout_C.trace() ** 2 / (s.heldout_C**2).sum()).item()
    )


@pytest.mark.parametrize("center", [None, "mean"])
@pytest.mark.parametrize("k", [1, 3, 11, 12])
def test_no_map_of_rank_k_is_better_than_the_leading_eigenvectors(center, k):
    """Eckart-Young, and on the held-out split its own eigenvectors."""
    X, held = skewed(200, 12), skewed(60, 12, seed=1)
    s = spectrum(X, held, center)
    best = s.leading(k)[None]
    assert mse_of(best, s.C).item() == pytest.approx(s.mse_pca(k), abs=1e-12)
    assert mse_of(best, s.heldout_C).item() == pytest.approx(s.mse_pca_heldout(k), abs=1e-12)
    assert s.mse_oracle(k) <= s.mse_pca_heldout(k) + 1e-12
    for scale in (0.01, 0.3, 1):
        W = scale * torch.cat([normal(100, k, 12, seed=2), (best + normal(100, k, 12) / 100)])
        assert (mse_of(W, s.C) >= s.mse_pca(k) - 1e-12).all()
        assert (mse_of(W, s.heldout_C) >= s.mse_oracle(k) - 1e-12).all()


def test_chunks_and_memory_maps_change_nothing(tmp_path):
    """More rows than are read at once, the last chunk a short one; float32 sums would be off."""
    X = skewed(2 * CHUNK + 5, 3).float()
    path = tmp_path / "states.npy"
    np.save(path, X.numpy())
    mapped = torch.from_numpy(np.load(path, mmap_mode="r+"))
    for center in (None, "mean"):
        s = spectrum(mapped, mapped[:7], center)
        Y = X.double() - s.offset
        torch.testing.assert_close(s.mean, X.double().mean(0), rtol=1e-13, atol=0)
        torch.testing.assert_close(s.C, Y.T @ Y / len(Y), rtol=1e-12, atol=1e-12)


def test_a_large_mean_costs_the_centered_moments_no_digits():
    """E x x^T - mu mu^T of the same states is off by 1e-4."""
    X = normal(500, 4)
    far, near = (spectrum(x, x, "mean") for x in (X + 2.0**20, X))
    torch.testing.assert_close(far.eigenvalues, near.eigenvalues, rtol=1e-8, atol=0)


def test_a_sign_does_not_depend_on_the_order_of_the_states():
    X = skewed(50, 6)
    a, b = spectrum(X, X, None), spectrum(X.flip(0), X, None)
    torch.testing.assert_close(a.eigenvectors, b.eigenvectors, rtol=1e-9, atol=1e-9)


def test_equal_eigenvalues_have_no_leading_subspace_of_their_own():
    X = torch.diag(torch.tensor([3.0, 2, 2, 1]))
    s = spectrum(X, X, None)
    assert [s.is_degenerate(k) for k in (1, 2, 3, 4)] == [False, True, False, False]
    # Between rotated directions of 1e-10 the rounding of the largest eigenvalue is 1e-6.
    turned = (
        torch.diag(torch.tensor([1.0] + [1e-5] * 11)).double()
        @ spectrum(normal(20, 12), X.new_zeros(1, 12), None).eigenvectors
    )
    s = spectrum(turned, turned, None)
    assert [s.is_degenerate(k) for k in range(1, 12)] == [False] + [True] * 10
    near = spectrum(X + torch.diag(torch.tensor([0.0, 1e-6, 0, 0])), X, None)
    assert not near.is_degenerate(2)


def test_states_of_low_rank_are_reconstructed_without_an_error():
    """Fewer states than k: rounding leaves no eigenvalue, so that a gap is not one of noise."""
    X = normal(3, 10)
    s = spectrum(X, X @ normal(10, 10, seed=1), None)
    assert (s.eigenvalues > 0).sum() == 3
    assert s.mse_pca(3) == s.mse_pca(4) == 0
    assert s.mse_pca(2) > 0
    assert s.is_degenerate(4)
    assert not s.is_degenerate(3)
    assert s.mse_pca_heldout(3) > 0  # these have directions of their own


def test_many_equal_states_have_one_direction():
    """Their sums round alike: after 20000 the second eigenvalue comes out as 4e-14 of the first."""
    X = normal(1, 16).repeat(20000, 1)
    s = spectrum(X, X, None)
    assert s.mse_pca(1) == s.mse_pca_heldout(1) == s.mse_oracle(1) == 0


def test_what_is_loaded_is_what_was_saved(tmp_path):
    s = spectrum(skewed(20, 5), skewed(9, 5, seed=1), "mean")
    expected = s.mse_pca_heldout(2)
    save(s, tmp_path)
    loaded = load(tmp_path)
    for field in dataclasses.fields(s):
        tensor = getattr(loaded, field.name)
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor, getattr(s, field.name))
    assert loaded.mse_pca_heldout(2) == expected
