"""Three hypotheses on where coordinates should go, as statistics over seeds.

H1: sharing them between A and B in another way than uniform, or than half and half, changes the
bound and the BPD. H2: learned gates part from one half. H3: they change with depth.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control, linregress

from analysis.curves import LEVEL
from analysis.sublora.front import front_of
from analysis.sublora.runs import BOUND, BPD, HEAD, UNIFORM, Grid, ratio_of
from analysis.sublora.statistics import FEWEST, t_interval, t_test
from analysis.text_tables import text_table

_Q = 1 - LEVEL  # largest false discovery rate
_INTERVAL = f"{100 * LEVEL:g} % interval"


def differences(grid: Grid) -> pl.DataFrame:
    """H1: method - uniform and method - fixed_0.5 of the same budget and seed; bits per token.

    Columns d, method, minus, measure (bound_value, empirical_bpd), values (a list, by seed), mean,
    low, high; a row per pair that has a seed in common. low and high are null without an interval.
    """
    references = [name for name in grid.methods if name == UNIFORM or ratio_of(name) == 0.5]
    rows = []
    for d in grid.budgets:
        for reference in references:
            for method in (name for name in grid.methods if name != reference):
                for measure in (BOUND, BPD):
                    ours = grid.by_seed(method, d, measure)
                    theirs = grid.by_seed(reference, d, measure)
                    values = [ours[s] - theirs[s] for s in grid.seeds if s in ours and s in theirs]
                    if values:
                        rows.append((d, method, reference, measure, *_statistics(values)))
    return _frame(rows, {"method": pl.String, "minus": pl.String, "measure": pl.String})


def gate_tests(grid: Grid) -> pl.DataFrame:
    """H2: gamma_l - 0.5, a row per budget and layer (the head is -1).

    Columns d, layer, values, mean, low, high, p (t test of 0), q (Benjamini & Hochberg 1995 over
    the layers of the budget that have a p).
    """
    rows, q = [], []
    for d in grid.budgets:
        gammas = np.array(list(grid.gammas(d).values()))
        tests = []
        for layer, values in zip(grid.layers, gammas.T - 0.5, strict=False):
            tests.append(t_test(values))
            rows.append((d, layer, *_statistics(values), tests[-1]))
        controlled = iter(false_discovery_control([p for p in tests if p is not None]))
        q += [None if p is None else next(controlled) for p in tests]
    frame = _frame(rows, {"layer": pl.Int64}, {"p": pl.Float64})
    return frame.with_columns(pl.Series("q", q, dtype=pl.Float64))


def slopes(grid: Grid) -> pl.DataFrame:
    """H3: least-squares slope of gamma_l against the layer, without the head, a value per seed.

    Columns d, values, mean, low, high; a row per budget that has learned gates in two layers.
    """
    blocks = [layer for layer in grid.layers if layer != HEAD]
    rows = []
    for d in grid.budgets:
        gammas = grid.gammas(d).values()
        if gammas and len(blocks) > 1:
            values = [linregress(blocks, gamma[: len(blocks)]).slope for gamma in gammas]
            rows.append((d, *_statistics(values)))
    return _frame(rows, {})


def report(grid: Grid) -> str:
    """The three, each as a table and what it says."""
    return "\n".join([*_h1(grid), "", *_h2(grid), "", *_h3(grid)])


def _h1(grid: Grid) -> list[str]:
    lines = [
        "H1: another allocation has another bound and BPD (method - reference of the same seed,",
        "bits per token; below 0: better than the reference)",
    ]
    found = differences(grid)
    if found.is_empty():
        lines.append("  not told: no run of uniform or fixed_0.5 beside another method")
    else:
        rows = []
        for _, pair in found.group_by("d", "method", "minus", maintain_order=True):
            bound, bpd = pair.rows(named=True)
            rows.append(
                {"d": str(bound["d"]), "method": bound["method"], "minus": bound["minus"]}
                | {
                    "n": str(len(bound["values"])),
                    "bound": _mean(bound),
                    _INTERVAL: _interval(bound),
                }
                | {"BPD": _mean(bpd), f"{_INTERVAL} ": _interval(bpd)}
            )
        lines.append(text_table(rows, "  ").rstrip("\n"))
        lines.append(f"  {_many(found)}")
    for d in grid.budgets:
        if front := front_of(grid, d):
            best = ", ".join(name for name, by in front.items() if not by)
            lines.append(f"  front of (KL, BPD) at d = {d}: {best}")
            lines += [
                f"    {name} is dominated by {', '.join(by)}" for name, by in front.items() if by
            ]
    return lines


def _h2(grid: Grid) -> list[str]:
    lines = ["H2: learned gates part from one half (gamma_l - 0.5; above 0: more to B than to A)"]
    found = gate_tests(grid)
    if found.is_empty():
        return [*lines, "  not told: no learned gates"]
    rows = [
        {"d": str(row["d"]), "layer": _layer(row["layer"]), "n": str(len(row["values"]))}
        | {
            "gamma - 0.5": _mean(row),
            _INTERVAL: _interval(row),
            "p": _p(row["p"]),
            "q": _p(row["q"]),
        }
        for row in found.rows(named=True)
    ]
    lines.append(text_table(rows, "  ").rstrip("\n"))
    for (d,), of in found.group_by("d", maintain_order=True):
        if of["q"].count():
            apart = [_layer(layer) for layer in of.filter(pl.col("q") < _Q)["layer"]]
            lines.append(f"  d = {d}, layers with q < {_Q:.2g}: {', '.join(apart) or 'none'}")
        alike = of.filter(pl.col("p").is_null(), pl.col("values").list.len() >= FEWEST)["layer"]
        if len(alike):
            names = ", ".join(map(_layer, alike))
            lines.append(f"  d = {d}, equal in all seeds, so not tested: {names}")
    lines.append(
        "  p: t test; q: false discovery rate over the layers of one d (Benjamini-Hochberg)"
    )
    return lines


def _h3(grid: Grid) -> list[str]:
    lines = ["H3: gamma_l changes with depth (slope per layer, without the head)"]
    found = slopes(grid)
    if found.is_empty():
        return [*lines, "  not told: no learned gates in two layers"]
    rows = [
        {"d": str(row["d"]), "n": str(len(row["values"])), "mean slope": f"{row['mean']:+.4f}"}
        | {_INTERVAL: _interval(row), "of each seed": ", ".join(f"{v:+.4f}" for v in row["values"])}
        for row in found.rows(named=True)
    ]
    lines.append(text_table(rows, "  ").rstrip("\n"))
    for row in found.drop_nulls("low").rows(named=True):
        sign = "rises" if row["low"] > 0 else "falls" if row["high"] < 0 else "no change is shown"
        lines.append(f"  d = {row['d']}, towards the head: {sign}")
    return lines


def _statistics(values: Sequence[float]) -> tuple[list[float], float, float | None, float | None]:
    return list(values), float(np.mean(values)), *(t_interval(values) or (None, None))


def _frame(rows: list[tuple], keys: dict, more: dict | None = None) -> pl.DataFrame:
    numbers = dict.fromkeys(("mean", "low", "high"), pl.Float64)
    schema = {"d": pl.Int64, **keys, "values": pl.List(pl.Float64), **numbers, **(more or {})}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _mean(row: dict) -> str:
    """The mean; under 3 seeds the values."""
    if len(row["values"]) < FEWEST:
        return ", ".join(f"{value:+.4f}" for value in row["values"])
    return f"{row['mean']:+.4f}"


def _interval(row: dict) -> str:
    """With a star where 0 is outside."""
    if row["low"] is None:
        return "-"
    star = "* " if row["low"] > 0 or row["high"] < 0 else ""
    return f"{star}{row['low']:+.4f} .. {row['high']:+.4f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _layer(layer: int) -> str:
    return "head" if layer == HEAD else str(layer)


def _many(found: pl.DataFrame) -> str:
    n = found["low"].count()
    if not n:
        return f"no interval: it takes {FEWEST} seeds; of fewer the values are listed"
    by_chance = f"{(1 - LEVEL) * n:.2g}"
    return f"* without 0, as about {by_chance} of {n} such intervals are by chance alone"
