"""`python -m analysis.qlora_probe STORE -o DIR`: figures, answers and report of a sweep."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import polars as pl

from analysis import qlora_probe
from analysis.arguments import check_parent, parser_of
from analysis.measured import NotMeasured, figures_of, write_figures
from analysis.panels import run_name
from analysis.qlora_probe.answers import as_text
from analysis.qlora_probe.runs import Run
from analysis.qlora_probe.store_figures import OF_A_RUN, OVER_RUNS

GENERATIONS, REPORT = "generations", "report.txt"
_EXAMPLES = """\
examples:
  python -m analysis.qlora_probe outputs/qlora_lr_sweep -o outputs/qlora_lr_sweep/analysis
  python -m analysis.qlora_probe outputs/qlora_extreme_lr -o figures --run 0123456789abcdef
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    matplotlib.use("Agg")
    store, output = arguments.store, arguments.output
    try:
        runs = qlora_probe.runs_of(store)
        run = qlora_probe.load_run(store, arguments.run)
        check_parent(output)
        output.mkdir(exist_ok=True)
        write_figures(figures_of(OVER_RUNS, runs), output)
        if len(runs) > 1:
            name = run_name(run.row)
            print(f"\nof run {run.row['run_id']}, {name}; another one with --run:")
        write_figures(figures_of(OF_A_RUN, run), output)
        _write_generations(store, runs, output)
        answers = qlora_probe.report(runs)
        (output / REPORT).write_text(answers)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output / REPORT}: What the runs answer.\n\n{answers}")
    if len(runs) == 1:
        _print_answers(run)
    return 0


def _parser() -> ArgumentParser:
    parser = parser_of(
        "qlora_probe",
        "Write every figure that the runs of a sweep of qlora_probe allow, the answers of base "
        "and tuned models, and a report.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--run",
        metavar="ID",
        help="the run whose own figures are drawn (default: the first that ended well)",
    )
    return parser


def _write_generations(store: Path, runs: pl.DataFrame, output: Path) -> None:
    """generations.md and .csv; with several runs generations/<run_id>.md and .csv."""
    path, n_written, missing = output / f"{GENERATIONS}.md", 0, []
    for row in runs.filter(pl.col("status") != "failed").iter_rows(named=True):
        if len(runs) > 1:
            path = output / GENERATIONS / f"{row['run_id']}.md"
        try:
            qlora_probe.write_generations(Run(store, row), path)
        except NotMeasured as error:
            missing.append(error)
        else:
            n_written += 1
    if missing:
        more = f" (and {len(missing) - 1} more runs)" if len(missing) > 1 else ""
        print(f"no {GENERATIONS}: {missing[0]}{more}", file=sys.stderr)
    if n_written:
        where = path if len(runs) == 1 else f"{path.parent}/, {n_written} runs"
        print(f"{where}, .csv beside: Answers of base and tuned model to each prompt.")


def _print_answers(run: Run) -> None:
    try:
        print(as_text(qlora_probe.paired_answers(run)))
    except NotMeasured:  # said where generations.md is written
        return


if __name__ == "__main__":
    sys.exit(main())
