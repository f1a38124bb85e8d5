"""The probe adam_moments, against Adam by hand on the gradients of a training."""

import math

import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe.config import OptimConfig
from qlora_probe.probes.adam_moments import AdamMoments

NAMES = ("m_norm", "sqrt_v_norm", "cos_m_g", "adam_step")


class Clipped:
    """The gradients that an optimizer gets, [updates, n] float64."""

    every = 1

    def __init__(self):
        self.g = []

    def clipped(self, trainer):
        self.g.append(torch.cat([p.grad.flatten() for p in trainer.parameters]).double())


def trained(llama, name, reset=(), **params):
    seen = Clipped()
    cfg = small(llama, optim=OptimConfig(name=name, lr=5e-3, min_8bit_size=1))
    cfg.train.reset_state_at = list(reset)
    with training(cfg, [AdamMoments(**params), seen]) as trainer:
        finish(trainer)
    found = {
        step: tuple(point[n] for n in NAMES)
        for step, point in sorted(trainer.curves.items())
        if NAMES[0] in point
    }
    return found, seen.g


def by_hand(gradients, reset=()):
    for step, g in enumerate(gradients):
        if step == 0 or step in reset:
            m = v = torch.zeros_like(g)
            t = 0
        t += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        taken = (m / (1 - 0.9**t)).abs() / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        cosine = torch.nn.functional.cosine_similarity(m, g, dim=0)
        yield m.norm().item(), v.sqrt().norm().item(), cosine.item(), taken.mean().item()


@pytest.mark.parametrize(("name", "tolerance"), [("adamw", 1e-4), ("adamw8bit", 0.04),
                                                 ("paged_adamw8bit", 0.04)])  # fmt: skip
def test_moments_of_a_training(llama, name, tolerance):
    """In 8 bits the norms and the cosine; the smallest v of a block round to 0, and adam_step, a
    mean of quotients, is another."""
    found, gradients = trained(llama, name)
    expected = list(by_hand(gradients))
    assert list(found) == list(range(6))
    n = 4 if name == "adamw" else 3
    for values, reference in zip(found.values(), expected, strict=True):
        assert values[:n] == pytest.approx(reference[:n], rel=tolerance)
    assert found[0][2] == pytest.approx(1, abs=1e-3)


def test_first_update(llama):
    """||m|| = .1 ||g||, ||sqrt v|| = sqrt(.001) ||g||; every element of B moves by the learning
    rate, none of A, whose gradient is 0 as long as B is."""
    found, gradients = trained(llama, "adamw", every=3)
    assert list(found) == [0, 3, 5]
    m_norm, sqrt_v_norm, cosine, taken = found[0]
    norm = gradients[0].norm().item()
    assert m_norm == pytest.approx(0.1 * norm, rel=1e-6)
    assert sqrt_v_norm == pytest.approx(math.sqrt(0.001) * norm, rel=1e-6)
    assert cosine == pytest.approx(1, rel=1e-6)
    assert taken == pytest.approx((gradients[0] != 0).double().mean().item(), rel=1e-2)


def test_reset_state_starts_again(llama):
    found, gradients = trained(llama, "adamw", reset=[3])
    assert found[3][2] == pytest.approx(1, rel=1e-6)
    assert found[2][2] < 0.999
    for values, reference in zip(found.values(), by_hand(gradients, reset=[3]), strict=True):
        assert values == pytest.approx(reference, rel=1e-4)


def test_sgd_has_no_moments(llama):
    found, _ = trained(llama, "sgd")
    assert found == {}
