"""The probe memory: bytes counted by hand, and checkpointing that changes nothing else."""

import pytest
import torch
from qlora_cases import finish, small, training
from torch import nn

from qlora_probe import hooks
from qlora_probe.data import collate
from qlora_probe.model import token_losses
from qlora_probe.probes.memory import Memory, checkpointed, saved_bytes

X = torch.ones(3, 8)


def test_bytes_of_a_layer():
    """A linear layer keeps its input, a ReLU its output; the weight is there anyway."""
    layer = nn.Linear(8, 4)
    assert saved_bytes(lambda: layer(X).relu(), layer) == 4 * (X.numel() + 3 * 4)
    x = X.clone().requires_grad_()
    assert saved_bytes(lambda: layer(x), layer) == 4 * X.numel()


def test_a_storage_counts_once():
    layer = nn.Linear(8, 4)
    twice = saved_bytes(lambda: layer(X) + layer(X[:2]).sum(), layer)
    assert twice == 4 * X.numel()


def test_addresses_of_freed_storages_are_not_taken_for_others():
    """Each exp keeps an output that only autograd still holds."""
    x = torch.zeros(1000, requires_grad=True)
    assert saved_bytes(lambda: x.exp().exp().exp(), nn.Identity()) == 3 * 4000


def test_a_module_computed_again_keeps_its_inputs():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x, factors):
            return (self.linear(x) * factors[0]).exp().relu()

    block, factor = Block(), torch.rand(8)
    assert saved_bytes(lambda: block(X, factors=(factor,)), block) > 4 * (2 * 3 * 8 + 8)
    again = saved_bytes(lambda: block(X, factors=(factor,)), block, [block])
    assert again == 4 * (3 * 8 + 8)


def test_scalars_of_a_training(llama):
    probe = Memory()
    with training(small(llama), [probe]) as trainer:
        hooks.call([probe], "train_start", trainer)
        finish(trainer)
        ids, labels = collate(trainer.train_tokens[: trainer.cfg.train.batch])
        trainer.model.train()
        expected = saved_bytes(lambda: token_losses(trainer.model, ids, labels), trainer.model)
        assert set(trainer.scalars) == {"saved_bytes", "saved_bytes_checkpointed"}  # no GPU
        assert trainer.scalars["saved_bytes"] == expected
        # Much of what is left is made outside the blocks.
        assert 0 < trainer.scalars["saved_bytes_checkpointed"] < expected / 3


def test_leaves_mode_blocks_and_random_state(llama):
    """And counts the masks of dropout whatever the mode."""
    with training(small(llama)) as trainer:
        Memory().eval(trainer)
        scalars = dict(trainer.scalars)
        trainer.model.eval()
        state = torch.get_rng_state()
        Memory().eval(trainer)
        assert trainer.scalars == scalars
        assert not any(module.training for module in trainer.model.modules())
        assert torch.equal(torch.get_rng_state(), state)
        assert all("forward" not in vars(block) for block in trainer.lm.blocks)
        assert all(p.grad is None for p in trainer.parameters)


def test_gradients_with_and_without_checkpointing_are_equal(llama):
    """With dropout, which is drawn again as it was."""
    with training(small(llama)) as trainer, torch.no_grad():
        for p in trainer.parameters:
            p.add_(0.05 * torch.sin(torch.arange(p.numel())).view_as(p))
        trainer.model.train()

        def gradients():
            torch.manual_seed(0)
            with torch.enable_grad():
                loss = trainer.loss_of([collate(trainer.train_tokens[:4])])
                return torch.autograd.grad(loss, trainer.parameters)

        plain = gradients()
        with checkpointed(trainer.lm.blocks) as inputs:
            again = gradients()
        assert len(inputs) >= len(trainer.lm.blocks)
        assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))


def test_checkpointing_ends_with_an_error_inside():
    block = nn.Linear(8, 4)
    with pytest.raises(RuntimeError), checkpointed([block]):
        block(X[:, :3])
    assert "forward" not in vars(block)
