"""Initial weights."""

import pytest
import torch

from compressor import inits  # noqa: F401  registers them
from compressor.registry import matrices


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BASIS = torch.linalg.qr(normal(8, 8))[0]


def draw(name, rows, cols=8, seed=0):
    return matrices.resolve(name)(rows, cols, torch.Generator().manual_seed(seed), BASIS)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", matrices.names())
def test_rows_are_orthonormal_and_the_generator_decides(name, rows):
    W = draw(name, rows)
    assert W.shape == (rows, 8)
    assert W.dtype == torch.float64
    torch.testing.assert_close(W @ W.T, torch.eye(rows).double(), rtol=0, atol=1e-14)
    assert torch.equal(W, draw(name, rows))
    assert torch.equal(W, draw(name, rows, seed=1)) == (name == "pca")


def test_pca_is_the_leading_part_of_the_basis():
    assert torch.equal(draw("pca", 3), BASIS.T[:3])


def test_orthogonal_rows_point_everywhere_alike():
    """QR alone gives an upper triangle of one sign, so one row of mean about -.3 in its first
    entry. Of 2000 draws the mean is within 4 / sqrt(2000 * 8) = .03 of 0, the squares' of 1/8.
    """
    W = torch.stack([draw("orthogonal", 3, seed=seed) for seed in range(2000)])
    assert W.mean(0).abs().max() < 0.035
    assert (W.square().mean(0) - 1 / 8).abs().max() < 0.02


def test_small_differs_by_its_scale_alone():
    assert torch.equal(draw("small", 3), draw("orthogonal", 3))
