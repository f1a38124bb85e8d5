"""The page of a report: what its sections hold, rendered by templates/report.html."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.report import configs, progress
from analysis.report.cells import Table, duration, number
from analysis.report.cost import Cost, cost
from analysis.report.figures import (
    Curves,
    FamilyFigures,
    draw_curves,
    draw_family,
    main_scalars,
)
from analysis.report.finals import Scalars, scalar_tables
from analysis.report.origin import provenance
from analysis.report.runs import StoredRuns, read_runs
from plugins.provenance import code_version
from plugins.status import PlanStatus, store_status


@dataclass(frozen=True)
class Results:
    """The sections that need runs."""

    curves: Curves
    families: list[FamilyFigures]
    scalars: Scalars
    provenance: list[tuple[str, list[str]]]
    cost: Cost


@dataclass(frozen=True)
class Page:
    """What the template shows; no `results` while no run has ended."""

    title: str
    runs: StoredRuns
    fixed: list[tuple[str, str]]
    varying: Table
    commands: list[str]
    counts: Table
    n_asked: int  # by the plans of the store
    n_missing: int  # of these, without a row
    plans: Table
    differences: Table
    configs: Table
    results: Results | None
    made: str
    version: str


def write_report(store: Path, output: Path, say: Callable[[str], None]) -> int:
    """One self-contained HTML page of a store, of any family and size; `say` is told of progress.

    Returns how many figures ended with an error, which the page names.

    Raises FileNotFoundError for what is no store, ValueError for one without a run or a plan, and
    what reading a damaged store raises.
    """
    say("the runs")
    runs = read_runs(store)
    plans = store_status(store)
    if runs.rows.is_empty() and not plans:
        raise ValueError(f"{store} holds neither a run nor a plan of one")
    page = _page(runs, plans, say)
    say("the page")
    output.write_text(_environment().get_template("report.html").render(page=page))
    return sum(len(family.broken) for family in page.results.families) if page.results else 0


def _page(runs: StoredRuns, plans: list[PlanStatus], say: Callable[[str], None]) -> Page:
    store = runs.store
    n_asked, n_missing = progress.missing_runs(store, runs)
    experiments = dict.fromkeys(config.config["experiment"] for config in runs.configs.values())
    experiments = experiments or dict.fromkeys(plan.settings.experiment for plan in plans)
    return Page(
        f"{store.resolve().name}: {', '.join(experiments)}",
        runs,
        configs.fixed_keys(runs),
        configs.varying_keys(runs),
        progress.commands(plans),
        progress.counts(runs),
        n_asked,
        n_missing,
        progress.plan_table(plans),
        configs.differences(runs),
        configs.config_table(runs),
        None if runs.rows.is_empty() else _results(runs, say),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        f"{version('dynascope')}, code {code_version() or 'outside of git'}",
    )


def _results(runs: StoredRuns, say: Callable[[str], None]) -> Results:
    main = [name for family in runs.families for name in main_scalars(family)]
    return Results(
        draw_curves(runs, say),
        [draw_family(runs, family, say) for family in runs.families],
        scalar_tables(runs, main),
        provenance(runs),
        cost(runs),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "number": lambda x: number(x).text}
    return environment
