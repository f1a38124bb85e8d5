"""The training loop: what decides it, and that nothing else does."""

from dataclasses import replace

import pytest
import torch
from qlora_cases import finish, model, small, training
from torch.testing import assert_close

from plugins.lm.models import load_lm
from qlora_probe.config import DataConfig, LoopConfig, LoraConfig, OptimConfig, lora_shape
from qlora_probe.data import collate
from qlora_probe.model import token_losses

IDS = torch.randint(1, 256, (3, 12), generator=torch.Generator().manual_seed(0))


def losses(trainer):
    return [point["train_loss"] for point in trainer.curves.values() if "train_loss" in point]


def test_adapters_change_nothing_at_first(llama):
    with model(small(llama)) as lm:
        with_adapters = lm.model(IDS).logits
        with lm.model.disable_adapter():
            assert torch.equal(lm.model(IDS).logits, with_adapters)
        assert all(not adapter.B.any() and adapter.A.any() for adapter in lm.adapters.values())


def test_only_adapters_change(llama):
    with training(small(llama)) as trainer:
        lm = trainer.lm
        frozen = [p for p in lm.model.parameters() if not p.requires_grad]
        before = [p.clone() for p in frozen]
        start = [p.detach().clone() for p in lm.parameters]
        with lm.model.disable_adapter():
            logits = lm.model(IDS).logits
        finish(trainer)
        assert all(torch.equal(*pair) for pair in zip(before, frozen, strict=True))
        assert all(p.grad is None for p in frozen)
        assert trainer.curves[6]["eval_loss"] < trainer.curves[0]["eval_loss"]
        assert not any(torch.equal(*pair) for pair in zip(start, lm.parameters, strict=True))
        lm.model.eval()
        assert not torch.equal(lm.model(IDS).logits, logits)
        with lm.model.disable_adapter():
            assert torch.equal(lm.model(IDS).logits, logits)


@pytest.mark.parametrize(
    ("policy", "scales"),
    [
        ("fixed", [4, 2, 1, 0.5]),
        ("rslora", [11.3137, 8, 5.65685, 4]),
        ("proportional", [1.5, 1.5, 1.5, 1.5]),
    ],
)
def test_scales_of_three_policies(llama, policy, scales):
    """alpha 32, or c = 1.5; what the adapters compute with is what the row says."""
    alpha = None if policy == "proportional" else 32
    lora = LoraConfig(alpha=alpha, alpha_policy=policy, c=1.5)
    cfgs = [small(llama, lora=replace(lora, r=r)) for r in (8, 16, 32, 64, 4)]
    assert [lora_shape(cfg)[2] for cfg in cfgs[:4]] == pytest.approx(scales, rel=1e-5)
    for cfg in cfgs[::4]:
        with model(cfg) as lm:
            found = [adapter.scale for adapter in lm.adapters.values()]
        assert found == pytest.approx([lora_shape(cfg)[2]] * 14)


@pytest.mark.parametrize("policy", ["fixed", "rslora"])
def test_merged_weights_give_the_same_logits(llama, policy):
    """W0 + s B A in float32; 1e-5 relative."""
    lora = LoraConfig(r=4, alpha=8, alpha_policy=policy, dropout=0.0)
    with training(small(llama, lora=lora)) as trainer:
        lm = finish(trainer).lm
        lm.model.eval()
        with torch.no_grad():
            tuned = lm.model(IDS).logits
            merged = {n: a.base_weight() + a.scale * a.B @ a.A for n, a in lm.adapters.items()}
            with lm.model.disable_adapter():
                assert (lm.model(IDS).logits - tuned).norm() > 0.01 * tuned.norm()
    plain = load_lm("hf", path=str(llama)).model
    with torch.no_grad():
        for name, weight in merged.items():
            plain.get_parameter(f"{name}.weight").copy_(weight)
        assert (plain(IDS).logits - tuned).norm() < 1e-5 * tuned.norm()


