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

    def normals(self, first: int, count: int) -> Tensor:
        """Standard normals first .. first + count - 1: [R, count] float64, by Box-Muller.

        Words (2i, 2i + 1) = (v, w) give normals r cos t and r sin t, r = sqrt(-2 ln u),
        u = (v + 1/2) / 2^32, t = 2 pi w / 2^32.
        """
        v0, w0, v1, w1 = (lane[:, 0] for lane in self._lanes(first, count, range(1)))
        normals = torch.stack([*_box_muller(v0, w0), *_box_muller(v1, w1)], dim=-1).flatten(-2)
        return normals[:, first % 4 : first % 4 + count]

    def permutations(self, n: int, epochs: range) -> Tensor:
        """A permutation of 0..n-1 per epoch: [R, len(epochs), n], the argsort of page e's words."""
        return self.words(0, n, epochs).argsort(dim=-1, stable=True)

    def _lanes(self, first: int, count: int, pages: range) -> tuple[Tensor, ...]:
        """The four lanes, each [R, len(pages), m], of the m counters that cover the words."""
        device = self.key.device
        block = torch.arange(first // 4, -(-(first + count) // 4), device=device)
        page = torch.arange(pages.start, pages.stop, device=device)[:, None]
        counter = (block & _MASK, block >> 32, page & _MASK, page >> 32)
        return philox4x32(counter, (self.key[:, 0, None, None], self.key[:, 1, None, None]))


def stream_key(name: str, seed: int) -> np.ndarray:
    """The Philox key of a stream: two uint32. All bits of the seed count, neighbours are unlike."""
    sequence = np.random.SeedSequence(int(seed), spawn_key=(crc32(name.encode()),))
    return sequence.generate_state(2, np.uint32)


def philox4x32(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 of int64 tensors that hold 32-bit words and broadcast: four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The products need 64 unsigned bits: int64 wraps to the same bits, and the mask after the
        # arithmetic shift takes the sign away.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, ((p0 >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = p1 & _MASK, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.broadcast_tensors(c0, c1, c2, c3)


def torch_generator(name: str, seed: int) -> torch.Generator:
    """A CPU torch.Generator whose whole Mersenne Twister state is drawn from the stream.

    `manual_seed` keeps 32 bits of a seed; 10,000 seeds would collide in one sweep of a hundred.
    """
    generator = torch.Generator().manual_seed(0)
    words = Stream(name, [seed]).words(0, 624)[0, 0]
    state = generator.get_state()
    state[24 : 24 + 8 * 624] = words.view(torch.uint8)  # seed, left | seeded, next: 24 bytes ahead
    return generator.set_state(state)


def _box_muller(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    radius = ((v.double() + 0.5) * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = w.double() * (2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
