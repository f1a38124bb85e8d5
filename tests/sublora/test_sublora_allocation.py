"""Allocation of the coordinates: names, the split of A and B, budgets of layers, price of gates."""

import math

import numpy as np
import pytest

from sublora.allocation import Allocation, gate_bits, layer_budgets, parse_allocation, split_ab

GPT2 = [12_288] * 12 + [204_288]  # LoRA parameters of rank 4: q and v by block, head; V=50,304


@pytest.mark.parametrize(
    ("name", "mode", "ratio"),
    [
        ("uniform", "uniform", None),
        ("learned", "learned", None),
        ("fixed_0.2", "fixed", 0.2),
        ("fixed_.5", "fixed", 0.5),
        ("fixed_1e-3", "fixed", 0.001),
    ],
)
def test_names(name, mode, ratio):
    assert parse_allocation(name) == Allocation(mode, ratio)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("unifrom", "uniform"), ("fixed", "fixed_<rho>"), ("fixed_half", "fixed_<rho>"),
     ("fixed_nan", "fixed_<rho>"), ("learnd_0.2", "learned"), ("uniform_0.2", "uniform"),
     ("fixed0.2", "fixed_<rho>"), ("fixed_0.2_0.3", "fixed_<rho>")],
)  # fmt: skip
def test_an_unknown_name_is_answered_with_the_nearest_and_all(name, nearest):
    with pytest.raises(ValueError, match=r"allocation\.name") as error:
        parse_allocation(name)
    message = str(error.value)
    assert f"allocation.name={name} " in message
    assert f"did you mean '{nearest}'" in message
    assert "(known: fixed_<rho>, learned, uniform)" in message


@pytest.mark.parametrize("rho", ["0", "1", "0.0", "-0.2", "1.2", "inf", "-inf"])
def test_rho_lies_strictly_between_0_and_1(rho):
    with pytest.raises(ValueError, match=rf"allocation\.name=fixed_{rho}: rho .* \(0, 1\)"):
        parse_allocation(f"fixed_{rho}")


@pytest.mark.parametrize(
    ("rho", "d", "d_b"),
    [(0.2, 1000, 200), (0.5, 1000, 500), (0.8, 1000, 800), (0.2, 2000, 400), (0.5, 2000, 1000),
     (0.8, 2000, 1600), (0.5, 3, 2), (0.3, 4, 1), (0.29, 50, 15)],
)  # fmt: skip
def test_split(rho, d, d_b):
    assert split_ab(rho, d) == (d - d_b, d_b)


@pytest.mark.parametrize(("rho", "d", "side"), [(0.2, 2, "B"), (0.8, 2, "A"), (0.5, 1, "A")])
def test_a_side_without_coordinates_is_refused(rho, d, side):
    with pytest.raises(ValueError, match=rf"fixed_{rho} with subspace\.d={d} leaves {side} "):
        split_ab(rho, d)


def test_budgets_of_gpt2():
    assert layer_budgets(GPT2, 1000, "params") == [35] * 12 + [580]
    assert layer_budgets(GPT2, 2000, "params") == [70] * 11 + [69, 1161]
    assert layer_budgets(GPT2, 1000, "equal") == [77] * 12 + [76]


def test_a_layer_that_would_get_none_has_one():
    """The shares of 10 by 1 : 1 : 1000 are 0, 0, 10; of 6 by 1 : 1 : 1 : 9 : 9, 0, 0, 0, 3, 3."""
    assert layer_budgets([1, 1, 1000], 10, "params") == [1, 1, 8]
    assert layer_budgets([1, 1, 1, 9, 9], 5, "params") == [1, 1, 1, 1, 1]
    assert layer_budgets([1, 1, 1, 9, 9], 6, "params") == [1, 1, 1, 2, 1]


def test_budgets_sum_to_d_and_stay_within_one_of_the_quota():
    """Hamilton's method keeps each between the floor and the ceiling of d D_l / D (if >= 1)."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(1, 10_000, rng.integers(1, 15)).tolist()
        d = int(rng.integers(len(sizes), 3000))
        budgets = layer_budgets(sizes, d, "params")
        quotas = [d * size / sum(sizes) for size in sizes]
        assert sum(budgets) == d
        assert min(budgets) >= 1
        assert layer_budgets(sizes, d, "equal") == [
            d // len(sizes) + (i < d % len(sizes)) for i in range(len(sizes))
        ]
        if min(quotas) >= 1:
            assert all(
                math.floor(q) <= b <= math.ceil(q) for q, b in zip(quotas, budgets, strict=True)
            )


def test_more_layers_than_coordinates_are_refused():
    with pytest.raises(ValueError, match=r"subspace\.d=12 is less than the 13 layers"):
        layer_budgets(GPT2, 12, "params")


def test_gate_bits():
    """log2 of the number of (k_l), rounded up: 71.221494 and 83.958896 for GPT-2."""
    assert gate_bits(layer_budgets(GPT2, 1000, "params")) == 72
    assert gate_bits(layer_budgets(GPT2, 2000, "params")) == 84
    assert gate_bits([1]) == 1
    assert gate_bits([3, 3]) == 4
    assert gate_bits([3, 4]) == 5


def test_gate_bits_are_exact_where_logarithms_in_float64_are_not():
    """(2^60 + 1)^10 strings need 601 bits; ten float logarithms sum to 600.0."""
    assert sum(math.log2(2**60 + 1) for _ in range(10)) == 600.0
    assert gate_bits([2**60] * 10) == 601
