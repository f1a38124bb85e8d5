"""Updates of a stack: torch's optimizers on each member, and the schedule's formula."""

import math

import pytest
import torch
from compressor_cases import config

from compressor.optim import Optimizer, clip, lr_factor

LR = torch.tensor([1e-3, 3e-2], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_updates_are_those_of_torch(name):
    """float32 against float32 in another order of operations: 1e-6 after 20 updates."""
    W = normal(2, 3, 5)
    theirs = [torch.nn.Parameter(w.clone()) for w in W]
    make = {
        "adamw": lambda w, lr: torch.optim.AdamW([w], lr, weight_decay=0.0),
        "sgd": lambda w, lr: torch.optim.SGD([w], lr),
    }[name]
    optimizers = [make(w, lr) for w, lr in zip(theirs, LR.tolist(), strict=True)]
    ours = Optimizer(config(train={"optimizer": name}).train, W)
    for step in range(20):
        gradient = normal(2, 3, 5, seed=step + 1) * 10.0 ** (step % 5 - 3)
        ours.update(W, gradient, LR.float())
        for w, g, optimizer in zip(theirs, gradient, optimizers, strict=True):
            w.grad = g.clone()
            optimizer.step()
    torch.testing.assert_close(W, torch.stack([w.detach() for w in theirs]), rtol=1e-6, atol=1e-6)


def test_moments_of_those_that_go_on_stay_theirs():
    train = config().train
    W, alone = normal(3, 2, 4), normal(3, 2, 4)[1:2].clone()
    stack, one = Optimizer(train, W), Optimizer(train, alone)
    gradient = normal(3, 2, 4, seed=1)
    stack.update(W, gradient, torch.full((3,), 1e-2))
    one.update(alone, gradient[1:2], torch.full((1,), 1e-2))
    stack.keep(torch.tensor([1]))
    W = W[1:2]
    for optimizer, w in ((stack, W), (one, alone)):
        optimizer.update(w, normal(1, 2, 4, seed=2), torch.full((1,), 1e-2))
    assert torch.equal(W, alone)


def test_gradients_are_clipped_each_as_torch_does():
    gradient = normal(3, 4, 5) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    clipped, norm = clip(gradient, 1.0)
    for g, c, n in zip(gradient, clipped, norm, strict=True):
        parameter = torch.nn.Parameter(torch.zeros_like(g))
        parameter.grad = g.clone()
        torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(parameter, 1.0), n)
        torch.testing.assert_close(parameter.grad, c)
    assert torch.equal(clip(gradient, None)[0], gradient)
    assert torch.equal(clip(torch.zeros(1, 2, 2), 1.0)[0], torch.zeros(1, 2, 2))


def test_masked_rows_of_any_stack_get_no_update():
    W = normal(1, 3, 4)
    gradient = normal(1, 3, 4, seed=1)
    W[:, 2] = gradient[:, 2] = 0
    optimizer = Optimizer(config().train, W)
    for _ in range(5):
        optimizer.update(W, gradient, torch.tensor([0.1]))
    assert torch.equal(W[:, 2], torch.zeros(1, 4))


def test_schedule_warms_up_linearly_and_ends_in_half_a_cosine():
    n = 40  # warm-up: 4 updates
    found = [lr_factor(step, n, "cosine") for step in range(n)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [0.5 * (1 + math.cos(math.pi * i / 36)) for i in range(36)]
    assert found[4:] == pytest.approx(expected, abs=1e-15)
    assert 0 < found[-1] < 0.002
    assert [lr_factor(step, 3, "constant") for step in range(3)] == [1.0] * 3


@pytest.mark.parametrize("n", range(1, 30))
def test_schedule_of_any_length_has_its_largest_rate_once_and_never_divides_by_zero(n):
    found = [lr_factor(step, n, "cosine") for step in range(n)]
    assert max(found) == 1.0
    assert min(found) > 0
