"""Analyses and figures of memdyn, from a store or from frames."""

import memdyn.theory as theory
from analysis.memdyn.figures import (
    create_all_visualizations,
    plot_compression_trajectories,
    plot_compression_velocity,
    plot_individual_passage_trajectories,
    plot_memorization_rate,
    plot_memorization_vs_compression,
)
from analysis.memdyn.heatmap import plot_layer_epoch_heatmap
from analysis.memdyn.runs import from_store, passage_data

analyze_layer_temporal_patterns = from_store(theory.analyze_layer_temporal_patterns)
analyze_memorization_onset = from_store(theory.analyze_memorization_onset)
analyze_u_shape_trajectory = from_store(theory.analyze_u_shape_trajectory)
compute_compression_velocity = from_store(theory.compute_compression_velocity)
generate_summary_report = from_store(theory.generate_summary_report)
predict_memorization = from_store(theory.predict_memorization)

__all__ = [
    "analyze_layer_temporal_patterns",
    "analyze_memorization_onset",
    "analyze_u_shape_trajectory",
    "compute_compression_velocity",
    "create_all_visualizations",
    "generate_summary_report",
    "passage_data",
    "plot_compression_trajectories",
    "plot_compression_velocity",
    "plot_individual_passage_trajectories",
    "plot_layer_epoch_heatmap",
    "plot_memorization_rate",
    "plot_memorization_vs_compression",
    "predict_memorization",
]
