"""The table of all methods and budgets: as .csv for programs, as .tex for papers."""

import polars as pl

from analysis.sublora.runs import BOUND, BPD, BUDGET, KL, METHOD, SIZE, Grid, ratio_of

_NAMES = {BPD: "bpd", KL: "kl_nats", BOUND: "bound_bpd", SIZE: "size_bits"}
_HEADERS = {  # column -> header, unit, digits in .tex
    "bpd": ("BPD", "bits/token", 3),
    "kl_nats": ("KL", "nats", 1),
    "bound_bpd": ("Bound", "bits/token", 3),
    "size_bits": ("Size", "bits", 1),
}
_PREAMBLE = r"""% needs \usepackage{booktabs}
% mean and standard deviation (divisor n - 1) over the n seeds; vacuous: runs with bound >= log2 V
"""


def summary(grid: Grid) -> pl.DataFrame:
    """A row per budget and method: budget, mode, ratio, mean and std of four, n_seeds, n_vacuous.

    std is null for one seed; means and std are null for a cell without a run.
    """
    methods = grid.cells[METHOD]
    measures = [
        pl.col(f"{column}_{of}").alias(f"{name}_{of}")
        for column, name in _NAMES.items()
        for of in ("mean", "std")
    ]
    return grid.cells.select(
        pl.col(BUDGET).alias("budget"),
        pl.Series("mode", [method.partition("_")[0] for method in methods], dtype=pl.String),
        pl.Series("ratio", [ratio_of(method) for method in methods], dtype=pl.Float64),
        *measures,
        pl.col("n").alias("n_seeds"),
        "n_vacuous",
    )


def latex(table: pl.DataFrame) -> str:
    """A summary as a booktabs tabular; a rule between budgets, `--` for what is not there."""
    head = [
        r"$d$",
        "Mode",
        r"$\rho$",
        *(name for name, _, _ in _HEADERS.values()),
        "$n$",
        "Vacuous",
    ]
    units = ["", "", "", *(f"({unit})" for _, unit, _ in _HEADERS.values()), "", ""]
    lines = [r"\begin{tabular}{rlrrrrrrr}", r"\toprule", _row(head), _row(units)]
    previous = None
    for row in table.iter_rows(named=True):
        if row["budget"] != previous:
            lines.append(r"\midrule")
            previous = row["budget"]
        ratio = "--" if row["ratio"] is None else f"{row['ratio']:g}"
        measures = [
            _mean_and_std(row[f"{name}_mean"], row[f"{name}_std"], digits)
            for name, (_, _, digits) in _HEADERS.items()
        ]
        counts = [str(row["n_seeds"]), str(row["n_vacuous"])]
        lines.append(_row([str(row["budget"]), row["mode"], ratio, *measures, *counts]))
    return _PREAMBLE + "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _mean_and_std(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return "--"
    return f"${mean:.{digits}f}$" if std is None else f"${mean:.{digits}f} \\pm {std:.{digits}f}$"
