"""`python -m analysis.sublora STORE -o DIR`: figures, summary and hypotheses of a grid of runs."""

import sys
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper

import matplotlib

from analysis import sublora
from analysis.arguments import check_parent, parser_of
from analysis.measured import write_figures
from analysis.sublora.runs import count_of_left_out, other_keys

OF_A_BUDGET = {  # file name, before _d<budget> -> what draws a grid at a budget
    "pareto_frontier": sublora.plot_pareto,
    "compression_comparison": sublora.plot_compression,
    "learned_gating_heatmap": sublora.plot_gates,
}
OF_ALL = {  # file name -> what draws a grid
    "allocation_comparison_grid": sublora.plot_allocations,
    "learned_gating_trend": sublora.plot_gate_trend,
}
SUMMARY = "summary_table"
_EXAMPLES = """\
examples:
  python -m analysis.sublora outputs/sublora/sublora_grid -o figures
  python -m analysis.sublora outputs/sublora/sublora_grid -o figures \\
      --budgets 1000 2000 --seeds 42 123 999
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(
        "sublora",
        "Write the figures and the summary of a grid of methods, budgets and seeds of sublora; "
        "print what it says of three hypotheses.",
        _EXAMPLES,
    )
    for name, key in (("budgets", "subspace.d"), ("seeds", "seed")):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=int,
            metavar="N",
            help=f"values of {key} (default: all that the runs have)",
        )
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    output = arguments.output
    try:
        grid = sublora.load_grid(arguments.store, arguments.budgets, arguments.seeds)
        check_parent(output)
        output.mkdir(exist_ok=True)
        _warn(grid)
        write_figures(_figures(grid), grid, output)
        table = sublora.summary(grid)
        table.write_csv(output / f"{SUMMARY}.csv")
        (output / f"{SUMMARY}.tex").write_text(sublora.latex(table))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for suffix in ("csv", "tex"):
        print(f"{output / SUMMARY}.{suffix}: A row per budget and method.")
    left_out = count_of_left_out(grid.left_out) or "none"
    print(f"\nruns: {len(grid.rows)}; left out: {left_out}\n\n{sublora.report(grid)}")
    return 0


def _figures(grid: sublora.Grid) -> dict[str, Callable]:
    of_budgets = {
        f"{name}_d{d}": update_wrapper(partial(draw, d=d), draw)
        for name, draw in OF_A_BUDGET.items()
        for d in grid.budgets
    }
    return of_budgets | OF_ALL


def _warn(grid: sublora.Grid) -> None:
    """Cells without a run; keys that differ where only method, budget and seed should."""
    for (method, d), gaps in grid.missing().items():
        seeds = ", ".join(f"{seed} ({why})" for seed, why in gaps)
        print(f"warning: {method}, d = {d} has no usable run of seed {seeds}", file=sys.stderr)
    if keys := other_keys(grid):
        print(f"warning: the runs compared differ also in {', '.join(keys)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
