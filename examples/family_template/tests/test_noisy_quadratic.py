"""Runs against the closed form, alone and in stacks."""

import numpy as np
import pytest
from noisy_quadratic.config import TrainConfig
from noisy_quadratic.theory import eigenvalues, expected_mode_losses
from noisy_quadratic.train import run_stack


def test_without_noise_a_stack_follows_the_closed_form_and_each_run_alone(tmp_path):
    cfg = TrainConfig(dim=4, alpha=0.5, steps=50, every=7, metrics=[{"leading_share": {"k": 2}}])
    seeds, rates = [0, 0, 5], [0.1, 1.2, 0.4]
    results = run_stack(cfg, {"seed": seeds, "lr": rates}, [tmp_path] * 3)
    for seed, lr, result in zip(seeds, rates, results, strict=True):
        start = np.random.default_rng(seed).standard_normal(4)
        steps = [0, 7, 14, 21, 28, 35, 42, 49, 50]
        modes = expected_mode_losses(eigenvalues(4, 0.5), start**2, lr, None, steps)
        assert result.curves["step"] == steps
        assert result.curves["loss"] == pytest.approx(modes.sum(1), rel=1e-10)
        share = modes[:, :2].sum(1) / modes.sum(1)
        assert result.curves["leading_share"] == pytest.approx(share, rel=1e-10)
        alone = TrainConfig(**{**vars(cfg), "seed": seed, "lr": lr})
        assert run_stack(alone, {}, [tmp_path])[0].curves == result.curves


def test_the_mean_over_seeds_is_the_expected_loss(tmp_path):
    cfg = TrainConfig(dim=6, lr=0.5, batch_size=2, steps=60, every=20)
    n = 2000
    results = run_stack(cfg, {"seed": range(n)}, [tmp_path] * n)
    losses = np.array([result.curves["loss"] for result in results])
    expected = expected_mode_losses(eigenvalues(6, 1), 1.0, 0.5, 2, [0, 20, 40, 60]).sum(1)
    error = losses.std(0) / n**0.5
    assert np.all(np.abs(losses.mean(0) - expected) < 4 * error)
