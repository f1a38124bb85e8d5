"""Stacked optimizers and criteria: each replica moves as torch.optim moves it."""

import pytest
import torch
from dln_cases import context, reference_losses, small, train

from dln.criteria import CRITERIA, get_criterion
from dln.model import gradient_factors
from dln.registry import optimizers

SETTINGS = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"betas": [0.5, 0.9], "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.5, 0.9), "weight_decay": 0.3}),
]


@pytest.mark.parametrize(("name", "params"), SETTINGS)
def test_each_replica_moves_as_with_torch(name, params):
    """Random gradients, a rate per replica, half-way a decay and a replica that leaves."""
    rates = torch.tensor([0.1, 0.01, 0.03], dtype=torch.float64)
    weights = context([(4, 3), (2, 4)], 1, replicas=3).weights
    theirs = [[W[r].clone() for W in weights] for r in range(3)]
    others = [getattr(torch.optim, name)(theirs[r], lr=rates[r].item(), **params) for r in range(3)]
    ours = optimizers.resolve({"name": name, "params": params})(weights, rates)
    alive = [0, 1, 2]
    for step in range(12):
        if step == 6:
            keep = torch.tensor([0, 2])
            alive, weights = [0, 2], [W[keep] for W in weights]
            ours.keep(keep)
            ours.scale_lr(0.5)
            for other in others:
                other.param_groups[0]["lr"] *= 0.5
        lefts = context([(5, 4), (5, 2)], 1, replicas=3, seed=step).weights
        rights = context([(5, 3), (5, 4)], 1, replicas=3, seed=100 + step).weights
        factors = list(zip(lefts, rights, strict=True))
        ours.step(weights, [(left[alive], right[alive]) for left, right in factors])
        for r in alive:
            for W, (left, right) in zip(theirs[r], factors, strict=True):
                W.grad = left[r].T @ right[r]
            others[r].step()
    for i, r in enumerate(alive):
        for W, expected in zip(weights, theirs[r], strict=True):
            torch.testing.assert_close(W[i], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "params"), SETTINGS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_run_is_that_of_torch(name, params, criterion):
    cfg = small(
        training__optimizer=name,
        training__optimizer_params=params,
        training__criterion=criterion,
        training__batch_size=4,
    )
    ours = train(cfg)[0].curves["test_loss"]
    assert ours == pytest.approx(reference_losses(cfg, record_every=5), rel=1e-10)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shapes", [[(3, 4)], [(5, 4), (3, 5)], [(5, 4), (6, 5), (5, 6), (3, 5)]])
def test_hand_written_gradient_is_that_of_autograd(shapes, criterion):
    """Rel 1e-10; the factors outlive an update of the weights in place."""
    ctx = context(shapes, 6, replicas=3, criterion=criterion)
    weights = [W.clone().requires_grad_() for W in ctx.weights]
    outputs = ctx.inputs
    for W in weights:
        outputs = outputs @ W.mT
    module = getattr(torch.nn, criterion)()
    sum(module(f, y) for f, y in zip(outputs, ctx.targets, strict=True)).backward()
    chosen = get_criterion(criterion)
    factors = gradient_factors(ctx.weights, ctx.inputs, lambda f: chosen.gradient(f, ctx.targets))
    for W in ctx.weights:
        W.fill_(torch.nan)
    for W, (left, right) in zip(weights, factors, strict=True):
        torch.testing.assert_close(left.mT @ right, W.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_are_torchs(name):
    outputs, targets = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0)) * 2
    losses = get_criterion(name)(outputs, targets)
    module = getattr(torch.nn, name)()
    expected = torch.stack([module(f, y) for f, y in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("SGD", {"momentum": -1}, "momentum must be finite and >= 0"),
        ("SGD", {"nesterov": True}, "nesterov needs momentum > 0"),
        ("SGD", {"momentum": 0.9, "dampening": 0.1, "nesterov": True}, "dampening 0"),
        ("SGD", {"betas": [0, 0]}, "no parameter 'betas'"),
        ("Adam", {"betas": 0.9}, "betas must be two numbers"),
        ("AdamW", {"betas": [0.9, 1.0]}, "betas must be finite and >= 0 and < 1"),
        ("AdamW", {"weight_decay": "much"}, "weight_decay must be finite"),
    ],
)
def test_bad_params_of_optimizers(name, params, message):
    with pytest.raises(ValueError, match=message):
        optimizers.resolve({"name": name, "params": params})([], torch.zeros(1))
