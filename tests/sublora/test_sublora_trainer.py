"""Training of w and gates: updates, schedules, records, what is kept."""

import math
from contextlib import suppress

import numpy as np
import pytest
import torch
from sublora_cases import config, module_of, set_random
from torch.nn.functional import cross_entropy

from plugins.lm.ranks import World
from sublora.batches import Batches, Diverged
from sublora.evaluate import losses_of
from sublora.trainer import CLIP, EPS, Trainer, val_windows


def trainer_of(folder, data, **changes):
    cfg = config(folder, **changes)
    return Trainer(cfg, module_of(cfg), data)


def train(trainer, until=None):
    """All steps, or the first ones."""

    class Enough(Exception):
        pass

    def on_progress(fraction):
        if until is not None and trainer.step >= until:
            raise Enough

    with suppress(Enough):
        trainer.run(lambda: None, on_progress)
    return trainer


def w_of(trainer):
    return trainer.module.w.detach().clone()


# schedules


def test_gates_are_soft_for_their_share_of_the_steps_and_their_edge_sharpens(folder, data):
    """0.8 of 20 steps: tau falls from .25 at the first to .01 at the 16th."""
    trainer = trainer_of(folder, data, allocation={"name": "learned"})
    found = []
    for step in range(1, 21):
        train(trainer, until=step)
        found.append((trainer.module.tau, trainer.module.k is not None))
    taus, is_hard = zip(*found, strict=True)
    np.testing.assert_allclose(taus[:16], np.linspace(0.25, 0.01, 16))
    assert is_hard == (False,) * 16 + (True,) * 4


def test_one_step_is_enough_for_hard_gates(folder, data):
    trainer = trainer_of(folder, data, allocation={"name": "learned"}, train={"steps": 1})
    assert train(trainer).end().gates == [10, 9, 12]


# updates


def mean_loss(module, data, starts, block):
    windows = torch.from_numpy(data.train[starts[:, None] + np.arange(block + 1)].astype(np.int64))
    logits = module(windows[:, :-1])[..., : data.vocab_size]
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def test_first_update_is_that_of_adamw_on_the_clipped_gradient(folder, data):
    """From w = 0, where decay does nothing: w1 = -lr g / (|g| + eps)."""
    trainer = trainer_of(folder, data, train={"lr": 0.03, "warmup": 3})
    _, [gradient] = trainer.batches.gradients(trainer.module, [trainer.module.w], "train", 0)
    clipped = gradient * min(1, CLIP / (gradient.norm().item() + 1e-6))
    expected = -0.03 / 3 * clipped / (clipped.abs() + EPS)
    w = w_of(train(trainer, until=1))
    torch.testing.assert_close(w, expected, rtol=1e-4, atol=1e-8)
    assert (w != 0).all()


def test_gradient_is_that_of_the_mean_over_random_windows(folder, data, monkeypatch):
    trainer = trainer_of(folder, data)
    drawn, original = [], Batches._loss

    def note(self, logits_of, starts):
        drawn.append(starts)
        return original(self, logits_of, starts)

    monkeypatch.setattr(Batches, "_loss", note)
    module = trainer.module
    set_random(module)
    loss, [gradient] = trainer.batches.gradients(module, [module.w], "train", 0)
    [starts] = drawn
    assert len(starts) == 8
    expected = mean_loss(module, data, starts, 16)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, module.w)[0])


def test_windows_are_anywhere_in_the_stream_and_new_at_every_step(folder, data, monkeypatch):
    """20 x 400 starts in 40 equal parts of the stream: 200 +- 14 each; 5 standard deviations."""
    trainer, drawn = trainer_of(folder, data, train={"batch": 400}), []

    def note(self, logits_of, starts):
        drawn.append(starts)
        return trainer.module.w.sum()

    monkeypatch.setattr(Batches, "_loss", note)
    for step in range(20):
        trainer.batches.gradients(trainer.module, [trainer.module.w], "train", step)
    starts = np.concatenate(drawn)
    assert starts.min() >= 0
    assert starts.max() <= len(data.train) - 17
    counts, _ = np.histogram(starts, 40, (0, len(data.train) - 16))
    assert np.abs(counts - 200).max() < 5 * 14
    assert len({tuple(d) for d in drawn}) == 20


def test_tokens_of_a_step_are_read_in_parts_of_a_batch(folder, data):
    """128 tokens are 8 windows, whatever is read at a time."""
    trainers = [
        trainer_of(folder, data, train={"batch": batch, "tokens_per_step": 128})
        for batch in (8, 3, 1, 100)
    ]
    found = [t.batches.gradients(t.module, [t.module.w], "train", 0) for t in trainers]
    for loss, [gradient] in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1][0], rtol=1e-4, atol=1e-6)


