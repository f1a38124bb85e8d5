"""`python -m analysis.report STORE -o report.html`: one HTML page of a store."""

import sys
import time
from collections.abc import Callable, Sequence

import matplotlib

from analysis.arguments import check_parent, parser_of
from analysis.report.page import write_report

_QUIET = 2.0  # seconds of work before a line tells what is being done, and between two lines
_EXAMPLES = """\
examples:
  python -m analysis.report outputs/dln/gph_demo -o report.html
  python -m analysis.report docs/data/sublora_markov -o sublora.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(
        "report",
        "Write one HTML page of a store, of any family: what was asked, what became of it, curves, "
        "figures, final scalars over seeds, provenance and cost. It needs no other file and no "
        "connection. Exit status 1: a figure ended with an error, which the page names.",
        _EXAMPLES,
        output="page to write, .html",
        metavar="FILE",
    )
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    output = arguments.output
    try:
        if output.suffix != ".html":
            raise ValueError(f"cannot write {output}: a report's name ends in .html")
        check_parent(output)
        n_broken = write_report(arguments.store, output, _progress())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 1 if n_broken else 0


def _progress() -> Callable[[str], None]:
    """Says on stderr what is being done, while it takes long."""
    last = time.monotonic()

    def say(what: str) -> None:
        nonlocal last
        if time.monotonic() - last > _QUIET:
            print(f"report: {what}", file=sys.stderr, flush=True)
            last = time.monotonic()

    return say


if __name__ == "__main__":
    sys.exit(main())
