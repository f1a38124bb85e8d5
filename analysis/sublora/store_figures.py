"""The figures of a store of sublora, for its command and for a report."""

from collections.abc import Iterator
from functools import partial, update_wrapper
from pathlib import Path

from analysis.measured import StoreFigure, figures_of
from analysis.sublora.bars import plot_allocations
from analysis.sublora.front import plot_compression, plot_pareto
from analysis.sublora.gates import plot_gate_trend, plot_gates
from analysis.sublora.runs import Grid, load_grid

MAIN_SCALARS = ("bound_value", "empirical_bpd", "kl_divergence", "compressed_size_bits")
OF_A_BUDGET = {  # file name, before _d<budget> -> what draws a grid at a budget
    "pareto_frontier": plot_pareto,
    "compression_comparison": plot_compression,
    "learned_gating_heatmap": plot_gates,
}
OF_ALL = {  # file name -> what draws a grid
    "allocation_comparison_grid": plot_allocations,
    "learned_gating_trend": plot_gate_trend,
}


def store_figures(store: Path) -> Iterator[StoreFigure]:
    """Those of the grid of all methods, budgets and seeds. Raises as load_grid does."""
    yield from figures_of_grid(load_grid(store))


def figures_of_grid(grid: Grid) -> Iterator[StoreFigure]:
    """Of each budget, then of all."""
    of_budgets = {
        f"{name}_d{d}": update_wrapper(partial(draw, d=d), draw)
        for name, draw in OF_A_BUDGET.items()
        for d in grid.budgets
    }
    yield from figures_of(of_budgets | OF_ALL, grid)
