"""Learning rate, Adam's first update, its state in 8 bits and its size."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from qlora_probe.config import OptimConfig
from qlora_probe.optim import BETAS, learning_rate, make_optimizer, moments, state_sizes

ADAMS = ("adamw", "adamw8bit", "paged_adamw8bit")
LR = 2e-4


def parameters(*sizes):
    return [nn.Parameter(torch.zeros(n)) for n in sizes]


def made(name, ps, min_8bit_size=1):
    return make_optimizer(OptimConfig(name=name, lr=LR), ps, min_8bit_size)


def gradients(n, steps):
    """[steps, n]; around a mean, of scales from 1 to 1e-3."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -3, n)
    return scale * (0.5 + torch.randn(steps, n, generator=generator))


def updated(optimizer, p, grads):
    for g in grads:
        p.grad = g.clone()
        optimizer.step()


def adam(grads):
    """m, v of Adam [n], float64, after these gradients."""
    m = v = torch.zeros(grads.shape[1], dtype=torch.float64)
    for g in grads.double():
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
    return m, v


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_learning_rate_of_ten_updates_with_two_of_warmup():
    """A rate of 0 comes after the last update only."""
    rates = [learning_rate(t, 10, 8.0, 0.2) for t in range(11)]
    assert rates == [4, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("n_steps", [1, 2, 25, 100])
@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.1, 0.99])
def test_every_update_learns_something(n_steps, ratio):
    rates = [learning_rate(t, n_steps, 1.0, ratio) for t in range(n_steps)]
    assert 0 < min(rates) <= max(rates) == 1
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert top == max(round(ratio * n_steps) - 1, 0)


@pytest.mark.parametrize("name", ADAMS)
def test_first_update_of_adam(name):
    """lr sign(g), of norm lr sqrt(n); m = .1 g, v = .001 g^2. 8 bits: the state is rounded after
    the update."""
    [p] = parameters(1000)
    optimizer = made(name, [p])
    [g] = gradients(1000, 1)
    updated(optimizer, p, [g])
    assert p.norm().item() == pytest.approx(0.0063246, rel=1e-4)
    assert torch.equal(p.sign(), -g.sign())
    m, v = moments(optimizer, p)
    tolerance = 1e-6 if name == "adamw" else 0.02
    assert m.norm().item() == pytest.approx(0.1 * g.norm().item(), rel=tolerance)
    assert v.sum().item() == pytest.approx(0.001 * g.square().sum().item(), rel=tolerance)


@pytest.mark.parametrize(("name", "for_m", "for_v"), [("adamw", 1e-5, 1e-5),
    ("adamw8bit", 0.04, 0.03), ("paged_adamw8bit", 0.04, 0.03)])  # fmt: skip
def test_moments_after_fifty_updates(name, for_m, for_v):
    p = nn.Parameter(torch.zeros(50, 100))
    optimizer = made(name, [p])
    grads = gradients(5000, 50)
    updated(optimizer, p, grads.view(50, 50, 100))
    for found, expected, tolerance in zip(
        moments(optimizer, p), adam(grads), (for_m, for_v), strict=True
    ):
        assert found.dtype == torch.float32
        assert found.shape == p.shape
        assert relative(found.flatten(), expected) < tolerance
        if name != "adamw":  # 8 bits it is
            assert relative(found.flatten(), expected) > 1e-4


def test_small_parameters_keep_a_state_in_32_bits():
    """As with bitsandbytes' own limit of 4,096 elements, which most adapters are under."""
    ps = parameters(4095, 4096)
    optimizer = made("adamw8bit", ps, min_8bit_size=4096)
    for p, n in zip(ps, (4095, 4096), strict=True):
        p.grad = gradients(n, 1)[0]
    optimizer.step()
    assert state_sizes(optimizer)[1] == 4096 / 8191
    exact, rounded = (relative(moments(optimizer, p)[0], adam(p.grad[None])[0]) for p in ps)
    assert exact < 1e-6 < 1e-4 < rounded


def test_paged_is_the_same_without_a_gpu():
    found = []
    for name in ("adamw8bit", "paged_adamw8bit"):
        [p] = parameters(5000)
        updated(made(name, [p]), p, gradients(5000, 5))
        found.append(p.detach())
    assert torch.equal(*found)


def test_no_weight_decay():
    for name in (*ADAMS, "sgd"):
        p = nn.Parameter(torch.ones(300))
        updated(made(name, [p]), p, torch.zeros(2, 300))
        assert torch.equal(p, torch.ones(300)), name


def test_sgd():
    [p] = parameters(3)
    optimizer = made("sgd", [p])
    updated(optimizer, p, torch.tensor([[1.0, -2.0, 0.0]] * 2))
    assert_close(p.detach(), -2 * LR * torch.tensor([1.0, -2.0, 0.0]))
    nbytes, share = state_sizes(optimizer)
    assert nbytes == 0
    assert math.isnan(share)


@pytest.mark.parametrize(("name", "nbytes", "share"), [
    # m, v in float32; a count of updates for each parameter
    ("adamw", 2 * 4 * 600 + 2 * 4, 0),
    # m, v in bytes; a scale for every 256, 1 + 2 of them; two tables of 256 codes for all
    ("adamw8bit", 2 * 600 + 2 * 4 * 3 + 2 * 4 * 256, 1),
    ("paged_adamw8bit", 2 * 600 + 2 * 4 * 3 + 2 * 4 * 256, 1),
])  # fmt: skip
def test_sizes_of_the_state(name, nbytes, share):
    ps = parameters(200, 400)
    optimizer = made(name, ps)
    assert state_sizes(optimizer)[0] == 0
    for p in ps:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert state_sizes(optimizer) == (nbytes, share)
