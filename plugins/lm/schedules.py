"""Learning rates over a training, as factors of the largest."""

import math


def warmup_cosine(step: int, n_steps: int, warmup: int, least: float = 0.0) -> float:
    """Of update `step`, 0-based: linear to 1 in the warm-up, then half a cosine to `least`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, n_steps - warmup)
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))
