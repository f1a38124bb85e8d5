"""Columns of a row: known states, theorems, a slow reference, states without a meaning."""

import math

import numpy as np
import pytest
import torch

from compressor import metrics as metrics  # registers them
from compressor.config import METRICS
from compressor.evaluate import mse_of
from compressor.reconstruction import Context, reconstruct
from compressor.registry import metrics as registry
from compressor.spectrum import CHUNK, spectrum

SMALL = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]], dtype=torch.float64)
OF_W = {"subspace_overlap", "orth_defect", "idem_defect", "is_degenerate", "mse_oracle_heldout"}
BOTH = {"mse", "rel_error", "rel_error_token", "cos", "cos_centered", "n_zero", "variance_ratio",
        "variance_ratio_total", "mse_pca", "cos_pca", "rel_pca", "gap_pca", "cos_mean_only",
        "participation"}  # fmt: skip


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skewed(n, dim, seed=0):
    scales = torch.arange(1, dim + 1, dtype=torch.float64).rsqrt()
    return (normal(n, dim, seed=seed) * scales) @ normal(dim, dim, seed=9) + 1


def row(X, W, heldout=None, center=None):
    """All columns of W on states X."""
    heldout = X if heldout is None else heldout
    ctx = Context(W, spectrum(X, heldout, center), X, heldout)
    columns = {}
    for name in registry.names():
        value = registry.resolve(name)(ctx)
        columns |= value if isinstance(value, dict) else {name: value}
    return columns


def test_default_metrics_are_all_and_give_all_columns():
    assert sorted(METRICS) == registry.names()
    columns = row(skewed(30, 5), normal(2, 5))
    assert set(columns) == OF_W | {f"{n}_{s}" for n in BOTH for s in ("train", "heldout")}
    assert all(type(value) in (float, int, bool) for value in columns.values())


def test_known_states_and_unit_vectors():
    """C = diag(1, 1/2, .., 2^-7) from eight rows along the axes."""
    X = torch.diag((8 * 2.0 ** -torch.arange(8, dtype=torch.float64)).sqrt())
    W = torch.eye(8, dtype=torch.float64)
    found = {k: row(X, W[:k]) for k in (1, 3, 4, 8)}
    assert found[1]["rel_error_train"] == pytest.approx(0.7057189, abs=5e-8)
    assert found[4]["rel_error_train"] == pytest.approx(0.2425356, abs=5e-8)
    assert found[4]["rel_pca_heldout"] == pytest.approx(0.2425356, abs=5e-8)
    assert found[3]["mse_train"] == pytest.approx(0.03027344, abs=5e-9)
    assert found[3]["gap_pca_train"] == pytest.approx(0, abs=1e-12)
    assert found[3]["subspace_overlap"] == pytest.approx(1)
    # 1e-8 beside a variance of 2^-7 to 1 is the .375's error.
    assert found[3]["variance_ratio_train"] == pytest.approx(0.375, abs=1e-7)
    assert found[3]["variance_ratio_total_train"] == pytest.approx(0.8784314, abs=5e-8)
    half = row(X, W[:3] / 2)
    assert half["mse_train"] == pytest.approx(0.15332031, abs=5e-9)
    assert half["variance_ratio_train"] == pytest.approx(0.0234375, abs=1e-8)
    whole = found[8]
    assert whole["mse_train"] == whole["mse_pca_train"] == whole["mse_oracle_heldout"] == 0
    assert not {"gap_pca_train", "gap_pca_heldout"} & set(whole)
    assert whole["cos_train"] == whole["cos_pca_heldout"] == pytest.approx(1)


def test_four_rows_and_one_direction():
    columns = row(SMALL, torch.tensor([[0.0, 0, 1]], dtype=torch.float64))
    assert columns["mse_train"] == pytest.approx(0.5833333, abs=5e-8)
    assert columns["gap_pca_train"] == pytest.approx(0.0540421, abs=5e-8)
    assert columns["subspace_overlap"] == pytest.approx(0.9374263, abs=5e-8)
    # A reconstruction of zero has the cosine 0; no state is zero.
    assert columns["cos_train"] == pytest.approx((0 + 0 + 1 + 0.5773503) / 4, abs=5e-8)
    assert columns["n_zero_train"] == 0


