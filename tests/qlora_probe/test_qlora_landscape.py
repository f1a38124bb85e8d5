"""The probe landscape: the loss along the way that the training took."""

from contextlib import contextmanager

import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe import hooks
from qlora_probe.data import collate
from qlora_probe.model import token_losses
from qlora_probe.probes.landscape import Landscape, beside


@contextmanager
def trained(llama, probe):
    """A finished training with its probe, and where it began and ended."""
    with training(small(llama), [probe]) as trainer:
        hooks.call([probe], "train_start", trainer)
        start = [p.detach().clone() for p in trainer.parameters]
        finish(trainer)
        end = [p.detach().clone() for p in trainer.parameters]
        hooks.call([probe], "train_end", trainer)
        yield trainer, start, end


def test_ends_of_the_path_are_the_evaluated_losses(llama):
    with trained(llama, Landscape()) as (trainer, _, end):
        table = trainer.tables["landscape"]
        assert table["at"] == pytest.approx([-0.5 + 0.1 * i for i in range(21)])
        assert set(table["direction"]) == {"path"}
        loss = dict(zip(table["at"], table["loss"], strict=True))
        assert loss[0.0] == trainer.curves[0]["eval_loss"]
        assert loss[1.0] == trainer.curves[6]["eval_loss"]
        assert loss[0.0] != loss[1.0]
        assert all(torch.equal(*pair) for pair in zip(end, trainer.parameters, strict=True))


def test_both_directions_pass_the_end(llama):
    with trained(llama, Landscape(points=4, random=True, span=[-1, 2])) as (trainer, *_):
        table = trainer.tables["landscape"]
        assert table["direction"] == ["path"] * 4 + ["random"] * 4
        assert table["at"] == [-1, 0, 1, 2] * 2
        path, other = table["loss"][:4], table["loss"][4:]
        assert path[2] == other[2]
        assert path[:2] != other[:2]


def test_the_random_direction_is_as_long_as_the_path_in_each_tensor():
    """And independent of it: a cosine of about 1 / sqrt n."""
    generator = torch.Generator().manual_seed(1)
    start, end = (
        [scale * torch.randn(50, 40, generator=generator) for scale in (1, 1e-3, 20)]
        for _ in range(2)
    )
    end.append(torch.ones(3))
    start.append(torch.ones(3))  # has not moved, so neither does the other
    other = beside(start, end)
    assert torch.equal(other.pop(), torch.ones(3))
    for x, y, z in zip(start, end, other, strict=False):
        assert ((z - y).norm() / (x - y).norm()).item() == pytest.approx(1, rel=1e-5)
        assert abs(torch.corrcoef(torch.stack([x - y, z - y]).flatten(1))[0, 1]) < 0.1


def test_losses_are_those_of_the_held_out_sequences(llama):
    probe = Landscape(points=2, span=[0.25, 0.5])
    with trained(llama, probe) as (trainer, start, end):
        with torch.no_grad():
            for p, x, y in zip(trainer.parameters, start, end, strict=True):
                p.copy_(0.75 * x + 0.25 * y)
            trainer.model.eval()
            loss = token_losses(trainer.model, *collate(trainer.held_out)).mean().item()
        assert trainer.tables["landscape"]["loss"][0] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"points": 1}, "points must be an integer >= 2, got 1"),
        ({"span": [1, 0]}, "span must be two finite numbers, rising, got"),
        ({"span": [0, 1, 2]}, "span must be two finite numbers, rising, got"),
        ({"span": [0, float("inf")]}, "span must be two finite numbers, rising, got"),
    ],
)
def test_refuses(params, message):
    with pytest.raises(ValueError, match=message):
        Landscape(**params)
