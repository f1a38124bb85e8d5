"""Training of stacks: the optimum is reached, and a member is what it is alone."""

import math

import numpy as np
import pytest
import torch
from compressor_cases import config

from compressor.evaluate import mse_of
from compressor.model import initial_weights
from compressor.states import make_states
from compressor.trainer import Trainer

CPU = torch.device("cpu")


def trainer_of(cfg, members, states=None):
    """members: (k, lr, seed) each."""
    states = states or make_states(cfg)
    initial = [
        initial_weights(cfg.model, k, states.spectrum.eigenvectors, seed) for k, _, seed in members
    ]
    rates, seeds = [lr for _, lr, _ in members], [seed for _, _, seed in members]
    return Trainer(cfg, states, initial, rates, seeds, CPU)


def finish(trainer, **hooks):
    trainer.run(lambda: None, lambda fraction: None, **hooks)
    return trainer


def curve(trainer, replica, name):
    points = trainer.points[replica]
    return np.array([points[step][name] for step in sorted(points) if name in points[step]])


def assert_equal_members(one, place, other, there=0):
    """1e-5: of float32 sums in another order, after some dozen updates."""
    assert set(one.points[place]) == set(other.points[there])
    for step, values in other.points[there].items():
        for name, value in values.items():
            found = one.points[place][step][name]
            assert found == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)
    torch.testing.assert_close(one.best[place], other.best[there], rtol=1e-5, atol=1e-5)
    assert one.ends[place] == other.ends[there]
    assert one.best_epoch[place] == other.best_epoch[there]


KS = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def power_law():
    """64 dimensions, lambda_i = 1/i, 4096 states to train on; 188 epochs: 3008 updates."""
    lm = {"dim": 64, "rows": 5120, "spectrum": "power:1"}
    train = {"batch": 256, "lr": 1e-3, "max_epochs": 188, "early_stopping": False}
    train["schedule"] = "constant"  # a cosine to 0 goes half as far: 1 % at k = 32
    cfg = config(lm=lm, train=train)
    states = make_states(cfg)
    assert len(states.train) == 4096
    return cfg, states


def test_training_comes_within_half_a_percent_of_pca(power_law):
    cfg, states = power_law
    trainer = finish(trainer_of(cfg, [(k, 1e-3, 0) for k in KS], states))
    gaps = [curve(trainer, r, "train_gap")[-1] for r in range(len(KS))]
    assert max(gaps) < 5e-3
    assert min(gaps) >= -1e-6
    overlaps = [curve(trainer, r, "overlap")[-1] for r in range(len(KS))]
    assert min(overlaps) > 0.97
    for k, w in zip(KS, trainer.W, strict=True):
        assert torch.equal(w[k:], torch.zeros(len(w) - k, 64))


def test_pca_is_where_training_stays(power_law):
    cfg, states = power_law
    cfg = config(
        lm={"dim": 64, "rows": 5120}, model={"init": "pca"}, train=vars(cfg.train) | {"lr": 1e-3}
    )
    trainer = finish(trainer_of(cfg, [(k, 1e-3, 0) for k in KS], states))
    for r in range(len(KS)):
        gap = curve(trainer, r, "train_gap")
        assert gap[0] == pytest.approx(0, abs=1e-5)
        assert gap[-1] < 5e-4


MEMBERS = [(3, 1e-2, 0), (5, 1e-2, 1), (2, 3e-3, 0), (3, 5e-2, 2)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train": {"objective": "relative", "max_epochs": 3}},
        {"train": {"objective": "cosine", "max_epochs": 3}},
        {"train": {"optimizer": "sgd", "lr": 0.5, "schedule": "constant"}},
        {"model": {"center": "mean", "init": "small"}, "lm": {"mean": 3.0}},
        {"eval": {"every": 2}},
    ],
    ids=str,
)
def test_members_of_a_stack_are_the_runs_alone(changes):
    cfg = config(**changes)
    together = finish(trainer_of(cfg, MEMBERS))
    for place, member in enumerate(MEMBERS):
        assert_equal_members(together, place, finish(trainer_of(cfg, [member])))


