"""The probe grad_norm: norms and the clipping of a training, and of gradients set by hand."""

import numpy as np
import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe import hooks
from qlora_probe.config import OptimConfig
from qlora_probe.probes.grad_norm import GradNorm


class Gradients:
    """All gradients, of A and B by module, before clipping; their norm after."""

    every = 1

    def __init__(self):
        self.before, self.after = [], []

    def grad(self, trainer):
        self.before.append(
            {n: (a.A.grad.clone(), a.B.grad.clone()) for n, a in trainer.lm.adapters.items()}
        )

    def clipped(self, trainer):
        self.after.append(norm([p.grad for p in trainer.parameters]))


def norm(tensors):
    return np.sqrt(sum(t.double().square().sum().item() for t in tensors))


def trained(llama, clip, **params):
    """At a rate so small that clipping changes no later gradient."""
    probe, seen = GradNorm(**params), Gradients()
    cfg = small(llama, optim=OptimConfig(name="sgd", lr=1e-12, clip=clip))
    with training(cfg, [probe, seen]) as trainer:
        finish(trainer)
        hooks.call([probe], "train_end", trainer)
    return trainer, seen


def curve(trainer, name):
    return {step: p[name] for step, p in sorted(trainer.curves.items()) if name in p}


def test_norms_before_and_after_clipping(llama):
    free, _ = trained(llama, 1e9)
    assert set(curve(free, "clip_coef").values()) == {1.0}
    assert free.scalars["clip_fraction"] == 0
    norms = sorted(curve(free, "grad_norm").values())
    clip = (norms[1] + norms[2]) / 2  # of six
    trainer, seen = trained(llama, clip)
    assert trainer.scalars["clip_fraction"] == pytest.approx(4 / 6)
    whole = [norm([g for pair in step.values() for g in pair]) for step in seen.before]
    found = list(curve(trainer, "grad_norm").values())
    assert found == pytest.approx(whole, rel=1e-5)
    coefficients = list(curve(trainer, "clip_coef").values())
    assert np.multiply(found, coefficients) == pytest.approx(seen.after, rel=1e-5)
    assert max(seen.after) <= clip * (1 + 1e-6)


def test_norms_by_kind_and_matrix(llama):
    trainer, seen = trained(llama, 1.0, every=2)
    table = trainer.tables["grad_norms"]
    kinds = ["q", "k", "v", "o", "gate", "up", "down"]
    keys = list(zip(table["step"], table["kind"], table["matrix"], strict=True))
    due = [0, 2, 4, 5]  # the last, too
    assert sorted(keys) == sorted((t, kind, m) for t in due for kind in kinds for m in "AB")
    for (step, kind, matrix), value in zip(keys, table["norm"], strict=True):
        of_kind = [
            pair["AB".index(matrix)]
            for name, pair in seen.before[step].items()
            if name.endswith(f".{kind}_proj")
        ]
        assert len(of_kind) == 2  # blocks
        assert value == pytest.approx(norm(of_kind), rel=1e-6)
    assert [v for (t, _, m), v in zip(keys, table["norm"], strict=True) if (t, m) == (0, "A")] == [
        0
    ] * len(kinds)  # as B is 0


def test_a_gradient_of_norm_5_is_multiplied_by_a_fifth(llama):
    probe = GradNorm()
    with training(small(llama)) as trainer:
        for p in trainer.parameters:
            p.grad = torch.zeros_like(p)
        A, B = trainer.parameters[:2]  # of the first q
        A.grad[0, 0], B.grad[1, 1] = 3, 4
        probe.grad(trainer)
        trainer.grad_norm = torch.nn.utils.clip_grad_norm_(trainer.parameters, 1.0).item()
        probe.clipped(trainer)
        assert norm([p.grad for p in trainer.parameters]) <= 1 + 1e-6
    table = trainer.tables["grad_norms"]
    assert [v for v in table["norm"] if v] == [3, 4]
    assert table["kind"][:2] == ["q", "q"]
    assert trainer.curves[0]["grad_norm"] == 5
    assert trainer.curves[0]["clip_coef"] == pytest.approx(0.2, rel=1e-6)
