"""`python -m analysis.memdyn STORE -o DIR`: figures, summary and report of the runs of a sweep."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl

from analysis.arguments import check_parent, parser_of
from analysis.curves import key_values, varying_keys
from analysis.measured import StoreFigure, write_figures
from analysis.memdyn.runs import (
    SUMMARY,
    passage_data,
    runs_of,
    settings_of,
    training_summary,
)
from analysis.memdyn.store_figures import figures_of_run, figures_over_seeds
from analysis.runs import choose_run
from memdyn.theory import generate_summary_report

REPORT = "summary_report.txt"
_EXAMPLES = """\
examples:
  python -m analysis.memdyn outputs/memdyn -o outputs/memdyn/analysis
  python -m analysis.memdyn outputs/memdyn -o strict --run 0123456789abcdef --threshold 0.8
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    matplotlib.use("Agg")
    store, output = arguments.store, arguments.output
    given = {name: getattr(arguments, name) for name in ("threshold", "alpha", "min_effect")}
    given = {name: value for name, value in given.items() if value is not None}
    answers, summaries = [], []
    try:
        runs = runs_of(store)
        if arguments.run is not None:
            runs = runs.filter(run_id=choose_run(runs, arguments.run, store)["run_id"])
        check_parent(output)
        for run in runs.iter_rows(named=True):
            folder = output if len(runs) == 1 else output / run["run_id"]
            settings = settings_of(store, run["run_id"]) | given
            summary, report = _write(store, run, folder, settings)
            summaries.append(summary)
            answers.append(f"{_name(run, runs)}\n{_answer(report)}")
        if len(runs) > 1:
            _write_figures(figures_over_seeds(runs, summaries), output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("", *answers, sep="\n\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "memdyn",
        "Write the figures, the summary and the report of each run of a sweep of memdyn; of "
        "several runs also means over seeds.",
        _EXAMPLES,
        output="folder to write to, made if its parent is there; with several runs a folder for "
        "each",
    )
    parser.add_argument("--run", metavar="ID", help="this run only")
    parser.add_argument(
        "--threshold",
        type=_number(lambda x: 0 < x <= 1, "in (0, 1]"),
        help="accuracy from which a passage is memorized (default: the run's)",
    )
    parser.add_argument(
        "--alpha",
        type=_number(lambda x: 0 < x < 1, "in (0, 1)"),
        help="level of the tests (default: the run's)",
    )
    parser.add_argument(
        "--min-effect",
        type=_number(lambda x: 0 < x < float("inf"), "> 0"),
        metavar="SDS",
        help="SDs of the passages that a rise or fall must have (default: the run's)",
    )
    return parser


def _number(is_valid: Callable[[float], bool], accepted: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not is_valid(value):
            raise argparse.ArgumentTypeError(f"must be a number {accepted}, got {text}")
        return value

    return parse


def _write(
    store: Path, run: Mapping[str, Any], folder: Path, settings: Mapping[str, float]
) -> tuple[pl.DataFrame, str]:
    """All files of one run, printing each; its summary and its report."""
    data = passage_data(store, run["run_id"])
    _write_figures(figures_of_run(data, settings), folder)
    summary = training_summary(store, run, data, settings["threshold"])
    summary.write_csv(folder / SUMMARY)
    print(f"{folder / SUMMARY}: A line per measured epoch.")
    is_diverged = run["status"] == "diverged"
    report = generate_summary_report(data, **settings, diverged=is_diverged)
    (folder / REPORT).write_text(report)
    print(f"{folder / REPORT}: The answer, then every analysis.")
    return summary, report


def _write_figures(figures: Iterable[StoreFigure], output: Path) -> None:
    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    write_figures(figures, folder)


def _name(run: Mapping[str, Any], runs: pl.DataFrame) -> str:
    """'run 0123456789abcdef, seed = 1, diverged'"""
    keys = key_values({key: run[key] for key in varying_keys(runs)})
    status = "" if run["status"] == "ok" else run["status"]
    return ", ".join(filter(None, [f"run {run['run_id']}", keys, status]))


def _answer(report: str) -> str:
    """Its sections up to the answer."""
    return "\n\n".join(report.split("\n\n")[:2])


if __name__ == "__main__":
    sys.exit(main())
