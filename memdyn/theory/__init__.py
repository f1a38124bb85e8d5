"""What the tables of a run say: shapes, onsets, layers, velocities, prediction, a report.

`data` is a mapping of equally long columns, or a frame, of one run: a row per epoch, passage and
layer with epoch, passage_id, group (trained, novel; all trained where absent), layer and the
metrics, accuracy and nll asked about. A function of one layer needs no column `layer`; shapes and
velocities take a row per epoch and group too, without passage_id and with the spread `sd` if known.
Null and nan are missing values. No torch.
"""

from memdyn.theory.columns import GROUPS, middle_layer
from memdyn.theory.layers import (
    LayerCorrelations,
    LayerPattern,
    analyze_layer_temporal_patterns,
    layer_correlations,
)
from memdyn.theory.onset import Onset, analyze_memorization_onset
from memdyn.theory.prediction import Prediction, predict_memorization
from memdyn.theory.report import generate_summary_report
from memdyn.theory.shapes import Trajectory, analyze_u_shape_trajectory
from memdyn.theory.velocity import Velocity, compute_compression_velocity

__all__ = [
    "GROUPS",
    "LayerCorrelations",
    "LayerPattern",
    "Onset",
    "Prediction",
    "Trajectory",
    "Velocity",
    "analyze_layer_temporal_patterns",
    "analyze_memorization_onset",
    "analyze_u_shape_trajectory",
    "compute_compression_velocity",
    "generate_summary_report",
    "layer_correlations",
    "middle_layer",
    "predict_memorization",
]
