"""How many replicas of a config are worth stacking."""

from compressor.config import TrainConfig, shape

CACHE_BYTES = 4 * 2**20  # of W, moments and gradients that stay in a core's cache
MOST = 256
_UNKNOWN_DIM = 4096


def stack_width(cfg: TrainConfig) -> int:
    """Most replicas worth stacking: about 4 MB of weights and batches, at most 256.

    The states are shared by all of them, as is the pass that reads a batch.
    """
    dim, _ = shape(cfg) or (_UNKNOWN_DIM, None)
    k = cfg.model.d_compressed or int(dim / cfg.model.ratio)
    numbers = 5 * k * dim + cfg.train.batch * (dim + k)
    return max(8, min(MOST, CACHE_BYTES // (4 * numbers)))
