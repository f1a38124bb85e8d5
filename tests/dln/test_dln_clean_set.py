"""Means over samples of products of quadratic forms."""

import pytest
import torch

from dln.clean_set import CleanSet


@pytest.mark.parametrize("n", [9, 10, 40])  # d (d + 1) / 2 = 10
@pytest.mark.parametrize("chunks", [1, 4])
def test_mean_products_are_those_of_the_samples(n, chunks):
    """Of matrices that are not symmetric."""
    generator = torch.Generator().manual_seed(n)

    def normals(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, U, V = normals(2, n, 4), normals(2, 3, 4, 4), normals(2, 3, 4, 4)
    samples = CleanSet.of(x, normals(2, 3, 4))
    assert (samples.quartic is None) == (n == 9)
    expected = [
        sum((x[r, i] @ U[r, k] @ x[r, i]) * (x[r, i] @ V[r, k] @ x[r, i])
            for i in range(n) for k in range(3)) / n
        for r in range(2)
    ]  # fmt: skip
    torch.testing.assert_close(samples.mean_product(U, V, chunks), torch.stack(expected))


def test_fourth_moments_are_left_out_where_their_copies_are_large():
    x = torch.randn(2, 500, 20, dtype=torch.float64)  # 210^2 numbers a set: 353 kB
    teacher = torch.zeros(2, 20, 20, dtype=torch.float64)
    assert CleanSet.of(x, teacher, copies=190).quartic is not None
    assert CleanSet.of(x, teacher, copies=191).quartic is None
