"""The probe noise_scale: on gradients set by hand, and on those of a model."""

import itertools
import math

import pytest
import torch
from qlora_cases import small, training

from qlora_probe import hooks
from qlora_probe.config import LoopConfig, LoraConfig, OptimConfig
from qlora_probe.data import IGNORED, Tokens
from qlora_probe.probes.noise_scale import NoiseScale


def config(llama, batch, accum):
    return small(
        llama,
        optim=OptimConfig(name="sgd", lr=1e-12),  # the model stays where it is
        lora=LoraConfig(r=4, alpha=4, dropout=0.0),
        train=LoopConfig(batch=batch, accum=accum),
    )


def part(*targets):
    """Labels of sequences with that many targets each; ids do not matter."""
    labels = torch.full((len(targets), 10), IGNORED)
    for row, n in enumerate(targets):
        labels[row, :n] = 7
    return torch.zeros_like(labels), labels


def measured(trainer, parts, gradients):
    """parts with these mean gradients over their own targets, in two coordinates."""
    probe, totals = NoiseScale(), [int((labels >= 0).sum()) for _, labels in parts]
    for p in trainer.parameters:
        p.grad = torch.zeros_like(p)
    at = trainer.parameters[0].grad.view(-1)
    trainer.parts = parts
    for i, (gradient, n) in enumerate(zip(gradients, totals, strict=True)):
        trainer.part = i
        at[:2] += torch.tensor(gradient) * n / sum(totals)
        probe.micro_grad(trainer)
    probe.grad(trainer)
    probe.train_end(trainer)
    return trainer


def test_known_norms_give_known_scales(llama):
    """|g_b|^2 = 260 with 4 sequences, |g_B|^2 = 72.5 with 16: G2 = 10, S = 1000, S / G2 = 100."""
    mean, off = math.sqrt(72.5), math.sqrt(260 - 72.5)
    with training(config(llama, 4, 4)) as trainer:
        measured(trainer, [part(5, 5, 5, 5)] * 4, [(mean, off), (mean, -off)] * 2)
    assert trainer.curves[0]["noise_g2"] == pytest.approx(10, rel=1e-4)
    assert trainer.curves[0]["noise_s"] == pytest.approx(1000, rel=1e-5)
    assert trainer.scalars == {"noise_batch": 16, "noise_scale": pytest.approx(100, rel=1e-4)}


def test_parts_count_by_their_own_targets(llama):
    """Two parts of 1 and 3 sequences with 2 and 8 targets, one without any: b is the harmonic
    mean 1.5, and the batch's gradient weighs them 1 : 4."""
    with training(config(llama, 4, 4)) as trainer:
        measured(
            trainer, [part(2), part(0, 0), part(3, 3, 2)], [(10.0, 0.0), (0.0, 0.0), (0.0, 5.0)]
        )
    small_norm, big_norm, b, B = (100 + 25) / 2, 2**2 + 4**2, 1.5, 6
    G2 = (B * big_norm - b * small_norm) / (B - b)
    S = (small_norm - big_norm) / (1 / b - 1 / B)
    assert trainer.curves[0]["noise_g2"] == pytest.approx(G2, rel=1e-5)
    assert trainer.curves[0]["noise_s"] == pytest.approx(S, rel=1e-5)


def test_no_scale_where_the_gradient_is_all_noise(llama):
    with training(config(llama, 4, 2)) as trainer:
        measured(trainer, [part(1, 1, 1, 1)] * 2, [(1.0, 0.0), (-1.0, 0.0)])
    assert trainer.curves[0]["noise_g2"] < 0
    assert trainer.scalars == {"noise_batch": 8}


def sequences(n):
    """Of 10 tokens, the last five of them targets."""
    ids = torch.randint(1, 256, (n, 10), generator=torch.Generator().manual_seed(0))
    return [Tokens(row, torch.arange(10) >= 5) for row in ids]


def gradient(trainer, sequence):
    loss = trainer.loss_of([(sequence.ids[None], labels(sequence))])
    parts = torch.autograd.grad(loss, trainer.parameters)
    return torch.cat([part.flatten() for part in parts]).double()


def labels(sequence):
    return sequence.ids.masked_fill(~sequence.is_target, IGNORED)[None]


def test_equal_parts_have_no_noise(llama):
    [sequence] = sequences(1)
    with training(config(llama, 2, 4), [NoiseScale()]) as trainer:
        g2 = gradient(trainer, sequence).square().sum().item()
        trainer._update([sequence] * 8)
    assert trainer.curves[0]["noise_g2"] == pytest.approx(g2, rel=1e-5)
    assert abs(trainer.curves[0]["noise_s"]) < 1e-4 * g2


def test_means_over_all_batches_are_the_gradient_and_its_covariance(llama):
    """All nine ordered pairs of three sequences, in parts of one: the mean of G2 is the squared
    mean gradient, that of S the trace of the covariance, exactly."""
    three = sequences(3)
    probe = NoiseScale()
    with training(config(llama, 1, 2), [probe]) as trainer:
        g = torch.stack([gradient(trainer, sequence) for sequence in three])
        for pair in itertools.product(three, repeat=2):
            trainer._update(list(pair))
        hooks.call([probe], "train_end", trainer)
    G2 = g.mean(0).square().sum().item()
    S = (g - g.mean(0)).square().sum(1).mean().item()
    points = [trainer.curves[step] for step in range(9)]
    assert sum(p["noise_g2"] for p in points) / 9 == pytest.approx(G2, rel=1e-4)
    assert sum(p["noise_s"] for p in points) / 9 == pytest.approx(S, rel=1e-4)
    assert trainer.scalars["noise_scale"] == pytest.approx(S / G2, rel=1e-4)
    assert trainer.scalars["noise_batch"] == 2


def test_nothing_without_parts(llama):
    probe = NoiseScale()
    with training(config(llama, 4, 1), [probe]) as trainer:
        trainer._update(sequences(4))
        hooks.call([probe], "train_end", trainer)
    assert set(trainer.curves[0]) == {"train_loss", "lr"}
    assert trainer.scalars == {}
