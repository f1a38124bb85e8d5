"""How many replicas of a config are worth stacking. Loads torch only where there is a GPU."""

from pathlib import Path

from dln.config import TrainConfig, layer_shapes, n_params

CACHE_BYTES = 4 * 2**20  # weights of a stack that stay in a core's cache
MOST_ON_CPU = 512  # measured: nothing is gained beyond, even at width 10
MOST_ON_GPU = 4096


def stack_width(cfg: TrainConfig) -> int:
    """Most replicas worth stacking: about 4 MB of weights on a CPU, half the free memory on a GPU.

    Measured best on a CPU: 512 replicas at width 10, 64-256 at 50, 32 at 100.
    """
    weight_bytes = n_params(cfg.model) * (8 if cfg.dtype == "float64" else 4)
    free = _free_gpu_bytes(cfg.device)
    if free is None:
        return max(1, min(MOST_ON_CPU, CACHE_BYTES // weight_bytes))
    return max(1, min(MOST_ON_GPU, free // 2 // (4 * weight_bytes + _data_bytes(cfg))))


def _data_bytes(cfg: TrainConfig) -> int:
    """Upper estimate of one replica's samples and of its activations, in float64."""
    widest = sum(rows for rows, _ in layer_shapes(cfg.model)) + cfg.model.in_dim
    batch = cfg.training.batch_size if cfg.data.online else cfg.data.train_samples
    return 8 * widest * 4 * (cfg.data.test_samples + (batch or 0))


def _free_gpu_bytes(device: str) -> int | None:
    """Free memory of the GPU that `device` means here; None when it means the CPU."""
    if device == "cpu" or not Path("/proc/driver/nvidia").exists():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info(None if device == "auto" else torch.device(device))[0]
