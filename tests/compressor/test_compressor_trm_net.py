"""The recursion against its equations written out, its gradient, causality, counts."""

import pytest
import torch
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from compressor.trm_net import (
    BLOCKS,
    Net,
    OnePass,
    Recursion,
    flops_of,
    n_heads,
    n_params,
    norm,
    rotation_of,
)

K, L = 16, 7


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def z():
    return torch.randn(3, L, K, generator=torch.Generator().manual_seed(1))


def mixed(module):
    """With weights where it begins at 0, so that blocks are not the identity."""
    generator = torch.Generator().manual_seed(2)
    for weight in module.parameters():
        if not weight.any():
            weight.data = torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5
    return module


def recursion(k=K, n=2, rounds=3):
    return mixed(Recursion(k, n, rounds, torch.Generator().manual_seed(0)))


def unrolled(net, head, z, y, u, n, rounds):
    """The equations, with a gradient through all rounds."""
    for _ in range(rounds):
        for _ in range(n):
            u = norm(net(z + y + u))
        raw = net(y + u)
        y = norm(raw)
    return raw @ head.T, y, u


def test_a_supervised_step_is_the_equations(z):
    trm = recursion()
    zero = torch.zeros_like(z)
    predicted, (y, u) = trm(z)
    expected = unrolled(trm.net, trm.head, z, zero, zero, n=2, rounds=3)
    for found, value in zip((predicted, y, u), expected, strict=True):
        torch.testing.assert_close(found, value)
    again, _ = trm(z, (y, u))
    torch.testing.assert_close(again, unrolled(trm.net, trm.head, z, y, u, n=2, rounds=3)[0])
    assert not torch.allclose(again, predicted)


def test_the_gradient_is_that_of_the_last_round_alone(z):
    trm = recursion()
    trm(z)[0].square().sum().backward()
    found = trm.net.blocks[0].qkv.grad.clone()
    with torch.no_grad():
        zero = torch.zeros_like(z)
        _, y, u = unrolled(trm.net, trm.head, z, zero, zero, n=2, rounds=2)
    gradients = []
    for start, rounds in (((y, u), 1), ((zero, zero), 3)):
        trm.zero_grad()
        unrolled(trm.net, trm.head, z, *start, n=2, rounds=rounds)[0].square().sum().backward()
        gradients.append(trm.net.blocks[0].qkv.grad.clone())
    last, all_rounds = gradients
    torch.testing.assert_close(found, last)
    assert not torch.allclose(found, all_rounds, rtol=1e-2)


def test_the_carry_has_no_gradient_and_a_length_of_sqrt_k(z):
    _, carry = recursion()(z)
    for part in carry:
        assert not part.requires_grad
        torch.testing.assert_close(part.square().mean(-1), torch.ones(3, L), rtol=1e-4, atol=0)


@pytest.mark.parametrize("k", [16, 48, 5, 1])  # one head, three, of an odd dimension
def test_later_positions_change_nothing(generator, k):
    trm = recursion(k)
    z = torch.randn(2, L, k, generator=generator)
    changed = z.clone()
    changed[:, 4:] += 1
    before, after = (trm(x)[0] for x in (z, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any()


def test_earlier_positions_and_their_order_count(generator):
    net = mixed(Net(K, K, BLOCKS, generator))
    z = torch.randn(1, L, K, generator=generator)
    swapped = z[:, [1, 0, *range(2, L)]]
    assert (net(z)[:, -1] - net(swapped)[:, -1]).abs().max() > 1e-3


def test_padding_at_the_end_changes_nothing(z):
    trm = recursion()
    padded = torch.cat([z, torch.full((3, 4, K), 100.0)], 1)
    torch.testing.assert_close(trm(padded)[0][:, :L], trm(z)[0])


def test_attention_is_softmax_of_rotated_products(generator):
    """One head, written out; a rotation by position makes products depend on distances alone."""
    block = mixed(Net(K, K, 1, generator)).blocks[0]
    x = torch.randn(1, L, K, generator=generator)
    q, k, v = (norm(x) @ block.qkv.T).split(K, -1)
    half = K // 2
    angles = torch.arange(L)[:, None] * 10000 ** (-torch.arange(half) / half)
    turn = torch.polar(torch.ones(L, half), angles)
    q, k = (torch.complex(a[..., :half], a[..., half:]) * turn for a in (q, k))
    scores = (q @ k.mH).real / K**0.5
    scores = scores.masked_fill(torch.ones(L, L).triu(1).bool(), float("-inf"))
    after = x + scores.softmax(-1) @ v @ block.out.T
    expected = after + gelu(norm(after) @ block.up.T) @ block.down.T
    torch.testing.assert_close(block(x, rotation_of(L, K, x.device)), expected)


@pytest.mark.parametrize(("width", "heads"), [(16, 1), (48, 3), (64, 4), (40, 2), (17, 1), (1, 1)])
def test_heads_have_sixteen_dimensions_or_more(width, heads):
    assert n_heads(width) == heads


def test_blocks_begin_as_the_identity(generator, z):
    assert torch.equal(Net(K, K, BLOCKS, generator)(z), z)


def test_one_pass_has_the_recursions_weights():
    one, trm = (
        make(torch.Generator().manual_seed(3))
        for make in (lambda g: OnePass(K, K, BLOCKS, g), lambda g: Recursion(K, 6, 3, g))
    )
    assert n_params(one) == n_params(trm) == BLOCKS * 12 * K**2 + K**2
    for a, b in zip(one.parameters(), trm.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("width", [K, 48])
def test_operations_are_those_that_torch_counts(generator, width):
    """Of the attention too; its mask spares none in either count."""
    net = Net(K, width, 3, generator)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(2, L, K))
    attention = 3 * 4 * width * L if not _counts_attention() else 0
    assert counter.get_total_flops() / (2 * L) + attention == flops_of(K, width, 3, L)


def _counts_attention() -> bool:
    """Not all versions of torch count the kernel of the CPU."""
    q = torch.randn(1, 1, L, 16)
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(q, q, q, is_causal=True)
    return counter.get_total_flops() > 0
