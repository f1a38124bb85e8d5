"""The training: its state at the end of an epoch decides all that follows."""

import math

import pytest
import torch
from memdyn_cases import small

from memdyn import callbacks as callbacks
from memdyn.model import WARMUP, lr_factor, make_model
from memdyn.trainer import Diverged, Trainer

CPU = torch.device("cpu")
IDS = torch.arange(6 * 24).reshape(6, 24) * 7 % 300


def trainer(epochs=4, **changes):
    cfg = small(**changes)
    return Trainer(cfg, make_model(cfg, CPU), IDS, epochs)


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.model.parameters()])


def test_state_of_an_epoch_is_all_that_it_takes_to_go_on():
    straight, first, second = (trainer(dropout=0.3) for _ in range(3))
    for _ in range(4):
        straight.train_epoch()
    for _ in range(2):
        first.train_epoch()
    torch.rand(3)  # of somebody else
    second.load_state(first.state())
    for _ in range(2):
        second.train_epoch()
    assert torch.equal(weights(second), weights(straight))
    assert (second.epoch, second.step) == (4, 8)
    assert not second.model.training


def test_seed_decides_the_order_and_the_dropout():
    def trained(**changes):
        made = trainer(**changes)
        initial = weights(made)
        made.train_epoch()
        return weights(made) - initial

    assert torch.equal(trained(dropout=0.2), trained(dropout=0.2))
    assert not torch.equal(trained(dropout=0.2), trained())
    made, other = trainer(seed=0), trainer(seed=1)
    other.model.load_state_dict(made.model.state_dict())
    made.train_epoch(), other.train_epoch()
    assert not torch.equal(weights(made), weights(other))


def test_training_leaves_the_global_generator_alone():
    made, state = trainer(dropout=0.5), torch.get_rng_state()
    made.train_epoch()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_parts_of_a_batch_have_its_gradient(micro_batch):
    gradients = []
    for size in (None, micro_batch):
        made = trainer(micro_batch=size)
        made.train_epoch()
        gradients.append([p.grad for p in made.model.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_warm_up_then_constant_or_linear_to_zero():
    n = 100
    constant = [lr_factor(step, n, "constant") for step in range(n)]
    linear = [lr_factor(step, n, "linear") for step in range(n)]
    assert constant[:WARMUP] == linear[:WARMUP] == [(i + 1) / 10 for i in range(10)]
    assert set(constant[WARMUP:]) == {1.0}
    steps = [a - b for a, b in zip(linear[WARMUP:], linear[WARMUP + 1 :], strict=False)]
    assert steps == pytest.approx([1 / 90] * 89)
    assert linear[-1] == pytest.approx(1 / 90)
    made = trainer(lr=0.001)
    made.train_epoch()
    assert made.lr == pytest.approx(0.001 * 2 / 10)


def test_callback_scales_the_learning_rate():
    made = trainer(lr=0.001, callbacks=[{"lr_decay": {"every": 4, "factor": 0.5}}])
    rates = []
    for _ in range(8):
        made.train_epoch()
        rates.append(made.lr)
    factors = [2 / 10, 4 / 10, 6 / 10 / 2, 8 / 10 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8]
    assert rates == pytest.approx([0.001 * factor for factor in factors])


@pytest.mark.parametrize("params", [{"every": 0, "factor": 0.5}, {"every": 2, "factor": -1.0}])
def test_callback_refuses_bad_params(params):
    with pytest.raises(ValueError, match="must be"):
        callbacks.lr_decay(**params)


def test_loss_that_is_not_finite_ends_the_training_where_it_was():
    made = trainer(lr=1e30)
    with pytest.raises(Diverged) as error:
        [made.train_epoch() for _ in range(4)]
    assert (error.value.epoch, error.value.step) == (made.epoch + 1, made.step)
    assert 1 <= made.step < 8


def test_first_loss_is_that_of_guessing():
    """ln 300 and what random logits of a small model add."""
    assert math.log(300) == pytest.approx(trainer().train_epoch(), abs=0.5)
