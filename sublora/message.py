"""The message: codebooks, gates and symbols as one string of bits, and the file that holds it.

Its L bits and the layout, which the configuration tells, are all that the decoder needs. The file
frames them (what it is, L, a checksum): the frame guards a store and adds nothing to L.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from sublora import coder
from sublora.allocation import gate_bits

MAGIC = b"sublora1"


@dataclass(frozen=True)
class Layout:
    """What the decoder knows beforehand.

    n_codebooks 1, or 2: codebook 0 is of the coordinates of A, 1 of those of B. These are the
    first n_first and the rest; with gates (budgets: coordinates per layer, sum d), in every layer
    the first k_l belong to B and the rest to A.
    """

    d: int
    levels: int
    n_codebooks: int
    coder: str
    budgets: tuple[int, ...] | None = None
    n_first: int | None = None


@dataclass(frozen=True)
class Message:
    """codebooks float16 [n_codebooks, K]; gates k_l in 0..d_l or None; symbols int [d]."""

    codebooks: NDArray
    gates: Sequence[int] | None
    symbols: NDArray

    def values(self, layout: Layout) -> NDArray:
        """The decoded coordinates w, float32 [d]."""
        codebooks = self.codebooks.astype(np.float32)
        return codebooks[codebook_of(layout, self.gates), self.symbols]


@dataclass(frozen=True)
class Packed:
    """A message's file and the lengths of its parts; n_bits is L, the sum of the other three."""

    data: bytes
    n_bits: int
    codebook_bits: int
    gate_bits: int
    payload_bits: int  # symbols, with the header of a static code


def codebook_of(layout: Layout, gates: Sequence[int] | None) -> NDArray:
    """Which codebook each coordinate uses, int64 [d]."""
    if layout.n_codebooks == 1:
        return np.zeros(layout.d, dtype=np.int64)
    if gates is None:
        return np.repeat([0, 1], [layout.n_first, layout.d - layout.n_first])
    runs = [(k, budget - k) for k, budget in zip(gates, layout.budgets, strict=True)]
    return np.repeat([1, 0] * len(runs), np.ravel(runs))


def pack(message: Message, layout: Layout) -> Packed:
    """Codebooks (16 bits a level), gates in mixed radix, symbols as coded, in this order."""
    codebooks = np.asarray(message.codebooks, ">f2").tobytes()
    gates = _join(() if message.gates is None else message.gates, layout.budgets or ())
    code, n_payload = coder.encode(message.symbols, layout.levels, layout.coder)
    n_codebooks, n_gates = 8 * len(codebooks), gate_bits(layout.budgets or ())
    bits = int.from_bytes(codebooks) << n_gates | gates
    bits = bits << n_payload | int.from_bytes(code) >> -n_payload % 8
    n_bits = n_codebooks + n_gates + n_payload
    framed = MAGIC + n_bits.to_bytes(8) + _to_bytes(bits, n_bits)
    return Packed(framed + _checksum(framed, layout), n_bits, n_codebooks, n_gates, n_payload)


def unpack(data: bytes, layout: Layout) -> Message:
    """The message in the bytes of a file.

    Raises ValueError when it is no such file, damaged or cut, or was packed by another layout.
    """
    if not data.startswith(MAGIC):
        raise ValueError(f"these {len(data)} bytes are no message: they do not start with {MAGIC}")
    framed = data[:-4]
    if data[-4:] != _checksum(framed, layout):
        raise ValueError(f"the message is damaged, cut or not of {layout}: its checksum differs")
    start, n_bits = len(MAGIC) + 8, n_bits_of(data)
    bits = int.from_bytes(framed[start:]) >> -n_bits % 8
    n_codebooks, n_gates = 16 * layout.n_codebooks * layout.levels, gate_bits(layout.budgets or ())
    n_payload = n_bits - n_codebooks - n_gates
    codebooks = np.frombuffer(framed[start : start + n_codebooks // 8], ">f2").astype(np.float16)
    gates = bits >> n_payload & (1 << n_gates) - 1
    code = _to_bytes(bits & (1 << n_payload) - 1, n_payload)
    return Message(
        codebooks.reshape(layout.n_codebooks, layout.levels),
        None if layout.budgets is None else _split(gates, layout.budgets),
        coder.decode(code, layout.d, layout.levels, layout.coder),
    )


def n_bits_of(data: bytes) -> int:
    """L of the message in a file."""
    return int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8])


def _to_bytes(bits: int, n_bits: int) -> bytes:
    """The last byte is filled up with zero bits."""
    return (bits << -n_bits % 8).to_bytes(-(-n_bits // 8))


def _join(gates: Sequence[int], budgets: Sequence[int]) -> int:
    """One number of the k_l, the digit of layer l having base d_l + 1; the last is the lowest."""
    number = 0
    for k, budget in zip(gates, budgets, strict=True):
        number = number * (budget + 1) + int(k)
    return number


def _split(number: int, budgets: Sequence[int]) -> list[int]:
    """The k_l that `_join` was given."""
    gates = []
    for budget in reversed(budgets):
        number, k = divmod(number, budget + 1)
        gates.append(k)
    return gates[::-1]


def _checksum(framed: bytes, layout: Layout) -> bytes:
    """CRC32 of layout and bytes: finds every change within 32 bits in a row."""
    return zlib.crc32(framed, zlib.crc32(json.dumps(astuple(layout)).encode())).to_bytes(4)
