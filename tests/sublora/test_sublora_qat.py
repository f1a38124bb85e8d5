"""Training of coordinates on their levels."""

import numpy as np
import pytest
import torch
from sublora_cases import config, file, module_of, numbers, run

from sublora import qat
from sublora.batches import Batches, Diverged
from sublora.decode import main
from sublora.evaluate import losses_of
from sublora.model import set_coordinates
from sublora.qat import LR, MOMENTUM, train_quantized
from sublora.trainer import val_windows


@pytest.fixture
def case(folder, data):
    """A module, its batches, coordinates of either codebook, levels that are not near them."""
    cfg = config(folder)
    rng = np.random.default_rng(0)
    w, which = rng.standard_normal(60).astype(np.float32), np.repeat([0, 1], [20, 40])
    levels = np.array([[-1.0, 0.0, 1.5], [-2.0, 0.5, 0.75]], np.float16)
    return module_of(cfg), Batches(cfg, data, torch.device("cpu")), w, levels, which


def on_levels(w, levels, which):
    distances = np.abs(w[:, None] - levels.astype(np.float32)[which])
    symbols = distances.argmin(1)
    return symbols, levels.astype(np.float32)[which, symbols]


def gradient_at(module, batches, w, step):
    set_coordinates(module, w)
    _, [gradient] = batches.gradients(module, [module.w], "qat", step)
    return gradient.numpy()


def test_w_gets_the_gradient_of_its_level_and_a_level_that_of_its_members(case):
    module, batches, w, levels, which = case
    symbols, quantised = on_levels(w, levels, which)
    gradient = gradient_at(module, batches, quantised, 0)
    of_levels = np.zeros((2, 3))
    np.add.at(of_levels, (which, symbols), gradient)
    found_w, found_levels = train_quantized(module, batches, w, levels, which, 1)
    # steps of 5e-5: what moved is what is compared
    np.testing.assert_allclose(found_w - w, -LR * gradient, rtol=1e-2, atol=2e-7)
    np.testing.assert_allclose(found_levels - levels, -LR * of_levels, rtol=1e-2, atol=2e-7)
    assert np.abs(gradient).max() > 0.01


def test_second_step_has_momentum(case):
    module, batches, w, levels, which = case
    _, quantised = on_levels(w, levels, which)
    first = gradient_at(module, batches, quantised, 0)
    one_w, one_levels = train_quantized(module, batches, w, levels, which, 1)
    second = gradient_at(module, batches, on_levels(one_w, one_levels, which)[1], 1)
    two_w, _ = train_quantized(module, batches, w, levels, which, 2)
    expected = -LR * (MOMENTUM * first + second)
    np.testing.assert_allclose(two_w - one_w, expected, rtol=2e-2, atol=3e-7)


def test_loss_on_the_levels_falls(case, data, monkeypatch):
    """At a rate that does it in a few steps."""
    monkeypatch.setattr(qat, "LR", 0.03)
    module, batches, w, levels, which = case
    windows = val_windows(data.val, 16)

    def loss(w, levels):
        set_coordinates(module, on_levels(w, levels, which)[1])
        return losses_of(module, windows, len(windows), data.vocab_size, ()).raw.mean()

    before = loss(w, levels)
    assert loss(*train_quantized(module, batches, w, levels, which, 30)) < before - 0.2


def test_loss_that_is_not_finite_is_said(case):
    module, batches, w, levels, which = case
    w[0] = np.nan
    with pytest.raises(Diverged, match="the loss of step 1 is nan"):
        train_quantized(module, batches, w, levels, which, 1)


@pytest.mark.parametrize("codebooks", ["shared", "ab"])
def test_run_with_it_is_the_same_twice_and_decodes(folder, tmp_path, capsys, codebooks):
    def run_of(n_steps, name):
        quant = {"codebooks": codebooks, "qat_steps": n_steps}
        allocation = {"name": "fixed_0.3"}
        return run(config(folder, quant=quant, allocation=allocation), tmp_path / name)

    plain, once, again = run_of(0, "plain"), run_of(10, "once"), run_of(10, "again")
    assert numbers(once) == numbers(again)
    assert once.scalars["bpd_raw"] != plain.scalars["bpd_raw"]
    capsys.readouterr()
    assert main([str(file(once, "message.bin"))]) == 0
    assert f"bound_value: {once.scalars['bound_value']!r}\n" in capsys.readouterr().out


def test_trained_levels_are_used_again_and_only_as_what_they_are(folder, tmp_path):
    trained = run(config(folder, quant={"qat_steps": 10}), tmp_path / "trained")
    best = file(trained, "best.pt")

    def again(**quant):
        cfg = config(folder, quant=quant, eval_from=str(best))
        return file(run(cfg, tmp_path / "again"), "message.bin").read_bytes()

    message = file(trained, "message.bin").read_bytes()
    assert again() == again(qat_steps=10) == message
    others = [again(levels=6), again(method="uniform")]
    assert message not in others
    assert len(others[0]) != len(message)
