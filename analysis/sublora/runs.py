"""The runs of a grid: one per method, budget d and seed; what is left out, what is missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from analysis.curves import varying_keys
from plugins.load import load_sweep, load_table
from plugins.registry import UnknownName

TRAIN = "sublora/train"
METHOD, BUDGET, SEED = CELL = ("allocation.name", "subspace.d", "seed")
KL, BPD, BOUND, SIZE = "kl_divergence", "empirical_bpd", "bound_value", "compressed_size_bits"
MEASURES = (BPD, KL, BOUND, SIZE)
GAIN = "bpd_gain"  # 100 (u - x) / u: by how many percent x is below uniform's BPD u of its seed
REASON = "bound_invalid_reason"  # the column that says why bound_valid is false
UNIFORM, LEARNED = "uniform", "learned"
HEAD = -1  # its layer in the table of gates
_OPTIONAL = {BOUND: pl.Float64, "bound_valid": pl.Boolean, REASON: pl.String}


@dataclass(frozen=True)
class Grid:
    """Methods, budgets and seeds, each in its order, and at most one row per cell of them.

    rows: runs that ended well with a valid bound, and their `bpd_gain`. left_out: the other runs,
    with `why`. vocab: V, of all rows. gates: run_id, layer, gamma at the last step, of rows.
    """

    path: Path
    methods: list[str]
    budgets: list[int]
    seeds: list[int]
    rows: pl.DataFrame
    left_out: pl.DataFrame
    gates: pl.DataFrame

    @property
    def vocab(self) -> int:
        return self.rows["vocab_size"][0]

    @cached_property
    def cells(self) -> pl.DataFrame:
        """A row per budget and method: n, n_vacuous, mean and std of each measure.

        std has divisor n - 1, and is null where n = 1; of no run all are null but n = 0.
        """
        whole = pl.DataFrame(
            [(d, method) for d in self.budgets for method in self.methods],
            schema={BUDGET: self.rows.schema[BUDGET], METHOD: pl.String},
            orient="row",
        )
        measures = (*MEASURES, GAIN)
        found = self.rows.group_by(BUDGET, METHOD).agg(
            pl.len().cast(pl.Int64).alias("n"),
            pl.col("vacuous").sum().cast(pl.Int64).alias("n_vacuous"),
            *(pl.col(name).mean().alias(f"{name}_mean") for name in measures),
            *(pl.col(name).std(ddof=1).alias(f"{name}_std") for name in measures),
        )
        whole = whole.join(found, on=[BUDGET, METHOD], how="left", maintain_order="left")
        return whole.with_columns(pl.col("n", "n_vacuous").fill_null(0))

    def of_budget(self, d: int) -> list[dict]:
        """The cells of a budget that have a run, in the order of the methods."""
        return self.cells.filter(pl.col("n") > 0, pl.col(BUDGET) == d).rows(named=True)

    def by_seed(self, method: str, d: int, measure: str) -> dict[int, float]:
        """The measure of the runs of one method and budget, under their seeds."""
        rows = self.rows.filter(pl.col(METHOD) == method, pl.col(BUDGET) == d)
        return dict(rows.select(SEED, measure).rows())

    @cached_property
    def layers(self) -> list[int]:
        """The layers that have a gate, the head last."""
        return sorted(self.gates["layer"].unique(), key=lambda layer: (layer == HEAD, layer))

    def gammas(self, d: int) -> dict[int, np.ndarray]:
        """gamma_l [layers] of each run with learned gates at a budget, under its seed."""
        runs = self.rows.filter(pl.col(METHOD) == LEARNED, pl.col(BUDGET) == d)
        place = pl.col("layer").replace_strict(self.layers, list(range(len(self.layers))))
        gates = self.gates.join(runs.select("run_id", SEED), on="run_id").sort(SEED, place)
        of_seeds = gates.group_by(SEED, maintain_order=True).agg("gamma")
        return {seed: np.array(gamma) for seed, gamma in of_seeds.rows()}

    def missing(self) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Under method and budget the seeds without a row, and why."""
        there = set(self.rows.select(METHOD, BUDGET, SEED).rows())
        why = {row[:3]: row[3] for row in self.left_out.select(*CELL, "why").rows()}
        found = {}
        for d in self.budgets:
            for method in self.methods:
                cells = [(method, d, seed) for seed in self.seeds]
                gaps = [(c[2], why.get(c, "no run")) for c in cells if c not in there]
                if gaps:
                    found[method, d] = gaps
        return found


def ratio_of(method: str) -> float | None:
    """rho of fixed_<rho>."""
    return float(method.removeprefix("fixed_")) if method.startswith("fixed_") else None


