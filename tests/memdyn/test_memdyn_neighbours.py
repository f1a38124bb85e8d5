"""Neighbours and their variance against the definition, at bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memdyn.neighbours import centred, nearest_neighbours, neighbour_variance


class LargestTensor(TorchDispatchMode):
    """The most elements that a tensor made meanwhile has."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def points(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sorted_rows(neighbours):
    return neighbours.sort(1).values


def by_definition(X, k):
    distances = (X[:, None] - X[None]).norm(dim=2)
    distances.fill_diagonal_(torch.inf)
    return sorted_rows(distances.topk(k, largest=False).indices)


@pytest.mark.parametrize("block", [1, 7, 50, 512])
def test_neighbours_are_those_of_the_definition(block):
    X = points(50, 6)
    torch.testing.assert_close(
        sorted_rows(nearest_neighbours(X, 5, block=block)), by_definition(X.double(), 5)
    )


def test_float32_states_far_from_the_origin_keep_their_neighbours():
    """At an offset of 1000, squares of uncentred rows round by more than these distances."""
    X = torch.cat([points(40, 8) * 0.01, points(40, 8, seed=1) * 0.01 + 1])
    torch.testing.assert_close(
        sorted_rows(nearest_neighbours(X + 1000, 4)), by_definition((X + 1000).double(), 4)
    )


def test_a_row_is_left_out_by_its_place_and_not_by_its_distance():
    X = points(6, 3).repeat_interleave(3, 0)
    expected = torch.tensor(
        [[j for j in range(i - i % 3, i - i % 3 + 3) if j != i] for i in range(18)]
    )
    torch.testing.assert_close(sorted_rows(nearest_neighbours(X, 2)), expected)


def test_as_many_neighbours_as_rows_are_refused():
    with pytest.raises(ValueError, match="4 neighbours need more than 4 rows, got 4"):
        nearest_neighbours(points(4, 2), 4)


def test_variance_is_that_of_the_gathered_neighbours():
    """In float64, an offset of 1000 included: 1e-9 of the definition."""
    for offset in (0, 1000):
        Z = points(60, 5, dtype=torch.float64) + offset
        neighbours = nearest_neighbours(points(60, 3), 7)
        expected = Z[neighbours].var(1, correction=0).sum(1)
        torch.testing.assert_close(neighbour_variance(Z, neighbours), expected, rtol=1e-9, atol=0)


def test_equal_states_are_centred_to_exact_zeros():
    """A mean summed in float32 is off by rounding, and has a covariance of its own."""
    assert (centred(points(1, 16).repeat(1001, 1)) == 0).all()


def test_variance_of_equal_states_is_zero():
    Z = points(1, 16).repeat(20, 1)
    assert (neighbour_variance(Z, nearest_neighbours(points(20, 3), 5)) == 0).all()


def test_variance_is_never_negative():
    Z = points(4, 16).repeat_interleave(20, 0)  # 0 but for rounding, of either sign
    V = neighbour_variance(Z, nearest_neighbours(Z, 15))
    assert (V >= 0).all()
    assert (V < 1e-5).all()


def test_variance_of_independent_states_has_its_expectation():
    """Clusters of 16, so a point's 15 neighbours are the rest of its cluster; Y ~ N(0, .25 I_32).

    E V = 32 * .25 * 14/15. Its standard error over 500 clusters: about .02.
    """
    centres = 100 * points(500, 8).repeat_interleave(16, 0)
    V = neighbour_variance(
        0.5 * points(8000, 32, seed=2), nearest_neighbours(centres + points(8000, 8, seed=1), 15)
    )
    assert V.mean() == pytest.approx(7.467, abs=0.05)


def test_memory_is_a_block_of_distances_and_never_the_gathered_states():
    X = points(600, 16)
    with LargestTensor() as largest:
        neighbours = nearest_neighbours(X, 15, block=32)
    assert largest.numel == 32 * 600
    with LargestTensor() as largest:
        neighbour_variance(X, neighbours)
    assert largest.numel <= 600 * 16
