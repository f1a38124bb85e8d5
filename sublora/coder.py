"""Arithmetic coder of symbols 0..K-1: integers only, so the same bits on every machine.

Witten, Neal & Cleary 1987 as the bytewise range coder of Martin 1979. The number of bits is the
ideal one rounded up; rounding inside adds less than 1e-4 bits in 10^6 symbols.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, repeat

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

_TOP = 1 << 64
_REFILL = 1 << 56  # a range below is widened by a byte, so every division has 56 bits or more


def encode(symbols: NDArray, n_levels: int, kind: str) -> tuple[bytes, int]:
    """Code of symbols [d] and its number of bits; the last byte is filled up with zero bits.

    adaptive: the weight of a level is 1 + how often it came before. static: a header of
    `header_bits` with the counts of all levels but the last, then the weights are the counts.
    Raises ValueError for symbols outside 0..n_levels-1.
    """
    if symbols.min() < 0 or symbols.max() >= n_levels:
        raise ValueError(f"symbols {symbols.min()}..{symbols.max()} are not in 0..{n_levels - 1}")
    encoder = _Encoder()
    weights, step = [1] * n_levels, 1
    if kind == "static":
        weights, step = np.bincount(symbols, minlength=n_levels).tolist(), 0
        for count in weights[:-1]:
            encoder.put(_header_starts(len(symbols)), count)
    for symbol in symbols.tolist():
        encoder.put(_starts(weights), symbol)
        weights[symbol] += step
    return encoder.end()


def decode(data: bytes, n_symbols: int, n_levels: int, kind: str) -> NDArray:
    """Symbols int64 [n_symbols] of a code; what follows the code must be zero bits.

    Raises ValueError for some of the bytes that are no code of so many symbols.
    """
    decoder = _Decoder(data)
    weights, step = [1] * n_levels, 1
    if kind == "static":
        counts = [decoder.get(_header_starts(n_symbols)) for _ in range(n_levels - 1)]
        if sum(counts) > n_symbols:
            raise ValueError(f"the header counts {sum(counts)} symbols, at most {n_symbols} fit")
        weights, step = [*counts, n_symbols - sum(counts)], 0
    symbols = np.empty(n_symbols, dtype=np.int64)
    for i in range(n_symbols):
        symbol = symbols[i] = decoder.get(_starts(weights))
        weights[symbol] += step
    return symbols


def ideal_bits(symbols: NDArray, n_levels: int, kind: str) -> float:
    """-log2 of the probability of symbols [d], without the header.

    adaptive: log2 C(d + K - 1, K - 1) + log2(d! / prod c_k!), which does not depend on the order;
    static: sum c_k log2(d / c_k).
    """
    counts, d = np.bincount(symbols, minlength=n_levels), len(symbols)
    if kind == "static":
        nats = xlogy(counts, d / np.maximum(counts, 1)).sum()
    else:
        nats = gammaln(d + n_levels) - gammaln(n_levels) - gammaln(counts + 1).sum()
    return float(nats / np.log(2))


def header_bits(n_symbols: int, n_levels: int, kind: str) -> int:
    """(K - 1) ceil(log2(d + 1)) bits of counts before a static code; none before an adaptive."""
    return (n_levels - 1) * n_symbols.bit_length() if kind == "static" else 0


def _starts(weights: list[int]) -> list[int]:
    return list(accumulate(weights, initial=0))


def _header_starts(n_symbols: int) -> range:
    """Equal weights of all numbers with as many bits as n_symbols has."""
    return range((1 << n_symbols.bit_length()) + 1)


class _Encoder:
    """The interval [low, low + range) behind the bytes put out, both in 64 bits."""

    def __init__(self):
        self.out, self.low, self.range = bytearray(), 0, _TOP

    def put(self, starts: Sequence[int], i: int):
        """Narrow the interval to the i-th of len(starts) - 1 parts, from starts[i] of the last."""
        unit = self.range // starts[-1]
        self._raise_low(unit * starts[i])
        self.range = unit * (starts[i + 1] - starts[i])
        while self.range < _REFILL:
            self.out.append(self.low >> 56)
            self.low = self.low << 8 & _TOP - 1
            self.range <<= 8

    def end(self) -> tuple[bytes, int]:
        """The first number of the interval with as few bits as fit any interval so wide."""
        zeros = self.range.bit_length() - 1
        self._raise_low(-self.low % (1 << zeros))
        n_bits = 8 * len(self.out) + 64 - zeros
        self.out.append(self.low >> 56)
        return bytes(self.out[: -(-n_bits // 8)]), n_bits

    def _raise_low(self, by: int):
        self.low += by
        if self.low >= _TOP:
            self.low -= _TOP
            i = len(self.out) - 1
            while self.out[i] == 255:
                self.out[i] = 0
                i -= 1
            self.out[i] += 1


class _Decoder:
    """The code's distance from the encoder's `low`, and the encoder's `range`."""

    def __init__(self, data: bytes):
        self.data = chain(data, repeat(0))
        self.above, self.range = 0, _TOP
        for _ in range(8):
            self.above = self.above << 8 | next(self.data)

    def get(self, starts: Sequence[int]) -> int:
        """The part that `put` was given; ValueError for a code in none of the parts."""
        unit = self.range // starts[-1]
        value = self.above // unit
        if value >= starts[-1]:
            raise ValueError("these bytes are no code: they lie between the symbols")
        i = bisect_right(starts, value) - 1
        self.above -= unit * starts[i]
        self.range = unit * (starts[i + 1] - starts[i])
        while self.range < _REFILL:
            self.above = self.above << 8 | next(self.data)
            self.range <<= 8
        return i
