"""`python -m analysis.compressor STORE -o DIR`: figures and report of a sweep of compressor."""

import sys
from collections.abc import Sequence

import matplotlib

from analysis import compressor
from analysis.arguments import check_parent, parser_of
from analysis.compressor.store_figures import OF_A_RUN, OVER_RUNS
from analysis.measured import NotMeasured, figures_of, write_figures
from analysis.panels import run_name

REPORT = "report.txt"
_EXAMPLES = """\
examples:
  python -m analysis.compressor outputs/compressor/compressor_sweep -o figures
  python -m analysis.compressor outputs/compressor/compressor -o figures --run 0123456789abcdef
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(
        "compressor",
        "Write every figure that the runs of a sweep of compressor allow, and a report.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--run",
        metavar="ID",
        help="the run whose modes and spectrum are drawn (default: the first that ended well)",
    )
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    output = arguments.output
    try:
        store = compressor.load_store(arguments.store)
        run = _run(store, arguments.run)
        check_parent(output)
        output.mkdir(exist_ok=True)
        write_figures(figures_of(OVER_RUNS, store), output)
        if run is not None:
            if len(store.rows) > 1:
                name = run_name(run.row)
                print(f"\nof run {run.row['run_id']}, {name}; another one with --run:")
            write_figures(figures_of(OF_A_RUN, run), output)
        answers = compressor.report(store)
        (output / REPORT).write_text(answers)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output / REPORT}: What the runs answer.\n\n{answers}")
    return 0


def _run(store: compressor.Store, run_id: str | None) -> compressor.Run | None:
    """The run to draw; None where no compressor ended."""
    try:
        return compressor.load_run(store, run_id)
    except NotMeasured as error:
        print(f"no {', '.join(f'{name}.png' for name in OF_A_RUN)}: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
