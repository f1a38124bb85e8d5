"""The probe kl_to_base against the plain formula."""

import math
from dataclasses import replace

import pytest
import torch
from qlora_cases import finish, small, training

from qlora_probe.probes.kl_to_base import KLToBase


def plain(trainer):
    """sum_v p ln(p / q), target by target, a sequence at a time."""
    found = []
    trainer.model.eval()
    with torch.no_grad():
        for sequence in trainer.held_out:
            q = trainer.model(sequence.ids[None]).logits[0].double().softmax(-1)
            with trainer.model.disable_adapter():
                p = trainer.model(sequence.ids[None]).logits[0].double().softmax(-1)
            found += [
                (p[t - 1] * (p[t - 1] / q[t - 1]).log()).sum().item()
                for t in range(1, len(sequence.ids))
                if sequence.is_target[t]
            ]
    return sum(found) / len(found)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_is_the_plain_formula_over_the_targets(llama, loss_on):
    """Sequences of different lengths."""
    cfg = small(llama)
    cfg = replace(cfg, data=replace(cfg.data, loss_on=loss_on))
    with training(cfg, [KLToBase()]) as trainer:
        trainer.held_out = [trainer.held_out[0], *trainer.train_tokens[:20]]
        trainer.held_out[3] = replace(
            trainer.held_out[3],
            ids=trainer.held_out[3].ids[:13],
            is_target=trainer.held_out[3].is_target[:13],
        )
        finish(trainer)
        kl = [p["kl_to_base"] for p in trainer.curves.values() if "kl_to_base" in p]
        assert len(kl) == 3
        assert kl[0] == 0
        assert 1e-4 < kl[1] < kl[2]
        assert kl[2] == pytest.approx(plain(trainer), rel=1e-4)
        assert trainer.scalars == {"final_kl_to_base": kl[2]}


def test_no_loss_of_digits_where_little_has_changed(llama):
    """It falls with the square of the adapters: by 1e4 for B / 100. In float32 it would be noise,
    of about 1e-7."""
    with training(small(llama)) as trainer:
        finish(trainer)
        found = []
        for _ in range(2):
            with torch.no_grad():
                for adapter in trainer.lm.adapters.values():
                    adapter.B.mul_(0.01)
            KLToBase().eval(trainer)
            found.append(trainer.scalars["final_kl_to_base"])
    assert 0 < found[1] < found[0] < 1e-5
    assert found[0] / found[1] == pytest.approx(1e4, rel=0.1)


def test_adapters_are_on_again(llama):
    with training(small(llama)) as trainer:
        finish(trainer)
        trainer.model.eval()
        ids = trainer.held_out[0].ids[None]
        before = trainer.model(ids).logits
        trainer.model.train()
        KLToBase().eval(trainer)
        assert trainer.model.training
        trainer.model.eval()
        assert torch.equal(trainer.model(ids).logits, before)
        assert all(p.requires_grad for p in trainer.parameters)
        assert math.isfinite(trainer.scalars["final_kl_to_base"])