def test_the_same_seed_gives_the_same_losses(llama):
    found = []
    for seed in (0, 0, 1):
        with training(small(llama, seed=seed)) as trainer:
            found.append(losses(finish(trainer)))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("name", ["adamw8bit", "adamw", "sgd"])
def test_goes_on_from_its_state(llama, name, tmp_path):
    cfg = small(llama, optim=OptimConfig(name=name, lr=5e-3, min_8bit_size=1))
    with training(cfg) as trainer:
        saved = []
        trainer.run(
            lambda: saved.append(torch.save(trainer.state(), tmp_path / f"{trainer.step}.pt")),
            lambda fraction: None,
        )
        end, points = [p.detach().clone() for p in trainer.parameters], trainer.curves
    assert len(saved) == 3
    with training(cfg) as trainer:
        trainer.load_state(torch.load(tmp_path / "4.pt", weights_only=True))
        assert trainer.step == 4
        finish(trainer)
        assert trainer.curves == points
        assert all(torch.equal(*pair) for pair in zip(end, trainer.parameters, strict=True))


def test_gradient_is_that_of_the_whole_batch_however_it_is_split(llama):
    """Examples of different lengths; 1e-5 relative."""
    gradients = []
    for batch, accum in ((16, 1), (4, 4), (1, 16)):
        cfg = small(
            llama,
            train=LoopConfig(batch=batch, accum=accum),
            lora=LoraConfig(r=4, alpha=4, dropout=0.0),
        )
        with training(cfg) as trainer:
            with torch.no_grad():
                for p in trainer.parameters:
                    p.add_(0.05 * torch.sin(torch.arange(p.numel())).view_as(p))
            trainer.optimizer.step = lambda: None
            trainer._update(trainer.train_tokens[:16])
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_last_update_of_what_is_left(llama):
    """Nine sequences by fours: the third update has one, and its loss is that one's own."""

    class Last:
        every = 9

        def clipped(self, trainer):
            with torch.no_grad():
                self.loss = trainer.loss_of(trainer.parts).item()
            self.sizes = [len(ids) for ids, _ in trainer.parts]

    last = Last()
    lora = LoraConfig(r=4, alpha=4, dropout=0.0)
    with training(small(llama, data=DataConfig(n_examples=9), lora=lora), [last]) as trainer:
        finish(trainer)
    assert (trainer.n_steps, last.sizes) == (3, [1])
    assert trainer.curves[2]["train_loss"] == pytest.approx(last.loss, rel=1e-6)


def test_gradient_is_clipped(llama):
    cfg = small(llama, optim=OptimConfig(lr=5e-3, clip=0.01, min_8bit_size=1))
    norms = []

    class Norm:
        every = 1

        def clipped(self, trainer):
            norms.append(torch.cat([p.grad.flatten() for p in trainer.parameters]).norm().item())

    with training(cfg, [Norm()]) as trainer:
        finish(trainer)
    assert len(norms) == 6
    assert max(norms) <= 0.01 * (1 + 1e-6)


def test_forgetting_the_optimizer_changes_what_follows(llama):
    cfg = small(llama)
    with training(cfg) as trainer:
        plain = losses(finish(trainer))
    with training(replace(cfg, train=replace(cfg.train, reset_state_at=[3]))) as trainer:
        forgot = losses(finish(trainer))
    assert forgot[:4] == plain[:4]
    assert forgot[4:] != plain[4:]


def test_losses_are_those_of_the_targets(llama):
    with training(small(llama)) as trainer:
        lm = trainer.lm
        ids, labels = collate(trainer.train_tokens[:3])
        lm.model.eval()
        logits = lm.model(ids).logits.log_softmax(-1)
        expected = [
            -logits[row, t - 1, ids[row, t]]
            for row in range(3)
            for t in range(1, ids.shape[1])
            if labels[row, t] != -100
        ]
        assert_close(token_losses(lm.model, ids, labels), torch.stack(expected))
