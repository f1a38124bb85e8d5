"""The decoder against a slow one, its weights from a seed."""

import math

import pytest
import torch

from sublora.gpt import GPT, draw_weights

SIZES = {"outputs": 20, "n_layer": 2, "n_head": 2, "n_embd": 8, "block": 6, "dropout": 0.0}


def make(seed=0, std=0.3, **changes):
    net = GPT(**SIZES | changes)
    draw_weights(net, seed, std)
    return net.eval()


def ids(n, length, outputs=20):
    return torch.randint(outputs, (n, length), generator=torch.Generator().manual_seed(0))


def norm(x, weight):
    """Of one vector."""
    x = x - x.mean()
    return x / (x.square().mean() + 1e-5).sqrt() * weight


def slow_logits(weights, sequence, n_layer, n_head):
    """Token by token, head by head, in float64; [length, outputs]."""

    def get(name):
        return weights[name].double()

    x = [get("wte.weight")[i] + get("wpe.weight")[t] for t, i in enumerate(sequence)]
    for layer in range(n_layer):

        def of(name, layer=layer):
            return get(f"h.{layer}.{name}.weight")

        read = [norm(v, of("ln_1")) for v in x]
        q, k, v = ([of(f"attn.{p}_proj") @ y for y in read] for p in "qkv")
        width = len(q[0]) // n_head
        for t in range(len(x)):
            heads = []
            for h in range(n_head):
                part = slice(h * width, (h + 1) * width)
                scores = [(q[t][part] @ k[s][part]) / math.sqrt(width) for s in range(t + 1)]
                shares = torch.softmax(torch.stack(scores), 0)
                heads.append(sum(shares[s] * v[s][part] for s in range(t + 1)))
            x[t] = x[t] + of("attn.c_proj") @ torch.cat(heads)
        for t in range(len(x)):
            a = of("mlp.c_fc") @ norm(x[t], of("ln_2"))
            x[t] = x[t] + of("mlp.c_proj") @ (a * (1 + torch.erf(a / math.sqrt(2))) / 2)
    return torch.stack([get("wte.weight") @ norm(y, get("ln_f.weight")) for y in x])


def test_logits_are_those_of_a_slow_network():
    """float32 sums of some dozens of terms: 1e-5."""
    net = make()
    with torch.no_grad():
        for name, weight in net.named_parameters():  # a norm that does something
            if "ln_" in name:
                weight.copy_(torch.linspace(0.5, 1.5, len(weight)))
        found = net(ids(3, 6))
    for row, sequence in zip(found, ids(3, 6), strict=True):
        expected = slow_logits(net.state_dict(), sequence, 2, 2)
        torch.testing.assert_close(row.double(), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_token_changes_nothing_before_it():
    net, sequence = make(), ids(1, 6)
    before = net(sequence)
    for t in range(6):
        other = sequence.clone()
        other[0, t] = (other[0, t] + 1) % 20
        after = net(other)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-6)
        assert (after[:, t:] - before[:, t:]).abs().amax(-1).min() > 1e-4


def test_shorter_sequences_are_read_as_beginnings_of_longer_ones():
    net = make()
    torch.testing.assert_close(net(ids(2, 6)[:, :4]), net(ids(2, 6))[:, :4], rtol=0, atol=1e-6)


def test_weights_follow_from_the_seed_alone():
    first = make(seed=3).state_dict()
    torch.manual_seed(99)  # of no importance
    second, other = make(seed=3).state_dict(), make(seed=4).state_dict()
    for name, weight in first.items():
        assert torch.equal(second[name], weight)
        assert torch.equal(other[name], weight) == ("ln_" in name)


def test_matrices_have_streams_of_their_own():
    """A deeper network begins with the matrices of a shallow one; no two are equal."""
    shallow, deep = make().state_dict(), make(n_layer=3).state_dict()
    for name, weight in shallow.items():
        if not name.endswith("c_proj.weight"):
            assert torch.equal(deep[name], weight)
    q = [deep[f"h.{i}.attn.{p}_proj.weight"].flatten() for i in range(3) for p in "qkv"]
    correlations = torch.corrcoef(torch.stack(q)) - torch.eye(9)
    assert correlations.abs().max() < 5 / 8  # 64 entries each


def test_scale_of_the_weights():
    """32,768 entries a matrix: their standard deviation is right to 2 %."""
    net = make(std=0.02, n_embd=128, n_layer=4, outputs=256)
    for name, weight in net.named_parameters():
        if weight.ndim == 1:
            assert (weight == 1).all()
        elif weight.numel() >= 16384:
            expected = 0.02 / math.sqrt(8) if name.endswith("c_proj.weight") else 0.02
            assert weight.std().item() == pytest.approx(expected, rel=0.02), name


def test_no_biases_and_a_head_that_is_the_embedding():
    net = make()
    assert not any("bias" in name for name, _ in net.named_parameters())
    assert net.lm_head.weight is net.wte.weight


def test_dropout_acts_in_training_only():
    net = make(dropout=0.5)
    assert torch.equal(net(ids(2, 6)), net(ids(2, 6)))
    net.train()
    assert not torch.equal(net(ids(2, 6)), net(ids(2, 6)))
