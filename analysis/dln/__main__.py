"""`python -m analysis.dln STORE... -o DIR`: every figure that the runs of a sweep of dln allow."""

import sys
from collections.abc import Sequence

import matplotlib

from analysis.arguments import check_parent, parser_of
from analysis.dln.store_figures import STATUS, figures_of_runs
from analysis.measured import write_figures
from plugins.load import load_sweep

_EXAMPLES = """\
example:
  python -m analysis.dln outputs/dln/gph -o outputs/dln/gph/figures
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(
        "dln",
        "Write every figure that the runs of a sweep of dln allow.",
        _EXAMPLES,
        several=True,
        output="folder for the .png files, made if its parent is there",
    )
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    try:
        df = load_sweep(*arguments.stores, params="all", status=STATUS)
        check_parent(arguments.output)
        arguments.output.mkdir(exist_ok=True)
        write_figures(figures_of_runs(df), arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