def test_order_of_a_stack_changes_no_member():
    cfg = config()
    one, other = finish(trainer_of(cfg, MEMBERS)), finish(trainer_of(cfg, MEMBERS[::-1]))
    for place in range(len(MEMBERS)):
        assert_equal_members(one, place, other, len(MEMBERS) - 1 - place)


def test_same_seed_gives_the_same_numbers_and_another_seed_others():
    cfg = config()
    one, two = (finish(trainer_of(cfg, [(3, 1e-2, 0)])) for _ in range(2))
    assert one.points == two.points
    assert torch.equal(one.best[0], two.best[0])
    other = finish(trainer_of(cfg, [(3, 1e-2, 1)]))
    assert other.points != one.points


def test_only_the_seed_decides_the_order_of_tokens():
    cfg = config()
    orders = trainer_of(cfg, [(3, 1e-2, 4), (3, 1e-2, 5), (2, 1.0, 4)])._order()
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(400))
    later = trainer_of(cfg, [(3, 1e-2, 4)])
    later.epoch = 1
    assert not torch.equal(later._order()[0], orders[0])


def test_member_that_stops_early_changes_no_other():
    """A rate of 1e-6 improves nothing by min_delta: that member stops after `patience` epochs."""
    members = [(3, 1e-6, 0), (3, 1e-2, 1), (4, 1e-2, 0)]
    cfg = config(train={"max_epochs": 6, "min_delta": 1e-4, "patience": 2})
    together = finish(trainer_of(cfg, members))
    assert together.ends[0] == "stopped"
    assert together.last_epoch.tolist() == [3, 6, 6]  # the first epoch is better than none
    assert max(together.points[0]) == 3 * together.epoch_steps
    for place, member in enumerate(members):
        assert_equal_members(together, place, finish(trainer_of(cfg, [member])))


def test_early_stopping_and_the_best_epoch_follow_the_heldout_loss():
    cfg = config(train={"max_epochs": 30, "min_delta": 1e-3, "patience": 2})
    trainer = finish(trainer_of(cfg, [(3, 1e-2, 0)]))
    losses = curve(trainer, 0, "heldout_loss")[1:]
    best, best_epoch, waited = math.inf, 0, 0
    for epoch, loss in enumerate(losses, start=1):
        assert waited < 2
        waited += 1
        if loss < best - 1e-3:
            best, best_epoch, waited = loss, epoch, 0
    assert waited == 2
    assert (trainer.best_epoch[0], trainer.last_epoch[0]) == (best_epoch, len(losses))
    assert len(losses) < 30
    W = trainer.best[0].double()[None]
    assert mse_of(W, trainer.states.spectrum.heldout_C).item() == pytest.approx(best, rel=1e-12)


def test_without_early_stopping_all_epochs_are_trained():
    cfg = config(train={"max_epochs": 6, "min_delta": 10.0, "early_stopping": False})
    trainer = finish(trainer_of(cfg, [(3, 1e-2, 0)]))
    assert (trainer.last_epoch[0], trainer.best_epoch[0]) == (6, 1)


@pytest.mark.parametrize("every", [None, 2])
def test_diverged_member_keeps_its_curve_and_changes_no_other(every):
    members = [(3, 1e-2, 0), (3, 1e30, 1), (4, 1e-2, 2)]
    cfg = config(eval={"every": every})
    together = finish(trainer_of(cfg, members))
    assert together.ends == ["", "diverged", ""]
    assert together.points[1]
    assert max(together.points[1]) < max(together.points[0])
    for values in together.points[1].values():
        assert math.isfinite(values["heldout_mse"])
    for place in (0, 2):
        assert_equal_members(together, place, finish(trainer_of(cfg, [members[place]])))


@pytest.mark.parametrize("every", [None, 2])
def test_stack_of_which_all_diverge_ends(every):
    trainer = finish(trainer_of(config(eval={"every": every}), [(3, 1e30, 0), (2, 1e30, 1)]))
    assert trainer.ends == ["diverged"] * 2


