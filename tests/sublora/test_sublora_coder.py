"""The arithmetic coder: what goes in comes out, in as many bits as theory says."""

import itertools
import math

import numpy as np
import pytest

from sublora.coder import decode, encode, header_bits, ideal_bits
from sublora.config import CODERS

SYMBOLS = np.array([1, 2, 0, 0, 3, 3, 3, 2, 2, 0, 2, 0, 2, 0, 2])


def drawn(d, K, seed=0):
    """Levels of unequal frequency, as quantised coordinates have."""
    generator = np.random.default_rng([seed, d, K])
    return generator.choice(K, d, p=generator.dirichlet(np.ones(K)))


def check(symbols, K, kind):
    """Comes back, in the ideal number of bits rounded up; 1e-4: gammaln of 10^5, integer ranges."""
    data, n_bits = encode(symbols, K, kind)
    assert decode(data, len(symbols), K, kind).tolist() == symbols.tolist()
    assert len(data) == math.ceil(n_bits / 8)
    ideal = header_bits(len(symbols), K, kind) + ideal_bits(symbols, K, kind)
    assert -1e-4 < n_bits - ideal < 1 + 1e-4


def test_known_ideal_lengths():
    assert ideal_bits(SYMBOLS, 4, "static") == pytest.approx(26.729056, abs=5e-7)
    assert ideal_bits(SYMBOLS, 4, "adaptive") == pytest.approx(30.938860, abs=5e-7)
    assert header_bits(15, 4, "static") == 12
    counted = np.repeat(np.arange(6), [10, 90, 400, 400, 90, 10])
    assert ideal_bits(counted, 6, "static") == pytest.approx(1815.727214, abs=5e-7)
    assert ideal_bits(counted, 6, "adaptive") == pytest.approx(1838.540170, abs=5e-7)
    assert header_bits(1000, 6, "static") == 50
    assert header_bits(1000, 6, "adaptive") == 0
    equal = np.zeros(1000, dtype=int)
    assert ideal_bits(equal, 11, "adaptive") == pytest.approx(77.945854, abs=5e-7)
    assert ideal_bits(equal, 11, "static") == 0


def test_known_code():
    """31 and 12 + 27 bits of the fifteen symbols: any change of the format breaks stored files."""
    assert encode(SYMBOLS, 4, "adaptive") == (bytes.fromhex("6701d56e"), 31)
    assert encode(SYMBOLS, 4, "static") == (bytes.fromhex("5165cea7ee"), 39)


@pytest.mark.parametrize("kind", CODERS)
@pytest.mark.parametrize("K", range(2, 33))
def test_every_alphabet_comes_back(K, kind):
    for d in (1, 2, 17, 600):
        check(drawn(d, K), K, kind)


@pytest.mark.parametrize("kind", CODERS)
def test_one_symbol_and_equal_symbols_come_back(kind):
    for symbol in range(11):
        for d in (1, 2, 1000):
            check(np.full(d, symbol), 11, kind)


@pytest.mark.parametrize("kind", CODERS)
@pytest.mark.parametrize(("d", "K"), [(10**5, 11), (10**5, 2), (2**16 - 1, 3), (2**16, 3)])
def test_long_messages_come_back(d, K, kind):
    check(drawn(d, K), K, kind)


@pytest.mark.parametrize("kind", CODERS)
def test_rare_symbols_come_back(kind):
    """One among 20,000 others, first, amid and last: parts of 2^-15 of the range."""
    for place in (0, 10_000, 19_999):
        for common, rare in ((0, 10), (10, 0)):
            symbols = np.full(20_000, common)
            symbols[place] = rare
            check(symbols, 11, kind)


@pytest.mark.parametrize("kind", CODERS)
def test_codes_of_all_sequences_differ(kind):
    """As strings of bits followed by zeros, which is how they are read; and L bits hold 2^L."""
    sequences = [np.array(s) for s in itertools.product(range(3), repeat=7)]
    codes = [encode(s, 3, kind) for s in sequences]
    assert len({data.rstrip(b"\0") for data, _ in codes}) == 3**7
    assert sum(2.0**-n_bits for _, n_bits in codes) <= 1
    for s, (data, _) in zip(sequences, codes, strict=True):
        assert decode(data + b"\0\0\0", 7, 3, kind).tolist() == s.tolist()


def test_a_carry_runs_through_bytes_already_put_out():
    """Thirty times the middle third: the interval holds a number of few bits in its middle.

    Its lower end is ..ff ff ff, until an upper third makes it ..00 00 00 and carries.
    """
    below, above = np.repeat([1, 0, 2], 30), np.repeat([1, 2, 0], 30)
    assert b"\xff\xff\xff\xff" in encode(below, 3, "static")[0]
    assert b"\0\0\0\0" in encode(above, 3, "static")[0]
    check(below, 3, "static")
    check(above, 3, "static")


@pytest.mark.parametrize("kind", CODERS)
def test_the_length_depends_on_counts_only(kind):
    """Neither on the order nor on which level is which: the code is as long as its probability."""
    symbols = drawn(1000, 6)
    n_bits = encode(symbols, 6, kind)[1]
    assert encode(symbols[::-1].copy(), 6, kind)[1] == n_bits
    assert encode(5 - symbols, 6, kind)[1] == n_bits


@pytest.mark.parametrize("kind", CODERS)
def test_other_bytes_are_symbols_or_an_error(kind):
    generator = np.random.default_rng(0)
    for _ in range(300):
        data = generator.bytes(generator.integers(0, 12))
        try:
            symbols = decode(data, 20, 5, kind)
        except ValueError:
            continue
        assert set(symbols.tolist()) <= set(range(5))


def test_a_header_of_too_many_symbols_is_an_error():
    with pytest.raises(ValueError, match=r"the header counts 30 symbols, at most 15 fit"):
        decode(b"\xff\x80\0\0", 15, 3, "static")


@pytest.mark.parametrize("kind", CODERS)
def test_bytes_between_the_symbols_are_an_error(kind):
    """The highest code is left to no symbol when the range is no multiple of the weights."""
    header = {"adaptive": b"", "static": b"\x55"}[kind]
    with pytest.raises(ValueError, match="no code"):
        decode(header + b"\xff" * 40, 15, 3, kind)


@pytest.mark.parametrize("kind", CODERS)
def test_symbols_outside_the_alphabet_are_an_error(kind):
    for symbols in ([0, 1, 4], [0, -1, 2]):
        with pytest.raises(ValueError, match=r"are not in 0\.\.3"):
            encode(np.array(symbols), 4, kind)
