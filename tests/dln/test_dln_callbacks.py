"""Callbacks: when they act, in which order, and what they refuse."""

import pytest
from dln_cases import small, train, trainer

from dln import callbacks
from dln.lockstep import train_in_lockstep
from dln.registry import callbacks as registry
from dln.registry import register_callback


def curve(**values):
    return train(small(num_evaluations=30, **values))[0].curves["test_loss"].tolist()


def sizes(specs, steps, batch_size=5):
    """Batch sizes of the updates 0 .. steps - 1; None is the full batch."""
    state = trainer(small(training__batch_size=batch_size, callbacks=specs, max_steps=steps))
    seen = []
    draw = state.loader.next_batch

    def watched():
        seen.append(state.loader.batch_size)
        return draw()

    state.loader.next_batch = watched
    train_in_lockstep({"": state})
    return seen


def test_a_switch_acts_on_the_update_of_its_step():
    spec = {"switch_batch_size": {"at_step": 3, "batch_size": 2}}
    assert sizes([spec], 6) == [5, 5, 5, 2, 2, 2]
    assert sizes([{"switch_batch_size": {"at_step": 0, "batch_size": None}}], 2) == [None] * 2
    usual, switched = curve(training__batch_size=5), curve(training__batch_size=5, callbacks=[spec])
    assert usual[:4] == switched[:4]  # records 0 .. 3 are taken before update 3
    assert usual[4] != switched[4]


def test_a_schedule_switches_at_each_of_its_steps():
    spec = {"name": "multi_switch_batch_size", "params": {"schedule": {1: 2, "3": None, 4: 3}}}
    assert sizes([spec], 6) == [5, 2, 2, None, 3, 3]


def test_callbacks_act_in_list_order():
    first, second = ({"switch_batch_size": {"at_step": 1, "batch_size": b}} for b in (2, 3))
    assert sizes([first, second], 3) == [5, 3, 3]
    assert sizes([second, first], 3) == [5, 2, 2]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_lr_decays_at_multiples_of_its_period_but_not_at_zero(optimizer):
    """lr *= 1/2 at steps 2, 4, 6: as torch's StepLR; 0.1 / 2^3 after seven updates."""
    state = trainer(
        small(
            training__lr=0.1,
            training__optimizer=optimizer,
            max_steps=7,
            callbacks=[{"lr_decay": {"decay_every": 2, "factor": 0.5}}],
        )
    )
    rates = []
    update = state.optimizer.step

    def watched(weights, factors):
        rates.append(state.optimizer.applied_lr.item())
        update(weights, factors)

    state.optimizer.step = watched
    train_in_lockstep({"": state})
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125])


def test_a_registered_callback_is_called_before_each_update(monkeypatch):
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    seen = []

    @register_callback("watch")
    def watch(tag):
        return lambda step, trainer: seen.append((tag, step, len(trainer.weights)))

    train(small(max_steps=2, callbacks=[{"watch": {"tag": "a"}}, {"watch": {"tag": "b"}}]))
    assert seen == [("a", 0, 3), ("b", 0, 3), ("a", 1, 3), ("b", 1, 3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: callbacks.switch_batch_size(-1, 5), "at_step must be an integer >= 0, got -1"),
        (lambda: callbacks.switch_batch_size(1, 0), "batch_size must be an integer >= 1, got 0"),
        (lambda: callbacks.switch_batch_size(1, True), "batch_size must be an integer"),
        (lambda: callbacks.multi_switch_batch_size([1]), "schedule must be a mapping"),
        (lambda: callbacks.multi_switch_batch_size({1: 0}), r"schedule\[1\] must be an integer"),
        (lambda: callbacks.multi_switch_batch_size({"x": 1}), "a step of schedule must be"),
        (lambda: callbacks.lr_decay(0, 0.5), "decay_every must be an integer >= 1, got 0"),
        (lambda: callbacks.lr_decay(1, 0), "factor must be finite and > 0, got 0"),
        (lambda: callbacks.lr_decay(1, float("inf")), "factor must be finite and > 0, got inf"),
    ],
)
def test_bad_params_of_callbacks(call, message):
    with pytest.raises(ValueError, match=message):
        call()
