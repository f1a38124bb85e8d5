"""The probe sharpness against dense Hessians, and what it leaves behind."""

from dataclasses import replace

import pytest
import torch
from qlora_cases import finish, small, training
from torch.func import functional_call

from qlora_probe.config import LoopConfig, LoraConfig, OptimConfig
from qlora_probe.data import collate
from qlora_probe.lanczos import extreme_eigenvalues
from qlora_probe.model import token_losses
from qlora_probe.optim import moments
from qlora_probe.probes.sharpness import Sharpness

TINY = LoraConfig(r=1, alpha=4, dropout=0.1, targets=["v_proj"])  # 2 x (32 + 16) parameters

LARGE = OptimConfig("adamw", lr=0.3)
FEW = LoopConfig(batch=2, accum=6)  # two updates


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors]).double()


def loss_of(trainer, n):
    return token_losses(trainer.model, *collate(trainer.train_tokens[:n])).mean()


def by_differences(trainer, n, eps=5e-3):
    """Hessian column by column from gradients on both sides, dropout off; error O(eps^2)."""
    trainer.model.eval()
    columns = []
    for parameter in trainer.parameters:
        entries = parameter.data.view(-1)
        for i in range(len(entries)):
            kept, ends = entries[i].item(), []
            for sign in (1, -1):
                entries[i] = kept + sign * eps
                ends.append(flat(torch.autograd.grad(loss_of(trainer, n), trainer.parameters)))
            entries[i] = kept
            columns.append((ends[0] - ends[1]) / (2 * eps))
    H = torch.stack(columns)
    return (H + H.T) / 2


def by_autograd(trainer, n):
    """Of the loss as a function of one flat vector."""
    trainer.model.eval()
    names = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    shapes = [p.shape for p in trainer.parameters]
    ids, labels = collate(trainer.train_tokens[:n])

    def loss(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        values = {name: t.view(s) for name, t, s in zip(names, parts, shapes, strict=True)}
        logits = functional_call(trainer.model, values, (ids,)).logits[:, :-1]
        targets = labels[:, 1:].flatten()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-100)

    theta = torch.cat([p.detach().reshape(-1) for p in trainer.parameters])
    return torch.autograd.functional.hessian(loss, theta).double()


def ends(H):
    values = torch.linalg.eigvalsh(H)
    return values[-1].item(), values[0].item()


def preconditioner_by_hand(trainer):
    """Of the update to come, from all the gradients so far, exactly."""
    t = len(trainer.gradients)
    v = sum(0.001 * 0.999 ** (t - 1 - i) * g.square() for i, g in enumerate(trainer.gradients))
    return (v / (1 - 0.999**t)).sqrt() + 1e-8


class Dense:
    """What the probe should find, at the same updates."""

    def __init__(self, every, n, hessian):
        self.every, self.n, self.hessian, self.found = every, n, hessian, {}

    def clipped(self, trainer):
        mode = trainer.model.training
        self.found[trainer.step] = self.hessian(trainer, self.n)
        trainer.model.train(mode)


class Gradients:
    """After clipping."""

    every = 1

    def clipped(self, trainer):
        gradient = flat([p.grad for p in trainer.parameters])
        trainer.gradients = [*getattr(trainer, "gradients", []), gradient]


def points(trainer, name):
    return {step: p[name] for step, p in trainer.curves.items() if name in p}


@pytest.mark.parametrize(("quant", "hessian"), [(None, by_autograd), ("nf4", by_differences)])
def test_both_ends_are_those_of_the_dense_hessian(llama, quant, hessian):
    """Float32; 40 steps of Lanczos in 96 dimensions. Differences are good to 1e-3."""
    cfg = small(llama, quant=quant, lora=TINY, optim=LARGE, train=FEW)
    dense = Dense(1, 5, hessian)
    with training(cfg, [Sharpness(every=1, steps=40, n=5), dense]) as trainer:
        finish(trainer)
        top, bottom = points(trainer, "sharpness"), points(trainer, "sharpness_bottom")
        assert list(top) == list(bottom) == list(dense.found) == [0, 1]
        for step, H in dense.found.items():
            expected = ends(H)
            scale = max(map(abs, expected))
            assert (top[step], bottom[step]) == pytest.approx(expected, abs=2e-3 * scale)
        residuals = points(trainer, "sharpness_residual")
        assert all(residuals[step] < 0.01 * top[step] for step in residuals)
        assert len({round(value, 3) for value in top.values()}) == 2


def test_the_residual_is_that_of_the_top(llama):
    """Four steps: unfinished at both ends, and differently."""
    cfg = small(llama, quant=None, lora=TINY, train=LoopConfig(batch=2, accum=12))
    dense = Dense(1, 5, by_autograd)
    with training(cfg, [Sharpness(steps=4, n=5), dense]) as trainer:
        finish(trainer)
        start = torch.randn(96, generator=torch.Generator().manual_seed(0)).double()
        expected = extreme_eigenvalues(lambda v: dense.found[0] @ v, start, 4).residual
        assert points(trainer, "sharpness_residual")[0] == pytest.approx(expected[0], rel=1e-3)
        assert expected[0] != pytest.approx(expected[1], rel=0.1)