def load_grid(
    path: Path | str, budgets: Iterable[int] | None = None, seeds: Iterable[int] | None = None
) -> Grid:
    """The grid of a store; None: all budgets and seeds that its runs have.

    Raises FileNotFoundError for what is no store, ValueError where no run is left, where two that
    differ share a cell, and where the vocabulary (bits per token cannot be compared) or the layers
    of gates differ.
    """
    runs = load_sweep(path, params="all", status=("ok", "diverged", "failed"))
    own = runs.filter(experiment=TRAIN)
    if own.is_empty():
        held = ", ".join(runs["experiment"].unique().sort()) or "no run at all"
        raise ValueError(f"{path} holds no run of {TRAIN}, but {held}")
    chosen = own.filter(_is_among(BUDGET, budgets), _is_among(SEED, seeds))
    if chosen.is_empty():
        held = [sorted(own[name].unique()) for name in (BUDGET, SEED)]
        raise ValueError(
            f"{path} holds no such run: its budgets are {held[0]}, its seeds {held[1]}"
        )
    absent = {name: dtype for name, dtype in _OPTIONAL.items() if name not in chosen.columns}
    chosen = chosen.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in absent.items())
    chosen = chosen.with_columns(why=_why_left_out())
    left_out = chosen.filter(pl.col("why").is_not_null())
    rows = _one_per_cell(chosen.filter(pl.col("why").is_null()))
    if rows.is_empty():
        raise ValueError(f"no run of {path} can be used: {count_of_left_out(left_out)}")
    if rows["vocab_size"].n_unique() > 1:
        vocabs = sorted(rows["vocab_size"].unique())
        raise ValueError(f"the runs of {path} have vocabularies of {vocabs}: analyse them apart")
    gates = _last_gates(path).join(rows.select("run_id"), on="run_id", how="semi")
    if gates.group_by("layer").len()["len"].n_unique() > 1:
        raise ValueError(f"the learned gates of {path} have different layers: analyse them apart")
    return Grid(
        Path(path),
        sorted(chosen[METHOD].unique(), key=_place),
        sorted(chosen[BUDGET].unique() if budgets is None else set(budgets)),
        sorted(chosen[SEED].unique() if seeds is None else set(seeds)),
        _with_gain(rows),
        left_out,
        gates,
    )


def count_of_left_out(left_out: pl.DataFrame) -> str:
    """'2 failed (OSError: no space); 1 diverged'"""
    counts = left_out.group_by("why", maintain_order=True).len().rows()
    return "; ".join(f"{n} {why}" for why, n in counts)


def other_keys(grid: Grid) -> list[str]:
    """Keys that differ between the runs of a grid beside those of its cells."""
    return [key for key in varying_keys(grid.rows) if key not in CELL]


def _is_among(column: str, values: Iterable[int] | None) -> pl.Expr:
    return pl.lit(True) if values is None else pl.col(column).is_in(list(values))


def _why_left_out() -> pl.Expr:
    """null for a run that counts."""
    lines = pl.col("error").str.strip_chars().str.split("\n").list.last()
    reason = pl.format("bound_valid=false ({})", pl.col(REASON).fill_null("no reason stored"))
    return (
        pl.when(pl.col("status") == "failed")
        .then(pl.format("failed ({})", lines.fill_null("no error stored")))
        .when(pl.col("status") == "diverged")
        .then(pl.lit("diverged"))
        .when(pl.col(BOUND).is_null())
        .then(pl.lit("without a bound"))
        .when(~pl.col("bound_valid"))
        .then(reason)
    )


def _one_per_cell(rows: pl.DataFrame) -> pl.DataFrame:
    """The first row of each cell; ValueError where another one has measured something else."""
    for cell, part in rows.group_by(CELL, maintain_order=True):
        if part.select(*MEASURES, "vacuous").n_unique() > 1:
            where = ", ".join(f"{key}={value}" for key, value in zip(CELL, cell, strict=True))
            keys = ", ".join(varying_keys(part)) or "no key"
            raise ValueError(
                f"{len(part)} runs of {where} differ in {keys}, and a cell takes one: put them "
                f"into separate stores (--output=STORE) and analyse each"
            )
    return rows.unique(CELL, keep="first", maintain_order=True)


def _place(method: str) -> tuple[int, float]:
    """uniform, fixed_<rho> by rho, learned."""
    return (method != UNIFORM) + (method == LEARNED), ratio_of(method) or 0


def _with_gain(rows: pl.DataFrame) -> pl.DataFrame:
    """With `bpd_gain` against the uniform run of the same budget and seed; null where it lacks."""
    uniform = rows.filter(pl.col(METHOD) == UNIFORM).select(BUDGET, SEED, _u=pl.col(BPD))
    rows = rows.join(uniform, on=[BUDGET, SEED], how="left", maintain_order="left")
    return rows.with_columns((100 * (1 - pl.col(BPD) / pl.col("_u"))).alias(GAIN)).drop("_u")


def _last_gates(path: Path | str) -> pl.DataFrame:
    columns: Sequence[str] = ("run_id", "layer", "gamma")
    try:
        gates = load_table(path, name="gates")
    except UnknownName:  # no run had learned gates
        schema = {"run_id": pl.String, "layer": pl.Int64, "gamma": pl.Float64}
        return pl.DataFrame(schema=schema)
    return gates.filter(pl.col("step") == pl.col("step").max().over("run_id")).select(columns)
