"""Losses between two settings of the adapters."""

from contextlib import nullcontext

import pytest
import torch
from qlora_cases import model, small
from torch.testing import assert_close

from qlora_probe.line import losses_on_line
from qlora_probe.model import token_losses

IDS = torch.randint(1, 256, (3, 12), generator=torch.Generator().manual_seed(0))
BATCHES = [(IDS[:2], IDS[:2]), (IDS[2:], IDS[2:].where(torch.arange(12) > 5, -100))]
AT = [-0.5, 0.0, 0.3, 1.0, 1.5]


def somewhere(lm, seed):
    generator = torch.Generator().manual_seed(seed)
    return [0.3 * torch.randn(p.shape, generator=generator) for p in lm.parameters]


def loss_at(lm, values):
    """Of all targets of the batches at once, dropout off."""
    with torch.no_grad():
        for p, value in zip(lm.parameters, values, strict=True):
            p.copy_(value)
        lm.model.eval()
        return torch.cat([token_losses(lm.model, *batch) for batch in BATCHES]).mean().item()


def test_losses_are_those_at_the_points(llama):
    with model(small(llama)) as lm:
        start, end = somewhere(lm, 1), somewhere(lm, 2)
        lm.model.train()
        found = losses_on_line(lm, BATCHES, start, end, AT)
        points = [[x + a * (y - x) for x, y in zip(start, end, strict=True)] for a in AT]
        assert_close(found, [loss_at(lm, point) for point in points], rtol=1e-5, atol=0)
        assert found[1] == loss_at(lm, start)
        assert found[3] == loss_at(lm, end)
        assert len(set(found)) == 5


@pytest.mark.parametrize("last", [255, 256])
def test_parameters_gradients_mode_and_random_state_come_back(llama, last):
    """256 is no byte: the second batch of the first point ends in an error."""
    with model(small(llama)) as lm:
        values = somewhere(lm, 3)
        loss_at(lm, values)
        lm.model.train()
        for p in lm.parameters:
            p.grad = torch.ones_like(p)
        ids = IDS.clone()
        ids[2, -1] = last
        batches = [BATCHES[0], (ids, IDS)]
        state = torch.random.get_rng_state()
        with pytest.raises(IndexError) if last > 255 else nullcontext():
            losses_on_line(lm, batches, somewhere(lm, 1), somewhere(lm, 2), AT)
        assert all(torch.equal(*pair) for pair in zip(values, lm.parameters, strict=True))
        assert all(p.requires_grad and bool((p.grad == 1).all()) for p in lm.parameters)
        assert lm.model.training
        assert torch.equal(state, torch.random.get_rng_state())


def test_training_after_it_is_as_before(llama):
    """Evaluation of a 4-bit layer must not repack its weights: a gradient would be wrong after."""
    with model(small(llama)) as lm:
        loss_at(lm, somewhere(lm, 3))

        def gradient():
            loss = token_losses(lm.model, IDS, IDS).mean()
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, lm.parameters)])

        before = gradient()
        losses_on_line(lm, BATCHES, somewhere(lm, 1), somewhere(lm, 2), AT)
        assert torch.equal(gradient(), before)
