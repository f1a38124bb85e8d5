"""Messages come back bit for bit, or not at all."""

import dataclasses

import numpy as np
import pytest

from sublora import coder
from sublora.allocation import layer_budgets
from sublora.config import CODERS
from sublora.message import MAGIC, Layout, Message, codebook_of, pack, unpack
from sublora.quantize import quantize

BUDGETS = (3, 5, 12)
GATES = [0, 5, 7]


def coordinates(d, seed=0):
    return np.random.default_rng(seed).normal(size=d).astype(np.float32)


def message(layout, seed=0):
    """K-means levels of normal coordinates, for each codebook the same symbols."""
    halves = [
        quantize(coordinates(layout.d, [seed, i]), layout.levels, "kmeans")
        for i in range(layout.n_codebooks)
    ]
    gates = None
    if layout.budgets is not None:
        generator = np.random.default_rng(seed)
        gates = [int(generator.integers(0, budget + 1)) for budget in layout.budgets]
    return Message(np.stack([half.codebook for half in halves]), gates, halves[0].symbols)


LAYOUTS = [
    Layout(d, levels, n_codebooks, kind, budgets, n_first)
    for kind in CODERS
    for levels in (2, 11, 32)
    for d, n_codebooks, budgets, n_first in [
        (1, 1, None, None),
        (20, 2, None, 4),
        (20, 1, BUDGETS, None),
        (20, 2, BUDGETS, None),
        (1000, 2, tuple(layer_budgets([12288] * 12 + [204288], 1000, "params")), None),
        (2000, 1, None, None),
    ]
]


def frame(packed):
    return len(packed.data) - -(-packed.n_bits // 8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_message_comes_back_bit_for_bit(layout):
    sent = message(layout)
    found = unpack(pack(sent, layout).data, layout)
    assert found.codebooks.dtype == np.float16
    assert found.codebooks.tobytes() == sent.codebooks.tobytes()
    assert found.gates == sent.gates
    assert found.symbols.tolist() == sent.symbols.tolist()
    values = found.values(layout)
    assert values.dtype == np.float32
    assert values.tobytes() == sent.values(layout).tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lengths_are_those_of_the_parts(layout):
    """L = 16 bits a level, the gates, and the ideal bits of the symbols rounded up."""
    sent = message(layout)
    packed = pack(sent, layout)
    assert packed.n_bits == packed.codebook_bits + packed.gate_bits + packed.payload_bits
    assert packed.codebook_bits == 16 * layout.levels * layout.n_codebooks
    code = (layout.levels, layout.coder)
    ideal = coder.header_bits(layout.d, *code) + coder.ideal_bits(sent.symbols, *code)
    assert ideal - 1e-6 < packed.payload_bits < ideal + 1 + 1e-6
    assert frame(packed) == len(MAGIC) + 8 + 4


def test_gates_cost_what_the_ways_to_set_them_cost():
    """35 x 12 and 580: 71.2 bits; 70 x 11, 69 and 1161: 83.96 bits."""
    for budgets, bits in [([35] * 12 + [580], 72), ([70] * 11 + [69, 1161], 84)]:
        layout = Layout(sum(budgets), 11, 1, "adaptive", tuple(budgets))
        for gates in ([0] * 13, budgets, [1, *budgets[1:-1], 0]):
            sent = dataclasses.replace(message(layout), gates=gates)
            packed = pack(sent, layout)
            assert packed.gate_bits == bits
            assert unpack(packed.data, layout).gates == list(gates)


def test_all_gates_have_their_own_code():
    layout = Layout(6, 2, 1, "adaptive", (1, 2, 3))
    sent = message(layout)
    every = [[a, b, c] for a in range(2) for b in range(3) for c in range(4)]
    packed = [pack(dataclasses.replace(sent, gates=gates), layout) for gates in every]
    assert {p.gate_bits for p in packed} == {5}
    assert [unpack(p.data, layout).gates for p in packed] == every


def test_gates_of_numpy_integers_do_not_overflow():
    budgets = (1000,) * 20
    layout = Layout(20_000, 2, 1, "adaptive", budgets)
    sent = dataclasses.replace(message(layout), gates=np.arange(981, 1001))
    assert unpack(pack(sent, layout).data, layout).gates == list(range(981, 1001))


def test_a_uses_codebook_0_and_b_codebook_1():
    assert codebook_of(Layout(5, 2, 1, "adaptive"), None).tolist() == [0] * 5
    assert codebook_of(Layout(5, 2, 2, "adaptive", n_first=2), None).tolist() == [0, 0, 1, 1, 1]
    layout = Layout(20, 2, 2, "adaptive", BUDGETS)
    assert codebook_of(layout, GATES).tolist() == [0] * 3 + [1] * 5 + [1] * 7 + [0] * 5


def test_values_of_two_codebooks():
    layout = Layout(4, 2, 2, "adaptive", n_first=1)
    sent = Message(np.float16([[-1, 1], [-2, 2]]), None, np.array([1, 0, 1, 1]))
    assert sent.values(layout).tolist() == [1, -2, 2, 2]


@pytest.mark.parametrize("kind", CODERS)
def test_any_one_corrupted_byte_is_refused(kind):
    """Every byte of the file in turn: each of its bits, and all of them."""
    layout = Layout(20, 4, 2, kind, BUDGETS)
    data = pack(message(layout), layout).data
    for i in range(len(data)):
        for change in (*(1 << bit for bit in range(8)), 255):
            bad = bytearray(data)
            bad[i] ^= change
            with pytest.raises(ValueError, match="no message" if i < len(MAGIC) else "damaged"):
                unpack(bytes(bad), layout)


def test_a_file_cut_or_continued_is_refused():
    layout = Layout(20, 4, 2, "adaptive", BUDGETS)
    data = pack(message(layout), layout).data
    for bad in (*(data[:i] for i in range(len(data))), data + b"\0", data[1:], data * 2):
        with pytest.raises(ValueError, match=r"no message|damaged"):
            unpack(bad, layout)


@pytest.mark.parametrize(
    "other",
    [
        {"d": 19},
        {"d": 21},
        {"levels": 5},
        {"n_codebooks": 1},
        {"coder": "static"},
        {"budgets": (5, 3, 12)},
        {"budgets": None, "n_first": 10},
        {"n_first": 3},
    ],
)
def test_another_layout_is_refused(other):
    layout = Layout(20, 4, 2, "adaptive", BUDGETS)
    data = pack(message(layout), layout).data
    with pytest.raises(ValueError, match="not of Layout"):
        unpack(data, dataclasses.replace(layout, **other))


def test_same_message_same_bytes():
    """Also as written before: any change of the format breaks stored files."""
    layout = Layout(6, 2, 2, "adaptive", (2, 4))
    sent = Message(np.float16([[-1, 1], [-2, 0.5]]), [1, 3], np.array([0, 1, 1, 0, 1, 1]))
    packed = pack(sent, layout)
    assert pack(sent, layout) == packed
    assert (packed.n_bits, packed.gate_bits, packed.payload_bits) == (75, 4, 7)
    assert packed.data.hex() == (
        MAGIC.hex() + "000000000000004b" + "bc003c00c0003800" + "8720" + "ab0d56ca"
    )