def test_all_states_are_one_batch_where_the_batch_is_larger():
    cfg = config(train={"batch": 10_000, "schedule": "constant", "clip": None, "optimizer": "sgd"})
    trainer = finish(trainer_of(cfg, [(3, 0.1, 0), (3, 0.1, 1)]))
    assert trainer.epoch_steps == 1
    C, D = trainer.states.spectrum.C, 12
    W = initial_weights(cfg.model, 3, trainer.states.spectrum.eigenvectors, 0).double()
    for _ in range(cfg.train.max_epochs):
        M = W.T @ W
        W = W + 0.1 * 2 / D * W @ (2 * C - C @ M - M @ C)
    torch.testing.assert_close(trainer.W[0].double(), W, rtol=1e-5, atol=1e-6)


def test_records_between_epochs_are_of_their_updates():
    trainer = finish(trainer_of(config(eval={"every": 3}), [(3, 1e-2, 0)]))
    assert trainer.epoch_steps == 7
    epochs = [7, 14, 21, 28]
    expected = sorted({0, *epochs, *range(3, 28, 3)})
    assert list(trainer.points[0]) == expected
    plain = finish(trainer_of(config(), [(3, 1e-2, 0)]))
    assert {step: trainer.points[0][step] for step in (0, *epochs)} == plain.points[0]


def test_recorded_values_are_those_of_the_states():
    recorded = []
    cfg = config(lm={"mean": 2.0}, model={"center": "mean"})
    trainer = trainer_of(cfg, [(3, 1e-2, 0)])
    finish(trainer, on_record=lambda *point: recorded.append(point))
    assert [(replica, step) for replica, step, _ in recorded] == [(0, s) for s in trainer.points[0]]
    _, step, last = recorded[-1]
    W, states = trainer.W[0].double(), trainer.states
    mu = states.train.double().mean(0)
    for name, X in (("train", states.train), ("heldout", states.heldout)):
        Y = X.double() - mu
        mse = (Y @ W.T @ W - Y).square().mean().item()
        assert last[f"{name}_mse"] == pytest.approx(mse, rel=1e-9)
    assert last["heldout_loss"] == last["heldout_mse"]
    assert last["grad_norm_clipped"] <= min(1.0, last["grad_norm"]) * (1 + 1e-6)
    assert len(last["mode_strength"]) == 4
    assert last["lr"] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 24 / 25)))
    assert step == trainer.n_steps == 28


@pytest.mark.parametrize("objective", ["relative", "cosine"])
def test_heldout_loss_is_the_objective_over_all_held_out_states(objective):
    trainer = finish(trainer_of(config(train={"objective": objective}), [(3, 1e-2, 0)]))
    X, W = trainer.states.heldout.double(), trainer.W[0].double()
    Xhat = X @ W.T @ W
    expected = {
        "relative": ((Xhat - X).square().sum(1) / X.square().sum(1)).mean(),
        "cosine": 1 - torch.cosine_similarity(X, Xhat).mean(),
    }[objective]
    assert curve(trainer, 0, "heldout_loss")[-1] == pytest.approx(expected.item(), rel=1e-12)


def test_products_in_bf16_train_nearly_as_far():
    cfg, plain = config(train={"amp": "bf16", "max_epochs": 20}), config(train={"max_epochs": 20})
    trainer, exact = (finish(trainer_of(c, [(3, 1e-2, 0)])) for c in (cfg, plain))
    gap = curve(trainer, 0, "train_gap")[-1]
    assert gap < 0.05
    assert gap != curve(exact, 0, "train_gap")[-1]
    assert trainer.W.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("nested", [[], [1, 3]], ids=["plain", "nested"])
def test_compiled_training_is_the_plain_one(nested):
    train = {"batch": 100}  # all of one size: compiled once
    plain, compiled = (
        finish(
            trainer_of(
                config(train=train | {"compile": choice}, model={"nested": nested}),
                [(3, 1e-2, 0), (3, 1e-2, 1)],
            )
        )
        for choice in ("off", "on")
    )
    for place in range(2):
        assert_equal_members(compiled, place, plain, place)
