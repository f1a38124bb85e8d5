"""How many replicas of a config are worth stacking. Loads torch only where there is a GPU."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from dln.config import TrainConfig, layer_shapes, n_params

CACHE_BYTES = 4 * 2**20  # weights of a stack that stay in a core's cache
MOST_PERMUTED = 2**25  # samples of all replicas' permutations: a gigabyte while they are drawn
MOST_ON_CPU = 512  # measured: little is gained beyond, even at width 10


def stack_width(cfg: TrainConfig) -> int:
    """Most replicas worth stacking: about 4 MB of weights on a CPU, half the free memory on a GPU.

    Measured best on a CPU: 512 replicas at width 10, 64-256 at 50, 32 at 100.
    """
    free = _free_gpu_bytes(cfg.device)
    if free is None:
        weight_bytes = n_params(cfg.model) * _number_bytes(cfg)
        ordered = MOST_PERMUTED // (1 if cfg.data.online else cfg.data.train_samples)
        return max(1, min(MOST_ON_CPU, CACHE_BYTES // weight_bytes, ordered))
    return max(1, free // 2 // _replica_bytes(cfg))


def halving(run_stack: Callable) -> Callable:
    """`run_stack`, in halves one after the other where its stack does not fit into memory."""

    @wraps(run_stack)
    def run(
        cfg: Any,
        replicas: Mapping[str, Sequence],
        workdirs: Sequence[Path],
        on_progress: Callable[[float], None] | None = None,
    ) -> list:
        n = len(workdirs)
        try:
            return run_stack(cfg, replicas, workdirs, on_progress)
        except (RuntimeError, MemoryError) as error:
            if n == 1 or not _is_allocation_failure(error):
                raise
        results: list = []
        for part in (slice(n // 2), slice(n // 2, n)):
            columns = {key: values[part] for key, values in replicas.items()}
            done = len(results)
            size = len(workdirs[part])

            def progress(fraction: float, done: int = done, size: int = size) -> None:
                on_progress((done + size * fraction) / n)

            results += run(cfg, columns, workdirs[part], on_progress and progress)
        return results

    return run


def _replica_bytes(cfg: TrainConfig) -> int:
    """Upper estimate of what one replica takes while it trains: weights, their gradients and an
    optimizer's two states, a copy in float64 at records; samples and their spread copies, in
    float64; activations and factors of the samples of a step."""
    number = _number_bytes(cfg)
    train_samples = 0 if cfg.data.online else cfg.data.train_samples
    samples = cfg.data.test_samples + train_samples
    by_moments = cfg.training.criterion == "MSELoss"
    step_samples = cfg.model.in_dim if by_moments else cfg.training.batch_size or train_samples
    return (
        n_params(cfg.model) * (4 * number + 8)
        + samples * 3 * 8 * (cfg.model.in_dim + cfg.model.out_dim)
        + step_samples * 3 * number * sum(rows for rows, _ in layer_shapes(cfg.model))
    )


def _number_bytes(cfg: TrainConfig) -> int:
    return 8 if cfg.dtype == "float64" else 4


def _free_gpu_bytes(device: str) -> int | None:
    """Free memory of the GPU that `device` means here; None when it means the CPU."""
    if device == "cpu" or not Path("/proc/driver/nvidia").exists():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info(None if device == "auto" else torch.device(device))[0]


def _is_allocation_failure(error: Exception) -> bool:
    """Of torch on a GPU, of torch on a CPU, of NumPy."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
