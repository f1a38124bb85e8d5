"""Quantities of W from the second moment, against matrices of D x D that are formed."""

import math

import pytest
import torch

from compressor.evaluate import idem_defect, mode_strength, mse_of, orth_defect, subspace_overlap
from compressor.spectrum import spectrum

D = 9
KS = torch.tensor([4, 2, 3, 4])
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stack():
    """Four W of 4, 2, 3 and 4 rows, padded."""
    W = normal(4, 4, D) / 3
    for w, k in zip(W, KS, strict=True):
        w[k:] = 0
    return W


def moments():
    X = normal(30, D, seed=1) * torch.arange(1, D + 1).rsqrt()
    return spectrum(X, X, None)


def test_error_is_that_of_the_states():
    X = normal(30, D, seed=1)
    for W, found in zip(stack(), mse_of(stack(), X.T @ X / 30), strict=True):
        expected = ((X @ W.T @ W - X) ** 2).mean()
        torch.testing.assert_close(found, expected, **EXACT)


def test_padded_stacks_are_their_members_alone():
    s, W = moments(), stack()
    V = s.eigenvectors
    together = [mse_of(W, s.C), orth_defect(W, KS), idem_defect(W), subspace_overlap(W, KS, V)]
    together.append(mode_strength(W, V, 5)[:, 2])
    for r, k in enumerate(KS):
        w, one = W[r : r + 1, :k], KS[r : r + 1]
        alone = [mse_of(w, s.C), orth_defect(w, one), idem_defect(w), subspace_overlap(w, one, V)]
        alone.append(mode_strength(w, V, 5)[:, 2])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[r : r + 1], b, **EXACT)


def test_defects_of_known_rows():
    W = torch.tensor([[[0.0, 0, 1], [0, 1, 1]]], dtype=torch.float64)
    assert orth_defect(W, torch.tensor([2])).item() == pytest.approx(1.2247449, abs=5e-8)
    assert idem_defect(W).item() == pytest.approx(1.6035675, abs=5e-8)


def test_defects_are_those_of_the_matrices():
    for W, k in zip(stack(), KS, strict=True):
        M = W.T @ W
        expected = (M @ M - M).norm() / M.norm()
        torch.testing.assert_close(idem_defect(W[None])[0], expected, **EXACT)
        expected = (W[:k] @ W[:k].T - torch.eye(k)).norm() / math.sqrt(k)
        torch.testing.assert_close(orth_defect(W[None], k[None])[0], expected, **EXACT)


def test_orthonormal_rows_have_no_defect():
    W = torch.linalg.qr(normal(D, 4))[0].T[None]
    assert orth_defect(W, torch.tensor([4])).item() < 1e-14
    assert idem_defect(W).item() < 1e-14


def test_overlap_of_one_direction_is_its_squared_cosine():
    """Rows 1,0,0; 0,2,0; 0,0,3; 1,1,1 and the third unit vector."""
    X = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]], dtype=torch.float64)
    s = spectrum(X, X, None)
    W = torch.tensor([[[0.0, 0, 5]]], dtype=torch.float64)  # of any length
    found = subspace_overlap(W, torch.tensor([1]), s.eigenvectors)
    assert found.item() == pytest.approx(0.9374263, abs=5e-8)
    assert found.item() == pytest.approx(s.eigenvectors[2, 0].item() ** 2)
    assert mse_of(W / 5, s.C).item() == pytest.approx(0.5833333, abs=5e-8)
    assert mse_of(W / 5, s.C).item() / s.mse_pca(1) - 1 == pytest.approx(0.0540421, abs=5e-8)


def test_overlap_is_one_within_the_subspace_and_nought_beside_it():
    V = moments().eigenvectors
    k = torch.tensor([3])
    mixed = (normal(3, 3) @ V[:, :3].T)[None]  # other rows, the same space
    assert subspace_overlap(mixed, k, V).item() == pytest.approx(1, abs=1e-12)
    assert subspace_overlap(V[:, 3:6].T[None], k, V).item() == pytest.approx(0, abs=1e-12)
    half = torch.stack([V[:, 0], V[:, 1], V[:, 7]])[None]
    assert subspace_overlap(half, k, V).item() == pytest.approx(2 / 3, abs=1e-12)


def test_overlap_of_dependent_rows_counts_the_space_they_span():
    """Three rows of rank two; a row 1e-6 as long as the others is still a direction."""
    V = moments().eigenvectors
    k = torch.tensor([3])
    twice = torch.stack([V[:, 0], V[:, 1], 2 * V[:, 0] - V[:, 1]])[None]
    assert subspace_overlap(twice, k, V).item() == pytest.approx(2 / 3, abs=1e-12)
    uneven = torch.stack([V[:, 0], V[:, 1], 1e-6 * V[:, 2]])[None]
    assert subspace_overlap(uneven, k, V).item() == pytest.approx(1, abs=1e-9)
    assert subspace_overlap(torch.zeros(1, 3, D).double(), k, V).item() == 0


def test_one_diverged_member_leaves_the_others_their_overlap():
    V, W = moments().eigenvectors, stack()
    expected = subspace_overlap(W, KS, V)
    W[1, 0, 0] = math.nan
    found = subspace_overlap(W, KS, V)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2, 3]], expected[[0, 2, 3]])


def test_modes_are_the_diagonal_of_the_map_in_the_eigenbasis():
    V, W = moments().eigenvectors, stack()
    for w, found in zip(W, mode_strength(W, V, D), strict=True):
        torch.testing.assert_close(found, (V.T @ w.T @ w @ V).diagonal(), **EXACT)
    assert mode_strength(V[:, :4].T[None], V, 6)[0].tolist() == pytest.approx([1] * 4 + [0] * 2)
    assert mode_strength(W, V, 2).shape == (4, 2)


def test_error_of_maps_that_lose_nothing_is_not_negative():
    """Square orthogonal W; the three traces cancel up to their rounding, of either sign."""
    W = torch.linalg.qr(normal(20, D, D)).Q
    found = mse_of(W, moments().C)
    assert (found >= 0).all()
    assert found.max() < 1e-14
