"""What a config says: its data set, its network in its subspace."""

import numpy as np
import torch

from sublora.adapters import make_network
from sublora.config import TrainConfig
from sublora.dataset import Dataset, load_dataset
from sublora.prepare import default_dataset
from sublora.subspace import SubspaceModule, allot


def dataset_of(cfg: TrainConfig) -> Dataset:
    """Raises ValueError for a folder that holds none, or no window to train on."""
    data = load_dataset(cfg.data.dir if cfg.data.dir is not None else default_dataset())
    if len(data.train) <= cfg.model.block:
        raise ValueError(
            f"model.block={cfg.model.block}: train.bin of {data.folder} has {len(data.train)} "
            "tokens, a window of block + 1 is more"
        )
    return data


def make_module(cfg: TrainConfig, vocab_size: int) -> SubspaceModule:
    """On the CPU, at w = 0: the prior, which cfg.seed alone decides."""
    network = make_network(cfg.model, vocab_size, cfg.seed)
    allotment = allot(network.slots, cfg.subspace.d, cfg.allocation)
    return SubspaceModule(network, allotment, cfg.subspace, cfg.allocation.gate_init, cfg.seed)


def set_coordinates(module: SubspaceModule, w: np.ndarray) -> None:
    """w float32 [d]."""
    with torch.no_grad():
        module.w.copy_(torch.from_numpy(w))
