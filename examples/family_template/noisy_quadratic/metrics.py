"""What is measured beside the loss. Importing this registers it."""

from dataclasses import dataclass

import numpy as np

from noisy_quadratic.registry import register_metric


@dataclass(frozen=True)
class State:
    """R descents after the same number of updates."""

    weights: np.ndarray  # [R, dim]
    eigenvalues: np.ndarray  # [dim], h_1 >= h_2 >= ...

    @property
    def mode_losses(self) -> np.ndarray:
        """[R, dim], of each direction; their sum is the loss."""
        return self.eigenvalues * self.weights**2 / 2


@register_metric("leading_share")
def leading_share(state: State, k: int = 1) -> np.ndarray:
    """[R] share of the loss in the k steepest directions, 0 .. 1; k >= 1."""
    losses = state.mode_losses
    return losses[:, :k].sum(1) / losses.sum(1)