def test_at_the_start_only_the_gradient_couples_a_and_b(llama):
    """B = 0: the loss does not depend on A, so A's block is 0; with B of the same adapter it is
    d^2 L / dB dA = s dL/dW, r = 1. Interlacing with the 2 x 2 block of its singular vectors,
    [[0, sigma], [sigma, d]] of determinant -sigma^2: top x -bottom >= sigma^2."""
    cfg = small(llama, quant=None, lora=TINY, optim=LARGE, train=FEW)
    dense = Dense(1, 5, by_autograd)
    with training(cfg, [Sharpness(n=5, steps=60), dense]) as trainer:
        scale = trainer.lm.adapters["model.layers.0.self_attn.v_proj"].scale
        trainer.model.eval()
        weight = trainer.lm.adapters["model.layers.0.self_attn.v_proj"].base.weight
        weight.requires_grad_(True)
        [G] = torch.autograd.grad(loss_of(trainer, 5), weight)  # [out, in]
        weight.requires_grad_(False)
        trainer.model.train()
        finish(trainer)
        H = dense.found[0]
        a, b = slice(0, 32), slice(32, 48)
        assert not H[a, a].any()
        torch.testing.assert_close(H[b, a], scale * G.double(), rtol=1e-3, atol=1e-6)
        coupling = torch.linalg.matrix_norm(H[b, a], 2).item()
        top, bottom = points(trainer, "sharpness")[0], points(trainer, "sharpness_bottom")[0]
        assert bottom < 0 < top
        assert -top * bottom >= coupling**2 * (1 - 1e-3)


def test_preconditioned_by_what_adam_divides_by(llama):
    """Against eigenvalues of P^-1/2 H P^-1/2 with P from all gradients so far."""
    cfg = small(llama, quant=None, lora=TINY, optim=LARGE, train=LoopConfig(batch=2, accum=4))
    dense, seen = Dense(1, 5, by_autograd), {}

    class Preconditioner:
        every = 1

        def clipped(self, trainer):
            seen[trainer.step] = preconditioner_by_hand(trainer)

    probes = [Gradients(), Sharpness(every=1, steps=96, n=5), dense, Preconditioner()]
    with training(cfg, probes) as trainer:
        finish(trainer)
        found = points(trainer, "sharpness_preconditioned")
        assert list(found) == list(points(trainer, "limit_adam")) == [1, 2]  # no state at 0
        for step, top in found.items():
            root = seen[step].rsqrt()
            assert top == pytest.approx(ends(root[:, None] * dense.found[step] * root)[0], rel=1e-3)


def test_limits_are_those_of_the_learning_rate_of_the_update(llama):
    with training(small(llama), [Sharpness(every=4, steps=2, n=2)]) as trainer:
        finish(trainer)
        lr = points(trainer, "lr")
        for step in (0, 4, 5):
            assert trainer.curves[step]["limit_gd"] == pytest.approx(2 / lr[step])
        assert points(trainer, "limit_adam") == pytest.approx({4: 38 / lr[4], 5: 38 / lr[5]})


def test_eight_bit_state_gives_nearly_the_same(llama):
    found = []
    for name in ("adamw", "adamw8bit"):
        cfg = small(llama, optim=OptimConfig(name, lr=5e-3, min_8bit_size=1))
        with training(cfg, [Sharpness(every=5, steps=10, n=4)]) as trainer:
            finish(trainer)
            m, v = moments(trainer.optimizer, trainer.parameters[0])
            assert m.shape == v.shape == trainer.parameters[0].shape
            found.append(points(trainer, "sharpness_preconditioned")[5])
    assert found[1] == pytest.approx(found[0], rel=0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adamw8bit"])
def test_leaves_the_training_as_it_was(llama, name):
    """Gradients, mode, random state and optimizer included: losses are equal bit for bit."""
    cfg = small(llama, optim=OptimConfig(name, lr=5e-3, min_8bit_size=1))
    found = []
    for probes in ([], [Sharpness(every=1, steps=3, n=3)]):
        with training(cfg, probes) as trainer:
            finish(trainer)
            found.append((points(trainer, "train_loss"), trainer.optimizer.state_dict()))
            end = flat(trainer.parameters).detach()
            found[-1] += (end,)
    (losses, state, end), (with_losses, with_state, with_end) = found
    assert losses == with_losses
    assert torch.equal(end, with_end)
    assert state["state"].keys() == with_state["state"].keys()
    assert ("sharpness_preconditioned" in trainer.curves[5]) == (name != "sgd")
    assert "limit_gd" in trainer.curves[5]


def test_without_a_state_again_after_a_reset(llama):
    cfg = small(llama)
    cfg = replace(cfg, train=replace(cfg.train, reset_state_at=[3]))
    with training(cfg, [Sharpness(every=1, steps=2, n=2)]) as trainer:
        finish(trainer)
        assert list(points(trainer, "sharpness_preconditioned")) == [1, 2, 4, 5]


@pytest.mark.parametrize("name", ["every", "steps", "n"])
def test_refuses(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0"):
        Sharpness(**{name: 0})