@pytest.mark.parametrize("center", [None, "mean"])
def test_columns_are_their_definitions(center):
    """In numpy, token by token and with its own means, variances and norms."""
    X, held, W = skewed(40, 6), skewed(25, 6, seed=1), normal(2, 6, seed=2) / 2
    columns = row(X, W, held, center)
    mu = X.numpy().mean(0)
    offset = mu if center else 0 * mu
    M = (W.T @ W).numpy()
    cos = lambda a, b: np.mean(
        [u @ v / math.hypot(*u) / math.hypot(*v) for u, v in zip(a, b, strict=True)]
    )
    V = np.linalg.eigh((X.numpy() - offset).T @ (X.numpy() - offset))[1][:, -2:]
    for split, x in (("train", X.numpy()), ("heldout", held.numpy())):
        xhat = offset + (x - offset) @ M
        best = offset + (x - offset) @ V @ V.T
        lengths = np.linalg.norm(x, axis=1)
        variances, variances_hat = x.var(0, ddof=1), xhat.var(0, ddof=1)
        eigenvalues = np.linalg.eigvalsh((x - offset).T @ (x - offset))
        expected = {
            "mse": ((xhat - x) ** 2).mean(),
            "rel_error": np.linalg.norm(xhat - x) / np.linalg.norm(x),
            "rel_error_token": (np.linalg.norm(xhat - x, axis=1) / lengths).mean(),
            "cos": cos(x, xhat),
            "cos_centered": cos(x - mu, xhat - mu),
            "n_zero": 0,
            "variance_ratio": (variances_hat / (variances + 1e-8)).mean(),
            "variance_ratio_total": variances_hat.sum() / variances.sum(),
            "mse_pca": ((best - x) ** 2).mean(),
            "cos_pca": cos(x, best),
            "rel_pca": np.linalg.norm(best - x) / np.linalg.norm(x),
            "gap_pca": ((xhat - x) ** 2).sum() / ((best - x) ** 2).sum() - 1,
            "cos_mean_only": cos(x, np.broadcast_to(mu, x.shape)),
            "participation": eigenvalues.sum() ** 2 / (eigenvalues**2).sum(),
        }
        found = {name: columns[f"{name}_{split}"] for name in expected}
        assert found == pytest.approx(expected, rel=1e-10)
    assert columns["mse_oracle_heldout"] == pytest.approx(eigenvalues[:-2].sum() / 25 / 6)
    assert columns["subspace_overlap"] == pytest.approx(
        np.linalg.norm(np.linalg.qr(W.numpy().T)[0].T @ V) ** 2 / 2
    )


