"""Streams: known answers of Philox, uniformity, independence of seeds and of draw lengths."""

import numpy as np
import pytest
import torch
from scipy import stats

from dln import streams
from dln.config import ModelConfig
from dln.streams import Stream, philox4x32, stream_key, torch_generator

NAMES = ["dln/init", "dln/rotation", "dln/test_x", "dln/train_x", "dln/train_noise",
         "dln/batch_order", "dln/online_x", "dln/online_noise"]  # fmt: skip


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, tests/kat_vectors, philox4x32 10
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_gives_the_known_answers(counter, key, expected):
    def words(text):
        return tuple(torch.tensor([int(word, 16)]) for word in text.split())

    assert philox4x32(words(counter), words(key)) == words(expected)


def test_words_are_those_of_a_scalar_reference():
    def reference(key, i, page):
        c, k = [i // 4, 0, page, 0], [int(word) for word in key]
        for _ in range(10):
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [p1 >> 32 ^ c[1] ^ k[0], p1 % 2**32, p0 >> 32 ^ c[3] ^ k[1], p0 % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        return c[i % 4]

    words = Stream("dln/init", [0, 7]).words(5, 9, range(2, 4))
    for r, seed in enumerate([0, 7]):
        key = stream_key("dln/init", seed)
        expected = [[reference(key, i, page) for i in range(5, 14)] for page in (2, 3)]
        assert words[r].tolist() == expected


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_a_draw_does_not_depend_on_where_it_begins(first, count):
    stream = Stream("dln/online_x", [1, 2, 3])
    assert stream.normals(first, count).equal(stream.normals(0, 40)[:, first : first + count])
    assert stream.words(first, count).equal(stream.words(0, 40)[..., first : first + count])


def test_replicas_draw_what_each_seed_draws_alone():
    seeds = [5, 0, 5, 2**40]
    together = Stream("dln/init", seeds).normals(3, 50)
    for r, seed in enumerate(seeds):
        assert together[r].equal(Stream("dln/init", [seed]).normals(3, 50)[0])


@pytest.mark.parametrize("name", NAMES)
def test_no_draw_of_a_seed_is_one_of_the_next(name):
    draws = Stream(name, [0, 1, 2**32, 2**32 + 1]).normals(0, 5000)
    assert draws.flatten().unique().numel() == draws.numel()


def test_streams_of_different_names_share_no_draw():
    draws = torch.cat([Stream(name, [0]).normals(0, 5000) for name in NAMES])
    assert draws.flatten().unique().numel() == draws.numel()


def test_normals_are_normal_and_uncorrelated():
    """Kolmogorov-Smirnov on 400,000 draws; correlations of lags and seeds within 5/sqrt(n)."""
    z = Stream("dln/train_x", [0, 1]).normals(0, 200_000)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    for lag in (1, 2, 3, 4):
        assert abs((z[:, lag:] * z[:, :-lag]).mean(1)).max() < 5 / 200_000**0.5
    assert abs((z[0] * z[1]).mean()) < 5 / 200_000**0.5


def test_permutations_are_permutations_and_uniform():
    """3! orders of 3 elements in 30,000 epochs: chi-square with 5 degrees of freedom."""
    orders = Stream("dln/batch_order", [4]).permutations(3, range(30_000))[0]
    assert orders.sort(-1).values.eq(torch.arange(3)).all()
    counts = (orders.long() @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1].numpy()
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_permutation_of_an_epoch_is_fixed_by_its_number():
    stream = Stream("dln/batch_order", [0, 1])
    every = stream.permutations(10, range(7))
    assert stream.permutations(10, range(3, 6)).equal(every[:, 3:6])
    assert len({tuple(order) for order in every.flatten(0, 1).tolist()}) == 14


@pytest.mark.parametrize("n", [1, 2, 3, 500, 1500, 3000])
def test_a_permutation_is_the_argsort_of_its_words(monkeypatch, n):
    """Also where 32 bits with an index in them are not enough, and however many are drawn."""
    stream = Stream("dln/batch_order", range(60))
    expected = stream.words(0, n, range(2, 5)).argsort(dim=-1, stable=True).int()
    assert stream.permutations(n, range(2, 5)).equal(expected)
    monkeypatch.setattr(streams, "_WORDS_AT_ONCE", 1)
    assert stream.permutations(n, range(2, 5)).equal(expected)


def test_equal_words_keep_their_order():
    words = torch.tensor([[7, 3, 3 + 2**31, 3, 0, 7]])
    words = torch.cat([words, words + 1, torch.arange(6)[None]])  # 4 and 3 differ in the low bits
    expected = words.argsort(dim=-1, stable=True).int()
    assert streams._stable_argsort(words).equal(expected)


@pytest.mark.parametrize("shape", [0.5, 1.0, 1.5, 25.0])
def test_gammas_have_their_distribution(shape):
    """Kolmogorov-Smirnov on 100,000 draws; uncorrelated with the neighbour."""
    shapes = torch.full((1000,), shape, dtype=torch.float64)
    draws = Stream("dln/online_x", range(100)).gammas(0, shapes, page=2)
    assert stats.kstest(draws.flatten().numpy(), stats.gamma(shape).cdf).pvalue > 1e-3
    centred = (draws - shape) / shape**0.5
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 5 / 100_000**0.5


def test_a_gamma_is_fixed_by_its_number_and_seed():
    shapes = torch.tensor([0.5, 1.0, 3.0, 0.7] * 50, dtype=torch.float64)
    together = Stream("dln/online_x", [0, 1, 2]).gammas(10, shapes, page=2)
    alone = Stream("dln/online_x", [1]).gammas(110, shapes[100:], page=2)
    assert alone[0].equal(together[1, 100:])
    assert together.flatten().unique().numel() == together.numel()


def test_a_torch_generator_keeps_every_bit_of_the_seed():
    def first(seed):
        return torch.rand(4, generator=torch_generator("dln/matrix", seed), dtype=torch.float64)

    draws = [first(seed) for seed in (0, 1, 2**32, 2**64)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert first(1).equal(draws[1])
    uniform = torch.rand(100_000, generator=torch_generator("dln/matrix", 3))
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3


def test_seeds_may_be_numpy_integers():
    seeds = np.arange(3)
    assert Stream("dln/init", seeds).key.equal(Stream("dln/init", [0, 1, 2]).key)
    assert ModelConfig(model_seed=np.int64(3)).model_seed == 3
