"""What one field cannot see, checked while a sweep is planned: bad input ends before any run."""

from collections.abc import Mapping, Sequence

from noisy_quadratic import metrics as metrics  # registers them
from noisy_quadratic import registry
from noisy_quadratic.config import TrainConfig
from plugins.registry import check_specs


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError for metrics that are not there, or not with these parameters."""
    check_specs("metrics", cfg.metrics, registry.metrics)
