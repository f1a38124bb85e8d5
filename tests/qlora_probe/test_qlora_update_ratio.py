"""The probe update_ratio, against differences of whole matrices."""

import math

import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe import hooks
from qlora_probe.config import LoraConfig, OptimConfig
from qlora_probe.probes.update_ratio import UpdateRatio


class Factors:
    """A, B of every module around each update, float64."""

    every = 1

    def __init__(self):
        self.before, self.after = [], []

    def clipped(self, trainer):
        self.before.append(factors(trainer))

    def stepped(self, trainer):
        self.after.append(factors(trainer))


def factors(trainer):
    return [
        (a.A.detach().double().clone(), a.B.detach().double().clone())
        for a in trainer.lm.adapters.values()
    ]


def norm(tensors):
    return math.sqrt(sum(t.square().sum().item() for t in tensors))


def ratio(after, before):
    return norm([x - y for x, y in zip(after, before, strict=True)]) / norm(before)


def trained(llama, lora=None, name="adamw8bit", **params):
    probe, seen = UpdateRatio(**params), Factors()
    cfg = small(
        llama,
        optim=OptimConfig(name=name, lr=5e-3, min_8bit_size=1),
        lora=lora or LoraConfig(r=4, alpha=6, dropout=0.0),
    )
    with training(cfg, [probe, seen]) as trainer:
        hooks.call([probe], "train_start", trainer)
        finish(trainer)
        W0 = norm([a.base_weight().double() for a in trainer.lm.adapters.values()])
    return trainer, seen, W0


def test_ratios_are_those_of_whole_matrices(llama):
    trainer, seen, W0 = trained(llama, every=2)
    assert [t for t, p in sorted(trainer.curves.items()) if "delta_w" in p] == [0, 2, 4, 5]
    for step in (0, 2, 4, 5):
        point, after, before = trainer.curves[step], seen.after[step], seen.before[step]
        (A1, B1), (A0, B0) = zip(*after, strict=True), zip(*before, strict=True)
        moved = [1.5 * (b1 @ a1 - b0 @ a0)
                 for a1, b1, a0, b0 in zip(A1, B1, A0, B0, strict=True)]  # fmt: skip
        assert point["delta_w"] == pytest.approx(norm(moved), rel=1e-6)
        assert point["delta_w_ratio"] == pytest.approx(norm(moved) / W0, rel=1e-6)
        assert point["update_ratio"] == pytest.approx(ratio(A1 + B1, A0 + B0), rel=1e-5)
        assert point["update_ratio_a"] == pytest.approx(ratio(A1, A0), rel=1e-5)
        if step:
            assert point["update_ratio_b"] == pytest.approx(ratio(B1, B0), rel=1e-5)
            assert point["update_ratio_a"] > 0
    assert trainer.scalars["first_update_norm"] == trainer.curves[0]["delta_w"]


def test_only_B_moves_at_first(llama):
    """From 0, so that its ratio is not defined; A has no gradient."""
    trainer, _, _ = trained(llama)
    assert math.isnan(trainer.curves[0]["update_ratio_b"])
    assert trainer.curves[0]["update_ratio_a"] == 0
    assert trainer.curves[0]["update_ratio"] > 0


def test_first_update_is_as_large_as_the_scale(llama):
    """Adam's first step is lr sign(g) whatever the scale s, so that s B A moves by s ||B A||."""
    small_one, large_one = (
        trained(llama, LoraConfig(r=4, alpha=alpha, dropout=0.0), "adamw")[0].scalars
        for alpha in (4, 8)
    )
    ratio = large_one["first_update_norm"] / small_one["first_update_norm"]
    assert ratio == pytest.approx(2, rel=1e-3)


def test_weights_that_are_not_finite_end_in_no_error(llama):
    probe = UpdateRatio()
    with training(small(llama), [probe]) as trainer, torch.no_grad():
        probe.train_start(trainer)
        probe.clipped(trainer)
        trainer.parameters[3][0, 0] = torch.nan
        probe.stepped(trainer)
    assert math.isnan(trainer.curves[0]["delta_w"])