@pytest.mark.parametrize("center", [None, "mean"])
def test_error_of_the_states_is_that_of_their_second_moment(center):
    X, W = skewed(40, 6), normal(3, 6) / 2
    s = spectrum(X, X[:9], center)
    for states, C in ((X, s.C), (X[:9], s.heldout_C)):
        direct = reconstruct(states, W, s).error2.mean() / 6
        torch.testing.assert_close(direct, mse_of(W[None], C)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("center", [None, "mean"])
def test_no_weights_beat_the_optimum(center):
    X, held = skewed(100, 8), skewed(30, 8, seed=1)
    for k in (1, 4, 7):
        best = spectrum(X, held, center).leading(k)
        for seed in range(10):
            for W in (normal(k, 8, seed=seed) / 3, best + 1e-4 * normal(k, 8, seed=seed)):
                columns = row(X, W, held, center)
                assert columns["gap_pca_train"] >= -1e-6
                assert columns["mse_heldout"] >= columns["mse_oracle_heldout"]
                assert columns["mse_pca_heldout"] >= columns["mse_oracle_heldout"] - 1e-12


def test_a_steep_spectrum_leaves_the_gap_its_digits():
    """mse_pca is 1e-11 of the largest eigenvalue there, whose rounding is 1e-5 of that."""
    X = skewed(200, 12) @ normal(12, 12, seed=3) * 1e-6
    X[:, 0] += 1 + normal(200, seed=4)
    X = X @ torch.linalg.qr(normal(12, 12, seed=5))[0]
    best = spectrum(X, X, None).leading(4)
    columns = row(X, best)
    assert columns["mse_pca_train"] > 0
    assert columns["gap_pca_train"] == 0
    near = row(X, torch.linalg.qr((best + 1e-9 * normal(4, 12)).T)[0].T)["gap_pca_train"]
    assert -1e-6 < near < 1e-3


def test_cosine_and_error_of_a_projection_obey_pythagoras():
    """cos^2 + rel^2 = 1 for every token."""
    X, W = skewed(40, 6), torch.linalg.qr(normal(6, 3))[0].T
    r = reconstruct(X, W, spectrum(X, X, None))
    cos2 = r.dot**2 / (r.x2 * r.xhat2)
    torch.testing.assert_close(cos2 + r.error2 / r.x2, torch.ones(40).double())


def test_chunks_change_no_metric():
    """The states once, and so often that they are read in three parts."""
    X, W = skewed(1 + CHUNK // 512, 4), normal(2, 4) / 2
    once, often = row(X, W, X[:5]), row(X.repeat(1024, 1), W, X[:5])
    n = 1024 * len(X)
    assert n > 2 * CHUNK
    for name in ("variance_ratio_train", "orth_defect"):  # ddof 1 knows the number of states
        assert often[name] == pytest.approx(once[name], rel=1e-6)
    for name in set(once) - {"variance_ratio_train"}:
        assert often[name] == pytest.approx(once[name], rel=1e-9), name


def test_a_large_mean_costs_variances_no_digits():
    X, W = normal(50, 4), torch.linalg.qr(normal(4, 2))[0].T
    near, far = (row(x, W) for x in (X, X + 2.0**20))
    for name in ("variance_ratio_train", "variance_ratio_total_train"):
        assert far[name] == pytest.approx(near[name], rel=1e-7)
    near, far = (row(x, W, center="mean") for x in (X, X + 2.0**20))
    assert far["cos_centered_train"] == pytest.approx(near["cos_centered_train"], rel=1e-7)


def test_zero_states_have_a_cosine_and_an_error_of_nought():
    X, W = skewed(40, 6), normal(2, 6)
    mixed = torch.cat([X, torch.zeros(10, 6, dtype=torch.float64)])
    alone, diluted = row(X, W), row(X, W, mixed)
    assert diluted["n_zero_heldout"] == 10
    assert diluted["n_zero_train"] == 0
    for name in ("cos", "rel_error_token", "cos_mean_only"):
        assert diluted[f"{name}_heldout"] == pytest.approx(0.8 * alone[f"{name}_train"])
    assert diluted["rel_error_heldout"] == pytest.approx(alone["rel_error_train"])


def test_weights_of_zero_have_a_row():
    columns = row(skewed(40, 6), torch.zeros(2, 6, dtype=torch.float64))
    assert columns["cos_train"] == columns["subspace_overlap"] == 0
    assert columns["rel_error_train"] == 1
    assert columns["variance_ratio_total_train"] == 0


def test_equal_states_have_no_variance_to_keep():
    """Their mean has a rounding error, which is not taken for a variance."""
    X = torch.full((11, 3), 0.1, dtype=torch.float64) * torch.tensor([1, 3, 7])
    columns = row(X, normal(1, 3))
    assert "variance_ratio_total_train" not in columns
    assert columns["variance_ratio_train"] == pytest.approx(0, abs=1e-12)
    assert columns["participation_train"] == pytest.approx(1)
    assert "gap_pca_train" not in columns  # one direction is all there is
    assert all(math.isfinite(value) for value in columns.values())


def test_a_split_of_one_state_has_no_variance():
    columns = row(skewed(40, 6), normal(2, 6), skewed(1, 6, seed=1))
    assert not {"variance_ratio_heldout", "variance_ratio_total_heldout"} & set(columns)
    assert "variance_ratio_train" in columns
    assert all(math.isfinite(value) for value in columns.values())


def test_a_subspace_that_is_not_unique_has_no_overlap():
    X = torch.diag(torch.tensor([3.0, 2, 2, 1], dtype=torch.float64))
    W = torch.eye(4, dtype=torch.float64)
    assert row(X, W[:2])["is_degenerate"] is True
    assert "subspace_overlap" not in row(X, W[:2])
    assert row(X, W[:3])["is_degenerate"] is False
    assert row(X, W[:3])["subspace_overlap"] == pytest.approx(1)


def test_float32_states_are_summed_in_float64():
    X = skewed(40, 6).float()
    assert row(X, normal(2, 6)) == row(X.double(), normal(2, 6))
