"""Singular values, ranks and steps of low-rank products, against the products formed."""

import math

import pytest
import torch

from qlora_probe.lowrank import (
    difference_norm,
    effective_rank,
    product_singular_values,
    stable_rank,
)

B = torch.tensor([[1.0, 1], [0, 1], [2, 0]])
A = torch.tensor([[1.0, 0, 2, 0], [0, 1, 1, 1]])


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("s", "stable", "effective"),
    [((4, 3), 1.5625, 1.97963), ((8, 4, 2, 1), 1.328125, 3.11714)],
)
def test_ranks_of_known_singular_values(s, stable, effective):
    s = torch.tensor(s, dtype=torch.float64)
    assert stable_rank(s).item() == stable
    assert effective_rank(s).item() == pytest.approx(effective, abs=5e-6)


def test_a_known_product():
    s = product_singular_values(B, A, 2)
    assert s.tolist() == pytest.approx([11.29534, 3.52353], abs=5e-6)
    assert stable_rank(s).item() == pytest.approx(1.09731, abs=5e-6)
    assert effective_rank(s).item() == pytest.approx(1.73065, abs=5e-6)
    assert product_singular_values(B, A, -2).tolist() == s.tolist()


@pytest.mark.parametrize(("out", "r", "into"), [(40, 3, 30), (5, 8, 30), (40, 8, 5), (1, 1, 1)])
def test_singular_values_are_those_of_the_product(out, r, into):
    """Also of a rank above one of the sides."""
    b, a = normal(out, r, seed=0), normal(r, into, seed=1)
    found = product_singular_values(b, a, 0.5)
    expected = torch.linalg.svdvals(0.5 * b.double() @ a.double())
    assert found.shape == (min(out, r, into),)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[: len(found)], rtol=1e-12, atol=1e-12)


def test_no_matrix_of_the_size_of_the_product_is_formed():
    """Its 2^40 numbers would not fit."""
    b, a = normal(2**20, 2, seed=0), normal(2, 2**20, seed=1)
    assert product_singular_values(b, a, 1).shape == (2,)
    assert difference_norm(b, a, b, 2 * a, 1).item() == pytest.approx(
        product_singular_values(b, a, 1).norm().item()
    )


def test_ranks_are_those_of_equal_singular_values_and_know_no_scale():
    s = torch.ones(5, dtype=torch.float64)
    assert stable_rank(s).item() == 5
    assert effective_rank(s).item() == pytest.approx(5)
    t = torch.tensor([4.0, 3, 0], dtype=torch.float64)  # a zero adds nothing
    assert stable_rank(1e-9 * t).item() == pytest.approx(1.5625)
    assert effective_rank(1e-9 * t).item() == pytest.approx(1.97963, abs=5e-6)
    assert stable_rank(torch.stack([t, t])).tolist() == [1.5625] * 2


def test_an_update_of_zero_has_singular_values_but_no_rank():
    """B = 0 at the start of training."""
    s = product_singular_values(torch.zeros(3, 2), A, 2)
    assert s.tolist() == [0, 0]
    assert math.isnan(stable_rank(s))
    assert math.isnan(effective_rank(s))


def test_a_step_is_the_norm_of_the_difference_of_the_products():
    b0, a0, b1, a1 = (normal(*size, seed=i) for i, size in enumerate([(20, 3), (3, 9)] * 2))
    expected = (1.5 * (b1.double() @ a1.double() - b0.double() @ a0.double())).norm()
    torch.testing.assert_close(difference_norm(b1, a1, b0, a0, -1.5), expected, rtol=1e-12, atol=0)
    assert difference_norm(b1, a1, b1, a1, 1.5).item() == 0
    zero = torch.zeros_like(b0)  # the first step of training: all of the product
    expected = product_singular_values(b1, a1, 1.5).norm()
    found = difference_norm(b1, a1, zero, a0, 1.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_step_far_smaller_than_the_factors_is_exact():
    """The difference of two norms or products rounded to 1e-16 would keep two digits of it."""
    b0, a0 = normal(20, 3, seed=0).double(), normal(3, 9, seed=1).double()
    db = 2.0**-46 * normal(20, 3, seed=2).round().double()
    b0 = (b0 * 16).round() / 16  # so that b0 + db is exact
    found = difference_norm(b0 + db, a0, b0, a0, 1)
    torch.testing.assert_close(found, (db @ a0).norm(), rtol=1e-10, atol=0)