def test_ranks_share_the_windows_of_a_step(folder, data):
    """What two ranks add up is what one process finds."""
    trainer = trainer_of(folder, data)
    module, sums = trainer.module, []
    for world in (World(), World(0, 2), World(1, 2)):

        class Alone(World):
            def sum(self, tensor):
                return tensor

        batches = Batches(trainer.cfg, data, module.w.device, Alone(world.rank, world.size))
        sums.append(batches.gradients(module, [module.w], "train", 0))
    assert sums[0][0] == pytest.approx(sums[1][0] + sums[2][0], rel=1e-6)
    torch.testing.assert_close(sums[0][1][0], sums[1][1][0] + sums[2][1][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["uniform", "learned"])
def test_training_changes_w_and_gates_only(folder, data, name):
    trainer = trainer_of(folder, data, allocation={"name": name})
    before = {k: v.clone() for k, v in trainer.module.state_dict().items()}
    buffers = [b.clone() for b in trainer.module.buffers()]
    train(trainer)
    changed = {k for k, v in trainer.module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == ({"w", "gates"} if name == "learned" else {"w"})
    after = trainer.module.buffers()
    assert all(torch.equal(a, b) for a, b in zip(buffers, after, strict=True))


def test_gates_have_a_learning_rate_of_their_own_and_no_decay(folder, data):
    """Their first update is .01 each, for both directions, at any lr of w."""
    trainer = trainer_of(
        folder, data, allocation={"name": "learned", "gate_init": 3.0}, train={"warmup": 0}
    )
    set_random(trainer.module, scale=0.1)
    before = trainer.module.gates.detach().clone()
    train(trainer, until=1)
    moved = (trainer.module.gates.detach() - before).abs()
    torch.testing.assert_close(moved, torch.full((3,), 0.01), rtol=1e-2, atol=0)
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.01, 0]


def test_training_reduces_the_loss(folder, data):
    points = train(trainer_of(folder, data, train={"steps": 60})).points
    assert points[60]["val_loss"] < points[0]["val_loss"] - 0.2
    assert points[60]["train_loss"] < points[3]["train_loss"] - 0.2


def test_equal_seeds_train_equally_and_others_do_not(folder, data):
    first, again, other = (
        w_of(train(trainer_of(folder, data, seed=seed, model={"dropout": 0.2})))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dropout_is_on_in_training(folder, data):
    with_it, without = (
        w_of(train(trainer_of(folder, data, model={"lora_dropout": p}), until=3)) for p in (0.5, 0)
    )
    assert not torch.equal(with_it, without)


# records


def test_records_are_losses_of_the_validation_windows(folder, data):
    trainer = train(trainer_of(folder, data))
    assert list(trainer.points) == list(range(21))
    assert "train_loss" not in trainer.points[0]
    windows = val_windows(data.val, 16)
    found = losses_of(trainer.module, windows, len(windows), 64, ())
    assert trainer.points[20]["val_loss"] == pytest.approx(found.raw.mean() * math.log(2))


@pytest.mark.parametrize(
    ("steps", "recorded"), [(7, range(8)), (45, [*range(0, 45, 2), 45]), (100, range(0, 101, 5))]
)
def test_some_twenty_records_and_always_the_last_step(folder, data, steps, recorded):
    trainer = train(trainer_of(folder, data, train={"steps": steps, "batch": 1}))
    assert trainer.curves()["step"] == list(recorded)


def test_best_is_the_record_of_the_lowest_validation_loss(folder, data):
    """At a rate at which the loss goes up and down."""
    trainer = trainer_of(folder, data, train={"lr": 1.0, "warmup": 0})
    seen = {}
    trainer.run(
        lambda: None,
        lambda fraction: None,
        lambda step, values: seen.update({step: (values["val_loss"], w_of(trainer))}),
    )
    best = min(seen, key=lambda step: seen[step][0])
    assert best < 20
    assert trainer.end().step == best
    np.testing.assert_array_equal(trainer.end().w, seen[best][1].numpy())


def test_best_of_learned_gates_is_one_with_hard_gates(folder, data):
    """Though at this rate the untouched network is the best of all."""
    trainer = train(
        trainer_of(folder, data, allocation={"name": "learned"}, train={"lr": 10.0, "warmup": 0})
    )
    losses = {step: point["val_loss"] for step, point in trainer.points.items()}
    assert min(losses, key=losses.get) < 17
    hard = {step: loss for step, loss in losses.items() if step > 16}
    assert trainer.end().step == min(hard, key=hard.get)
    assert trainer.end().gates == trainer.module.k.tolist()


def test_gates_are_a_table_of_every_record(folder, data):
    trainer = train(trainer_of(folder, data, allocation={"name": "learned"}))
    table = {name: [row[name] for row in trainer.gates] for name in trainer.gates[0]}
    assert table["step"] == [step for step in range(21) for _ in range(3)]
    assert table["layer"] == [0, 1, -1] * 21
    assert table["gamma"][:3] == [0.5] * 3
    assert table["k"][-3:] == trainer.end().gates
    for gamma, k, d in zip(table["gamma"][-3:], table["k"][-3:], (19, 18, 23), strict=True):
        assert gamma == pytest.approx(k / d)
    soft = table["gamma"][3 * 16 : 3 * 17]
    assert [math.floor(g * d + 0.5) for g, d in zip(soft, (19, 18, 23), strict=True)] == table["k"][
        -3:
    ]
    assert train(trainer_of(folder, data), until=1).gates == []


def test_loss_that_is_not_finite_ends_the_training(folder, data):
    trainer = trainer_of(folder, data, train={"lr": 1e30, "warmup": 0})
    with pytest.raises(Diverged):
        train(trainer)
    assert 0 in trainer.points
    assert all(math.isfinite(point["val_loss"]) for point in trainer.points.values())


# validation windows


def test_validation_windows_lie_evenly_and_apart():
    ids = np.arange(5000, dtype=np.uint16)
    windows = val_windows(ids, 10)
    assert len(windows) == 64
    starts = [int(piece.ids[0]) for piece in windows]
    assert starts[0] == 0
    assert starts[-1] == 4980
    assert np.ptp(np.diff(starts)) <= 10
    for unit, piece in enumerate(windows):
        assert piece.ids.tolist() == list(range(starts[unit], starts[unit] + 11))
        assert piece.places.tolist() == list(range(1, 11))
        assert set(piece.units.tolist()) == {unit}


def test_a_short_validation_stream_is_one_window():
    [piece] = val_windows(np.array([3, 1, 2], np.uint16), 10)
    assert piece.ids.tolist() == [3, 1, 2]
    assert len(val_windows(np.arange(31), 10)) == 3
