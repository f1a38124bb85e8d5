"""Small tasks on pairs of states, for tests of the recursive predictor."""

import numpy as np

from compressor.trm_config import (
    CodesConfig,
    FitConfig,
    RecursionConfig,
    TrmConfig,
)

D, K, N, L = 12, 8, 24, 10
SMALL = RecursionConfig(n=1, rounds=2, n_sup=2)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def config(path, trm=SMALL, train=None, **model):
    cfg = TrmConfig(
        task="pairs", device="cpu", trm=trm, model=CodesConfig(**{"d_compressed": K} | model)
    )
    cfg.data.path = str(path)
    cfg.train = train or FitConfig(max_epochs=1)
    return cfg


def flat(task, values, sequences):
    """[N, k] those that are there."""
    return values[sequences][task.mask[sequences]].double()
