"""Numbers out of the numbers of a run: curve summary, scales and limits, forgetting. No torch."""

from qlora_probe.theory.curves import curve_summary
from qlora_probe.theory.forgetting import Forgetting, measure_forgetting, verdict
from qlora_probe.theory.scales import (
    NoiseScale,
    RankCorrelation,
    adam_limit,
    clip_coefficient,
    gradient_descent_limit,
    loss_barrier,
    noise_scale,
    rank_correlation,
)

__all__ = [
    "Forgetting",
    "NoiseScale",
    "RankCorrelation",
    "adam_limit",
    "clip_coefficient",
    "curve_summary",
    "gradient_descent_limit",
    "loss_barrier",
    "measure_forgetting",
    "noise_scale",
    "rank_correlation",
    "verdict",
]
