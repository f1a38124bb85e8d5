"""Random streams by name: what a seed and a purpose draw, whatever else is drawn beside it."""

import json
from hashlib import blake2b

import numpy as np


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """The generator of (seed, keys) at its start; other keys, in number or order too: independent.

    Philox4x64-10 (Salmon et al. 2011) under a key of 128 bits hashed from the arguments; 1 and
    "1" are different keys.
    """
    name = json.dumps([seed, *keys]).encode()
    key = int.from_bytes(blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
