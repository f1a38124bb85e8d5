"""The probe activation_drift against hidden states taken one sequence at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe.probes.activation_drift import ActivationDrift, linear_cka


def states(trainer, sequence):
    """Outputs of both blocks; transformers has all but the last, which its final norm reads."""
    kept = []
    norm = trainer.model.get_base_model().model.norm
    hook = norm.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0][0]))
    with torch.no_grad():
        out = trainer.model(sequence.ids[None], output_hidden_states=True)
    hook.remove()
    return [out.hidden_states[1][0].numpy(), kept[0].numpy()]


def test_nothing_has_moved_at_the_start(llama):
    with training(small(llama), [ActivationDrift()]) as trainer:
        finish(trainer)
        table = trainer.tables["activation_drift"]
    assert table["step"] == [0, 0, 3, 3, 6, 6]
    assert table["block"] == [0, 1] * 3
    assert table["drift"][:2] == [0, 0]
    assert table["cka"][:2] == pytest.approx([1, 1], abs=1e-12)
    assert min(table["drift"][2:]) > 0.01
    assert all(0 <= cka < 1 - 1e-6 for cka in table["cka"][2:])


def test_is_that_of_the_states_without_padding_and_first_tokens(llama):
    with training(small(llama)) as trainer:
        short = trainer.held_out[1]
        trainer.held_out = [*trainer.held_out, *trainer.train_tokens[:15]]  # two batches
        trainer.held_out[1] = replace(short, ids=short.ids[:9], is_target=short.is_target[:9])
        finish(trainer)
        trainer.tables.clear()
        ActivationDrift().eval(trainer)
        trainer.model.eval()
        h = [states(trainer, sequence) for sequence in trainer.held_out]
        with trainer.model.disable_adapter():
            h0 = [states(trainer, sequence) for sequence in trainer.held_out]
        table, point = trainer.tables["activation_drift"], trainer.curves[6]
    for block in (0, 1):
        X, Y = (np.concatenate([s[block][1:] for s in every]) for every in (h, h0))
        drift = np.linalg.norm(X - Y, axis=1) / np.linalg.norm(Y, axis=1)
        assert table["drift"][block] == pytest.approx(drift.mean(), rel=1e-4)
        X, Y = X - X.mean(0), Y - Y.mean(0)
        hsic = np.trace(X @ X.T @ Y @ Y.T)  # the form over tokens, Kornblith et al. (2019), eq. 3
        cka = hsic / np.sqrt(np.trace(X @ X.T @ X @ X.T) * np.trace(Y @ Y.T @ Y @ Y.T))
        assert table["cka"][block] == pytest.approx(cka, rel=1e-5)
    assert point["drift"] == pytest.approx(np.mean(table["drift"]), rel=1e-12)


def test_cka_ignores_shift_scale_and_rotation_but_not_shape():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=generator)
    Q = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    assert linear_cka(X, 3 * X @ Q + 7) == pytest.approx(1, abs=1e-6)
    assert linear_cka(X, X * torch.tensor([9.0, 1, 1, 1, 1])) < 0.9
    assert linear_cka(X, torch.randn(60, 5, generator=generator)) < 0.3


def test_cka_of_orthogonal_columns():
    """Two centred unit columns u, v: CKA of [u] and [u, v] is 1 / sqrt 2, of [u] and [v] 0."""
    u, v = torch.tensor([1.0, -1, 1, -1]) / 2, torch.tensor([1.0, 1, -1, -1]) / 2
    assert linear_cka(u[:, None], torch.stack([u, v], 1)) == pytest.approx(0.5**0.5)
    assert linear_cka(u[:, None], v[:, None]) == pytest.approx(0, abs=1e-12)
