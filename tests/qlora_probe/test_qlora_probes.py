"""What holds for every probe: it changes nothing, and an interruption changes nothing in it."""

import inspect
import io

import pytest
import torch
from qlora_cases import small, training

from qlora_probe import hooks, registry
from qlora_probe import probes as probes  # registers them

NAMES = registry.callbacks.names()  # other tests register more


@pytest.fixture(scope="module")
def plain(llama):
    """Curves and adapters of a training without probes."""
    with training(small(llama)) as trainer:
        run(trainer)
        return trainer.curves, adapters(trainer)


def make(name):
    """Looking at every update."""
    probe = registry.callbacks.resolve(name)
    often = {"every": 1} if "every" in inspect.signature(probe).parameters else {}
    return probe(**often)


def run(trainer, state=None, save=lambda: None):
    """As a run does, from a state or the start."""
    hooks.call(trainer.probes, "train_start", trainer)
    if state is not None:
        trainer.load_state(state)
    trainer.run(save, lambda fraction: None)
    hooks.call(trainer.probes, "train_end", trainer)


def adapters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.parameters])


def measured(trainer):
    """As text, in which nan equals nan and floats are exact."""
    return repr((sorted(trainer.curves.items()), trainer.tables, trainer.scalars))


@pytest.mark.parametrize("name", NAMES)
def test_training_is_the_same_with_a_probe(llama, plain, name):
    with training(small(llama), [make(name)]) as trainer:
        state = torch.get_rng_state()
        run(trainer)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(adapters(trainer), plain[1])
        curves = {curve for point in trainer.curves.values() for curve in point}
        assert curves - {"train_loss", "lr", "eval_loss"} or trainer.tables or trainer.scalars
        assert all(
            trainer.curves[step][curve] == value
            for step, point in plain[0].items()
            for curve, value in point.items()
        )


def test_training_is_the_same_with_all_probes_at_once(llama, plain):
    with training(small(llama), [make(name) for name in NAMES]) as trainer:
        run(trainer)
        assert torch.equal(adapters(trainer), plain[1])
        assert all(
            trainer.curves[step][curve] == value
            for step, point in plain[0].items()
            for curve, value in point.items()
        )


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_training_measures_the_same(llama, name):
    """Interrupted after two of six updates."""
    saved = []
    with training(small(llama), [make(name)]) as trainer:

        def save():
            saved.append(io.BytesIO())
            torch.save(trainer.state(), saved[-1])

        run(trainer, save=save)
        whole = measured(trainer)
    saved[0].seek(0)
    with training(small(llama), [make(name)]) as trainer:
        run(trainer, torch.load(saved[0], weights_only=True))
        assert measured(trainer) == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_of_no_update_is_refused(name):
    probe = registry.callbacks.resolve(name)
    if "every" in inspect.signature(probe).parameters:
        with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
            probe(every=0)
    else:
        assert not any(hasattr(probe(), hook) for hook in hooks.OF_A_STEP)
