"""Counter-based random streams: R seeds are one vectorised draw, the same on every device.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
A stream is a key, made from a name and a seed; a draw is a function of the key and of a position,
so that values do not depend on how many are drawn at once.
"""

import math
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORDS_AT_ONCE = 2**20  # of permutations: bounds memory, not values


class Stream:
    """The streams `name` of R seeds. Words are 32 random bits in an int64."""

    def __init__(self, name: str, seeds: Sequence[int], device: torch.device | str = "cpu"):
        keys = {seed: stream_key(name, seed) for seed in set(map(int, seeds))}
        table = np.stack([keys[int(seed)] for seed in seeds]).astype(np.int64)
        self.key = torch.from_numpy(table).to(device)  # [R, 2]

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` draw from now on."""
        self.key = self.key[index]

    def words(self, first: int, count: int, pages: range = range(1)) -> Tensor:
        """Words first .. first + count - 1 of each page: [R, len(pages), count].

        Word i of page p is lane i % 4 of the counter (i // 4, p), both of 64 bits.
        """
        lanes = torch.stack(self._lanes(first, count, pages), dim=-1).flatten(-2)
        return lanes[..., first % 4 : first % 4 + count]

    def normals(self, first: int, count: int, page: int = 0) -> Tensor:
        """Standard normals first .. first + count - 1 of a page: [R, count] float64, by Box-Muller.

        Words (2i, 2i + 1) = (v, w) give normals r cos t and r sin t, r = sqrt(-2 ln u),
        u = (v + 1/2) / 2^32, t = 2 pi w / 2^32.
        """
        pages = range(page, page + 1)
        v0, w0, v1, w1 = (lane[:, 0] for lane in self._lanes(first, count, pages))
        normals = torch.stack([*_box_muller(v0, w0), *_box_muller(v1, w1)], dim=-1).flatten(-2)
        return normals[:, first % 4 : first % 4 + count]

    def gammas(self, first: int, shapes: Tensor, page: int) -> Tensor:
        """Gamma variates of scale 1, numbers first .. first + n - 1: [R, n] float64.

        shapes [n], > 0. Attempt a at number j takes the counter (j, page + a), so that no value
        depends on how many attempts another one needed.
        Marsaglia & Tsang (2000), "A simple method for generating gamma variables"; below shape 1 by
        Gamma(a) = Gamma(a + 1) U^(1/a).
        """
        n, device = len(shapes), self.key.device
        boosted = torch.where(shapes < 1, shapes + 1, shapes)
        d = boosted - 1 / 3
        c = 1 / (9 * d).sqrt()
        values = torch.empty(len(self.key) * n, dtype=torch.float64, device=device)
        pending = torch.arange(len(values), device=device)
        while len(pending):
            replica, j = pending // n, pending % n
            number = first + j
            counter = (
                number & _MASK,
                number >> 32,
                torch.full_like(j, page & _MASK),
                torch.full_like(j, page >> 32),
            )
            v0, w0, v1, v2 = philox4x32(counter, (self.key[replica, 0], self.key[replica, 1]))
            x = _box_muller(v0, w0)[0]
            cube = (1 + c[j] * x) ** 3
            log_cube = cube.log()  # nan where cube < 0, which is then not accepted
            accepted = _uniform(v1).log() < x.square() / 2 + d[j] * (1 - cube + log_cube)
            boost = torch.where(shapes[j] < 1, _uniform(v2) ** (1 / shapes[j]), 1.0)
            values[pending[accepted]] = (d[j] * cube * boost)[accepted]
            pending = pending[~accepted]
            page += 1
        return values.reshape(-1, n)

    def permutations(self, n: int, epochs: range) -> Tensor:
        """A permutation of 0..n-1 per epoch: [R, len(epochs), n] int32, the
        argsort of page e's words."""
        replicas = max(1, _WORDS_AT_ONCE // (n * len(epochs)))
        parts = []
        for key in self.key.split(replicas):
            words = torch.stack(_lanes(key, 0, n, epochs), dim=-1).flatten(-2)[..., :n]
            parts.append(_stable_argsort(words))
        return torch.cat(parts)

    def _lanes(self, first: int, count: int, pages: range) -> tuple[Tensor, ...]:
        return _lanes(self.key, first, count, pages)


def stream_key(name: str, seed: int) -> np.ndarray:
    """The Philox key of a stream: two uint32. All bits of the seed count, neighbours are unlike."""
    sequence = np.random.SeedSequence(int(seed), spawn_key=(crc32(name.encode()),))
    return sequence.generate_state(2, np.uint32)


def philox4x32(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 of int64 tensors that hold 32-bit words and broadcast: four words."""
    k0, k1 = key
    c0, c1, c2, c3, _, _ = torch.broadcast_tensors(*counter, k0, k1)
    c0, c1, c2, c3 = c0.clone(), c1.clone(), c2.clone(), c3.clone()
    p0, p1 = torch.empty_like(c0), torch.empty_like(c0)
    for _ in range(10):
        # In place: large new tensors cost more than the arithmetic. The products need 64 unsigned
        # bits: int64 wraps to the same bits. Their high halves stand in c1 and c3 until the mask
        # takes them out, and the sign that the arithmetic shift leaves.
        _multiply(c0, _MULTIPLIERS[0], p0)
        _multiply(c2, _MULTIPLIERS[1], p1)
        torch.bitwise_right_shift(p1, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(k0)
        torch.bitwise_right_shift(p0, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(k1)
        c0.bitwise_and_(_MASK)
        c2.bitwise_and_(_MASK)
        c1, p1, c3, p0 = p1, c1, p0, c3
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1.bitwise_and_(_MASK), c2, c3.bitwise_and_(_MASK)


def torch_generator(name: str, seed: int) -> torch.Generator:
    """A CPU torch.Generator whose whole Mersenne Twister state is drawn from the stream.

    `manual_seed` keeps 32 bits of a seed; 10,000 seeds would collide in one sweep of a hundred.
    """
    generator = torch.Generator().manual_seed(0)
    words = Stream(name, [seed]).words(0, 624)[0, 0]
    state = generator.get_state()
    state[24 : 24 + 8 * 624] = words.view(torch.uint8)  # seed, left | seeded, next: 24 bytes ahead
    return generator.set_state(state)


def _multiply(a: Tensor, factor: int, out: Tensor) -> None:
    if a.device.type == "cpu":  # twice as fast as torch with integers
        np.multiply(a.numpy(), factor, out=out.numpy())
    else:
        torch.mul(a, factor, out=out)


def _lanes(key: Tensor, first: int, count: int, pages: range) -> tuple[Tensor, ...]:
    """The four lanes, each [R, len(pages), m], of the m counters that cover the words."""
    block = torch.arange(first // 4, -(-(first + count) // 4), device=key.device)
    page = torch.arange(pages.start, pages.stop, device=key.device)[:, None]
    counter = (block & _MASK, block >> 32, page & _MASK, page >> 32)
    return philox4x32(counter, (key[:, 0, None, None], key[:, 1, None, None]))


def _stable_argsort(words: Tensor) -> Tensor:
    """The stable argsort of 32-bit words [*, n] along the last axis, int32.

    On a CPU NumPy sorts numbers that carry their index in the low bits, several times faster than
    torch sorts; ten times faster still as 32 bits. That cuts words short: rows with words that are
    equal then (1.5 % at n = 500) are sorted again in 64 bits.
    """
    if words.device.type != "cpu":
        return words.argsort(dim=-1, stable=True).int()
    n = words.shape[-1]
    bits = (n - 1).bit_length()  # of an index
    if n**2 > 2 ** (32 - bits):  # about every second row would have equals
        return torch.from_numpy(_argsort_64(words.numpy(), bits))
    keys = words.int().numpy().view(np.uint32)  # the low 32 bits, as they are
    keys &= np.uint32(2**32 - 2**bits)
    keys |= np.arange(n, dtype=np.uint32)
    keys.sort(axis=-1)
    tops = keys >> np.uint32(bits)
    ties = (tops[..., 1:] == tops[..., :-1]).any(-1)
    keys &= np.uint32(2**bits - 1)
    order = keys.view(np.int32)
    order[ties] = _argsort_64(words.numpy()[ties], bits)
    return torch.from_numpy(order)


def _argsort_64(words: np.ndarray, bits: int) -> np.ndarray:
    keys = (words << bits) | np.arange(words.shape[-1])
    keys.sort(axis=-1)
    return (keys & (2**bits - 1)).astype(np.int32)


def _uniform(word: Tensor) -> Tensor:
    """In (0, 1): (word + 1/2) / 2^32."""
    return (word.double() + 0.5) * 2.0**-32


def _box_muller(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    radius = _uniform(v).log_().mul_(-2).sqrt_()
    angle = w.double() * (2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
