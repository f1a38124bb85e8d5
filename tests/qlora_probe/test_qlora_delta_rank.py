"""The probe delta_rank, on adapters set by hand."""

import math

import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe import hooks
from qlora_probe.config import LoraConfig
from qlora_probe.probes.delta_rank import DeltaRank

B = torch.tensor([[1.0, 1], [0, 1], [2, 0]])
A = torch.tensor([[1.0, 0, 2, 0], [0, 1, 1, 1]])
# Of 2 B A.
VALUES = [11.29534, 3.52353, 0, 0]
STABLE, EFFECTIVE = 1.09731, 1.73065
Q = "model.layers.0.self_attn.q_proj"
SCALE_2 = LoraConfig(r=4, alpha=8, dropout=0.0)


def measured(trainer):
    probe = DeltaRank()
    for hook in ("train_start", "eval", "train_end"):
        hooks.call([probe], hook, trainer)
    return trainer.curves[0], trainer.tables["delta_rank"], trainer.tables["delta_spectrum"]


def row(table, module):
    at = table["module"].index(module)
    return [table[name][at] for name in ("stable_rank", "effective_rank", "norm_ratio")]


def test_one_module_set_by_hand(llama):
    """The others have learnt nothing: rank 0, and all count in the means."""
    with training(small(llama, lora=SCALE_2)) as trainer, torch.no_grad():
        adapter = trainer.lm.adapters[Q]
        adapter.A.zero_()[:2, :4] = A
        adapter.B[:3, :2] = B
        curves, table, spectrum = measured(trainer)
        W0 = adapter.base_weight().norm().item()
    whole = (2 * B @ A).norm().item()
    assert row(table, Q) == pytest.approx([STABLE, EFFECTIVE, whole / W0], rel=1e-5)
    assert row(table, Q.replace("q_proj", "k_proj")) == [0, 0, 0]
    assert len(table["module"]) == 14
    assert table["kind"][:7] == ["q", "k", "v", "o", "gate", "up", "down"]
    assert set(table["step"]) == {0}
    assert curves["stable_rank"] == pytest.approx(STABLE / 14, rel=1e-5)
    assert curves["effective_rank"] == pytest.approx(EFFECTIVE / 14, rel=1e-5)
    assert curves["delta_norm_ratio"] == pytest.approx(whole / W0 / 14, rel=1e-5)
    assert spectrum["at"] == [0, 1, 2, 3] * 14
    of_q = [v for m, v in zip(spectrum["module"], spectrum["value"], strict=True) if m == Q]
    assert of_q == pytest.approx(VALUES, rel=1e-5, abs=1e-6)


def test_nothing_learnt_has_rank_0(llama):
    with training(small(llama)) as trainer:
        curves, _, spectrum = measured(trainer)
    assert curves == {"stable_rank": 0, "effective_rank": 0, "delta_norm_ratio": 0}
    assert set(spectrum["value"]) == {0}


def test_measured_with_every_held_out_loss(llama):
    probe = DeltaRank()
    with training(small(llama), [probe]) as trainer:
        probe.train_start(trainer)
        finish(trainer)
        evals = [t for t, point in sorted(trainer.curves.items()) if "eval_loss" in point]
        assert sorted(set(trainer.tables["delta_rank"]["step"])) == evals
        ranks = [trainer.curves[t]["effective_rank"] for t in evals]
        for name, adapter in trainer.lm.adapters.items():
            s = torch.linalg.svdvals((adapter.B @ adapter.A).detach().double())
            last = 14 * (len(evals) - 1) + list(trainer.lm.adapters).index(name)
            found = trainer.tables["delta_rank"]["stable_rank"][last]
            assert found == pytest.approx((s.square().sum() / s[0] ** 2).item(), rel=1e-6)
    assert ranks[0] == 0
    assert all(1 < rank <= 4 for rank in ranks[1:])


def test_diverged_weights_have_no_rank(llama):
    with training(small(llama)) as trainer, torch.no_grad():
        trainer.lm.adapters[Q].B[0, 0] = torch.inf
        curves, table, _ = measured(trainer)
    assert row(table, Q) == [None, None, None]
    assert all(math.isnan(value) for value in curves.values())
