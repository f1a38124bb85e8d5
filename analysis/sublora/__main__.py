"""`python -m analysis.sublora STORE -o DIR`: figures, summary and hypotheses of a grid of runs."""

import sys
from collections.abc import Sequence

import matplotlib

from analysis import sublora
from analysis.arguments import check_parent, parser_of
from analysis.measured import write_figures
from analysis.sublora.runs import count_of_left_out, other_keys
from analysis.sublora.store_figures import figures_of_grid

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
        write_figures(figures_of_grid(grid), output)
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


def _warn(grid: sublora.Grid) -> None:
    """Cells without a run; keys that differ where only method, budget and seed should."""
    for (method, d), gaps in grid.missing().items():
        seeds = ", ".join(f"{seed} ({why})" for seed, why in gaps)
        print(f"warning: {method}, d = {d} has no usable run of seed {seeds}", file=sys.stderr)
    if keys := other_keys(grid):
        print(f"warning: the runs compared differ also in {', '.join(keys)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
