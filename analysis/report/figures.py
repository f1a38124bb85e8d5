"""Figures of a report: curves over seeds, and those of the runs' families."""

import base64
import importlib
import importlib.util
import io
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from analysis.curves import LEVEL, SeedStatistics, over_seeds, varying_keys
from analysis.labels import with_fixed
from analysis.measured import NotMeasured, figure_of, is_seed, leading_keys
from analysis.panels import Variant, draw_groups, plot_run
from analysis.report.runs import StoredRuns
from plugins.experiment import families

_PANELS = 9  # of a figure
_MOST_CURVES = 45  # that are drawn
_MOST_LINES = 60  # of a panel
_DPI = 110
_RECORD = "_record"  # the steps as a curve: every run has them


@dataclass(frozen=True)
class Drawn:
    """A figure as the page holds it."""

    name: str
    caption: str
    png: str  # base64


@dataclass(frozen=True)
class Curves:
    """Figures of the curves, of those with a list per record; the names that are left out."""

    figures: list[Drawn]
    lists: list[Drawn]
    left_out: list[str]


@dataclass(frozen=True)
class FamilyFigures:
    """A family's own figures, why others are not there, and those that ended with an error."""

    family: str
    figures: list[Drawn]
    not_drawn: list[str]
    broken: list[str]


def draw_curves(runs: StoredRuns, say: Callable[[str], None]) -> Curves:
    """Means over the runs that agree in the leading keys, a panel per curve."""
    ended = runs.rows.filter(pl.col("status") != "failed")
    if ended.is_empty():
        return Curves([], [], [])
    many = [key for key in runs.group_keys if ended[key].n_unique() > _MOST_LINES]
    by = leading_keys(ended.drop(many))
    schema = runs.scan.collect_schema()
    lists = [name for name in runs.curves if isinstance(schema[name].inner, pl.List)]
    names = sorted(set(runs.curves) - set(lists), key=lambda n: (_place(n), runs.curves.index(n)))
    drawn: dict[str, SeedStatistics] = {}
    left_out = []
    for i, name in enumerate(names):
        if len(drawn) == _MOST_CURVES:
            left_out = names[i:]
            break
        say(f"curve {name} ({i + 1} of {len(names)})")
        statistics = over_seeds(runs.scan, name, by)
        if len(statistics.curves):
            drawn[name] = statistics
    left_out += lists[_PANELS:]
    of_one_run = list(_of_one_run(runs, lists[:_PANELS]))
    if not drawn:
        return Curves([], of_one_run, left_out)
    records = over_seeds(runs.scan.with_columns(pl.col("step").alias(_RECORD)), _RECORD, by)
    chunks = [list(drawn)[i : i + _PANELS] for i in range(0, len(drawn), _PANELS)]
    figures = []
    for i, chunk in enumerate(chunks):
        statistics = {name: drawn[name] for name in chunk}
        panels = {name: {name: Variant()} for name in chunk}
        axes = draw_groups(with_fixed(ended, runs.fixed), by, panels, statistics, records)
        figures.append(
            _drawn(f"curves_{i + 1}", _caption(runs.rows, by, statistics), axes[0].figure)
        )
    return Curves(figures, of_one_run, left_out)


def _place(name: str) -> tuple[bool, bool]:
    """Losses first, last what one metric has numbered (`sv_0`, `sv_1`, ...)."""
    return name.split("_")[-1].isdecimal(), "loss" not in name


def _caption(rows: pl.DataFrame, by: Sequence[str], drawn: Mapping[str, SeedStatistics]) -> str:
    n = np.concatenate([s.curves["n"].to_numpy() for s in drawn.values()])
    others = [key for key in varying_keys(rows, by) if not is_seed(key)]
    counts = f"{n.min():,}" if n.min() == n.max() else f"{n.min():,} to {n.max():,}"
    of_what = f" of each {', '.join(by)}" if by else ""
    is_banded = any(s.curves["high"].is_not_null().any() for s in drawn.values())
    band = f"band: {100 * LEVEL:g} % t interval of the mean over runs" if is_banded else "no band"
    over = f"Means over the runs{of_what} that have the step (n = {counts} runs a point; {band})"
    if n.max() == 1:
        over = f"One run{of_what} (n = 1)"
    mixed = f"; runs of a line differ in {', '.join(others)}" if others else ""
    mixed += " and a line jumps where their steps do" if others and n.min() < n.max() else ""
    return f"{over}{mixed}: {', '.join(drawn)}."


def _of_one_run(runs: StoredRuns, lists: Sequence[str]) -> Iterator[Drawn]:
    """Curves with a list per record, of the first run that ended well (else that diverged)."""
    ended = runs.rows.filter(pl.col("status") != "failed")
    ended = ended.sort(pl.col("status") != "ok", maintain_order=True)
    if not lists or ended.is_empty():
        return
    run_id = ended["run_id"][0]
    columns = [*runs.keys, "step", *lists, "run_id", "status"]
    row = runs.scan.filter(pl.col("run_id") == run_id).select(columns).collect(engine="streaming")
    row = row.drop([name for name in lists if row[name].null_count()])
    if measured := [name for name in lists if name in row.columns]:
        what = f"curves with a list per record, a line per component: {', '.join(measured)}"
        yield _drawn("list_curves", f"Run {run_id} (n = 1), {what}.", plot_run(row)[0].figure)


def draw_family(runs: StoredRuns, family: str, say: Callable[[str], None]) -> FamilyFigures:
    """What the family's `store_figures` gives; the figures that the runs do not allow by name.

    A figure that ends with another error is named on the page, its traceback goes to stderr: a
    page of ten figures does not fall with one of them.
    """
    found = FamilyFigures(family, [], [], [])
    module = figures_module(family)
    figures = module.store_figures(runs.store) if module else iter(())
    try:
        for name, caption, draw in figures:
            say(f"figure {name} of {family}")
            try:
                found.figures.append(_drawn(name, caption, figure_of(draw())))
            except NotMeasured as error:
                found.not_drawn.append(f"{name} ({error})")
            except Exception as error:
                traceback.print_exc()
                found.broken.append(f"{name} ({type(error).__name__}: {error})")
    except (ValueError, OSError) as error:  # no run of the family ended, or none can be used
        found.not_drawn.append(f"figures of {family} ({error})")
    return found


def main_scalars(family: str) -> tuple[str, ...]:
    """The scalars that the family's module of figures names as the first to be read."""
    return getattr(figures_module(family), "MAIN_SCALARS", ())


def figures_module(family: str) -> ModuleType | None:
    """analysis/<family>/store_figures.py, or a third party's <package>/figures.py, if any."""
    known = families()
    if family not in known:
        return None
    own = f"analysis.{family}"
    package, name = (
        (known[family].package, "figures") if known[family].entry else (own, "store_figures")
    )
    if importlib.util.find_spec(package) is None:
        return None
    path = f"{package}.{name}"
    return importlib.import_module(path) if importlib.util.find_spec(path) else None


def _drawn(name: str, caption: str, figure: Figure) -> Drawn:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, facecolor="white")
    plt.close(figure)
    return Drawn(name, caption, base64.b64encode(file.getvalue()).decode())
