"""How fast a metric changes from one measured epoch to the next."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from memdyn.theory.columns import GROUPS, series


@dataclass(frozen=True)
class Velocity:
    """First and second differences of a group's mean; E measured epochs."""

    epochs: np.ndarray  # [E]
    means: np.ndarray  # [E] over the group's passages, in units of the metric
    se: np.ndarray  # [E] standard error of the mean over passages; nan where unknown
    midpoints: np.ndarray  # [E - 1] epochs between two measured ones, where velocity stands
    velocity: np.ndarray  # [E - 1] change of the mean per epoch
    velocity_se: np.ndarray  # [E - 1] from the passages' own changes (paired); nan where unknown
    acceleration: np.ndarray  # [E - 2] change of velocity per epoch, at the inner epochs
    sign_changes: int | None  # of velocity, where |v| >= 2 SE (any v != 0 without SE); None: no v
    reason: str | None  # why something is None or nan


def compute_compression_velocity(
    data: Any, layer: int | None = None, group: str = "trained", metric: str = "nv_rel"
) -> Velocity:
    """v_i = (y_{i+1} - y_i) / (e_{i+1} - e_i), a_i = (v_{i+1} - v_i) / ((e_{i+2} - e_i) / 2).

    y is the mean over the group's passages that have a value at every epoch. Exact for quadratics:
    v is the slope at the midpoint, a the second derivative. The standard errors are over passages
    of one model and know nothing of another training seed.
    Raises ValueError for a group other than trained and novel, and as `columns.series`.
    """
    if group not in GROUPS:
        raise ValueError(f"group must be trained or novel, got {group!r}")
    own = series(data, metric, layer)[group]
    e, y = own.epochs.astype(float), own.means
    steps = np.diff(e)
    velocity = np.diff(y) / steps
    n = 0 if own.values is None else own.values.shape[1]
    if n > 1:
        se = own.sd / np.sqrt(n)
        velocity_se = np.diff(own.values, axis=0).std(1, ddof=1) / np.sqrt(n) / steps
    else:
        se, velocity_se = np.full(len(e), np.nan), np.full(len(velocity), np.nan)
    known = np.isfinite(velocity) & (velocity != 0)
    clear = velocity[known & ~(np.abs(velocity) < 2 * velocity_se)]
    changes = int((np.diff(np.sign(clear)) != 0).sum())
    reason = None
    if len(e) < 2 or np.isnan(y).all():
        changes, reason = None, f"{metric} of {group} passages at {len(e)} epochs, 2 needed"
    elif n < 2:
        reason = "no standard errors: fewer than 2 passages known"
    midpoints, acceleration = (e[:-1] + e[1:]) / 2, np.diff(velocity) / ((e[2:] - e[:-2]) / 2)
    return Velocity(
        own.epochs, y, se, midpoints, velocity, velocity_se, acceleration, changes, reason
    )
