"""Adapters: their sizes, their order, their weights, what they add."""

import pytest
import torch

from sublora.adapters import HEAD, flat_order, make_network, slots_of, split
from sublora.config import ModelConfig

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block": 6, "init_std": 0.3}
GPT2 = ModelConfig(n_layer=12, n_head=12, n_embd=768, block=1024)


def size_of(slots, factor="AB"):
    return sum(slot.size for slot in slots if slot.factor in factor)


def test_sizes_of_gpt2():
    """Rank 4 on q_proj, v_proj and the head of GPT-2 small, its outputs padded to 50,304."""
    slots = slots_of(GPT2, 50257)
    assert (size_of(slots), size_of(slots, "A"), size_of(slots, "B")) == (351_744, 76_800, 274_944)
    for layer in range(12):
        own = [slot for slot in slots if slot.layer == layer]
        assert (size_of(own, "A"), size_of(own, "B")) == (6144, 6144)
    head = [slot for slot in slots if slot.layer == HEAD]
    assert (size_of(head, "A"), size_of(head, "B")) == (3072, 201_216)


def test_sizes_of_the_quick_network():
    slots = slots_of(ModelConfig(), 64)
    assert (size_of(slots), size_of(slots, "A"), size_of(slots, "B")) == (4608, 2304, 2304)


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("vocab", [60, 64, 65])
def test_planning_knows_what_is_made(rank, vocab):
    cfg = ModelConfig(**SMALL, lora_r=rank)
    network = make_network(cfg, vocab, 0)
    assert slots_of(cfg, vocab) == network.slots
    assert network.size == sum(weight.numel() for weight in network.initial().values())
    logits = network.net(torch.zeros(1, 3, dtype=torch.int64))
    assert logits.shape == (1, 3, 64 if vocab <= 64 else 128)


def test_without_adapters_all_parameters_are_trained():
    """The head is the embedding: once."""
    network = make_network(ModelConfig(**SMALL, lora_r=0), 64, 0)
    assert {slot.name for slot in network.slots} == dict(network.net.named_parameters()).keys()
    assert network.size == 64 * 8 + 6 * 8 + 2 * (12 * 8 * 8 + 2 * 8) + 8
    assert {slot.factor for slot in network.slots} == {""}


def test_flat_order_is_by_layer_then_module_then_factor_and_the_head_last():
    slots = make_network(ModelConfig(**SMALL | {"n_layer": 12}), 64, 0).slots
    expected = [
        (layer, module, factor)
        for layer, modules in [*((i, ("q_proj", "v_proj")) for i in range(12)), (-1, ("lm_head",))]
        for module in modules
        for factor in "AB"
    ]
    assert [(s.layer, s.name.split(".lora")[0].split(".")[-1], s.factor) for s in slots] == expected


def test_flat_order_does_not_depend_on_the_order_of_the_modules():
    shapes = {slot.name: slot.shape for slot in slots_of(ModelConfig(**SMALL), 64)}
    backwards = dict(reversed(shapes.items()))
    assert flat_order(backwards, True) == flat_order(shapes, True)


def test_split_is_the_inverse_of_laying_flat():
    slots = slots_of(ModelConfig(**SMALL), 64)
    vector = torch.arange(size_of(slots))
    parts = split(vector, slots)
    assert [tuple(parts[slot.name].shape) for slot in slots] == [slot.shape for slot in slots]
    assert torch.equal(torch.cat([parts[slot.name].flatten() for slot in slots]), vector)


def test_weights_follow_from_the_seed_alone():
    cfg = ModelConfig(**SMALL)
    first = make_network(cfg, 64, 3).net.state_dict()
    torch.manual_seed(99)  # peft draws weights of its own
    second, other = make_network(cfg, 64, 3).net.state_dict(), make_network(cfg, 64, 4).net
    for name, weight in first.items():
        assert torch.equal(second[name], weight)
    others = other.state_dict()
    differ = [name for name in first if not torch.equal(others[name], first[name])]
    assert all("ln_" in name or "lora_B" in name for name in first.keys() - set(differ))
    assert sum("lora_A" in name for name in differ) == 5


def test_a_is_uniform_and_b_is_zero():
    """kaiming_uniform(a=sqrt 5): within 1/sqrt(fan-in), of standard deviation 1/sqrt(3 fan-in)."""
    initial = make_network(ModelConfig(n_embd=256, lora_r=8), 64, 0).initial()
    for name, weight in initial.items():
        if "lora_B" in name:
            assert (weight == 0).all()
        else:
            assert weight.abs().max() <= 1 / 16
            assert weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.05)
    factors = torch.stack([w.flatten() for name, w in initial.items() if "lora_A" in name])
    assert (torch.corrcoef(factors) - torch.eye(len(factors))).abs().max() < 5 / 2048**0.5


@torch.no_grad()
@pytest.mark.parametrize(("rank", "alpha"), [(4, 32.0), (2, 3.0)])
def test_adapters_add_alpha_over_r_times_b_a(rank, alpha):
    """The network without adapters whose matrices are W0 + (alpha / r) B A; its head is no longer
    its embedding."""
    cfg = ModelConfig(**SMALL, lora_r=rank, lora_alpha=alpha)
    network, plain = make_network(cfg, 64, 0), make_network(ModelConfig(**SMALL, lora_r=0), 64, 0)
    ids = torch.randint(64, (3, 6), generator=torch.Generator().manual_seed(0))
    network.net.eval(), plain.net.eval()
    assert torch.equal(network.net(ids), plain.net(ids))  # B is zero: nothing is added
    weights = dict(network.net.named_parameters())
    plain.net.lm_head.weight = torch.nn.Parameter(plain.net.wte.weight.clone())
    for slot in network.slots:
        if slot.factor == "B":
            torch.nn.init.normal_(weights[slot.name], generator=torch.Generator().manual_seed(1))
            A = weights[slot.name.replace("lora_B", "lora_A")]
            module = slot.name.removeprefix("base_model.model.").split(".lora_B")[0]
            plain.net.get_submodule(module).weight += alpha / rank * weights[slot.name] @ A
    torch.testing.assert_close(network.net(ids), plain.net(ids), rtol=1e-5, atol=1e-5)


def test_nothing_of_the_network_is_trained_itself():
    network = make_network(ModelConfig(**SMALL), 64, 0)
    assert not any(weight.requires_grad for weight in network.net.parameters())
