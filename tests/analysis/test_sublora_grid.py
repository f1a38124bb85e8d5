"""Runs of a grid: what counts, what is left out, what is missing; statistics; the summary."""

import io
import re

import numpy as np
import polars as pl
import pytest
import sublora_rows as rows
from scipy import stats
from sublora_rows import BUDGETS, METHODS, SEEDS, cells, outcome, write, write_grid

from analysis.sublora import front_of, latex, load_grid, summary
from analysis.sublora.runs import count_of_left_out, other_keys
from analysis.sublora.statistics import dominated_by, t_interval, t_test
from plugins.result import RunResult

NAMES = {  # in the summary -> in the rows
    "bpd": "empirical_bpd",
    "kl_nats": "kl_divergence",
    "bound_bpd": "bound_value",
    "size_bits": "compressed_size_bits",
}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return load_grid(write_grid(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """A failed, a diverged and an invalid run, a cell without runs."""
    runs = {cell: outcome(*cell) for cell in cells()}
    runs["fixed_0.2", 1000, 42] = ValueError("no memory")
    runs["uniform", 2000, 123] = RunResult(scalars={"mode": "uniform"}, status="diverged")
    runs["learned", 2000, 999] = outcome(
        "learned", 2000, 999, bound_valid=False, bound_invalid_reason="bound.price=paper"
    )
    for seed in SEEDS:
        del runs["fixed_0.8", 2000, seed]
    return load_grid(write(tmp_path_factory.mktemp("gaps"), runs))


def test_methods_stand_in_a_fixed_order_whatever_the_runs_have(tmp_path):
    methods = ["learned", "fixed_0.75", "uniform", "fixed_0.125", "fixed_0.5"]
    grid = load_grid(write_grid(tmp_path, cells(methods, [2000, 300], [7, 3])))
    assert grid.methods == ["uniform", "fixed_0.125", "fixed_0.5", "fixed_0.75", "learned"]
    assert (grid.budgets, grid.seeds) == ([300, 2000], [3, 7])
    table = summary(grid)
    assert table["mode"].to_list() == ["uniform", "fixed", "fixed", "fixed", "learned"] * 2
    assert table["ratio"].to_list() == [None, 0.125, 0.5, 0.75, None] * 2


def test_summary_has_means_and_standard_deviations_of_the_rows(full):
    table = pl.read_csv(io.StringIO(summary(full).write_csv()))
    assert table.columns == [
        "budget", "mode", "ratio", "bpd_mean", "bpd_std", "kl_nats_mean", "kl_nats_std",
        "bound_bpd_mean", "bound_bpd_std", "size_bits_mean", "size_bits_std", "n_seeds",
        "n_vacuous",
    ]  # fmt: skip
    assert len(table) == 10
    pairs = [(d, method) for d in BUDGETS for method in METHODS]
    for row, (d, method) in zip(table.rows(named=True), pairs, strict=True):
        runs = [outcome(method, d, seed).scalars for seed in SEEDS]
        assert (row["budget"], row["n_seeds"]) == (d, 3)
        assert row["n_vacuous"] == sum(run["vacuous"] for run in runs)
        for name, column in NAMES.items():
            values = np.array([run[column] for run in runs])
            np.testing.assert_allclose(row[f"{name}_mean"], values.mean(), rtol=1e-14)
            np.testing.assert_allclose(row[f"{name}_std"], values.std(ddof=1), rtol=1e-12)
    assert 0 < table["n_vacuous"].sum() < 30


def test_gain_is_against_uniform_of_the_same_budget_and_seed(full):
    for d in BUDGETS:
        for method in METHODS:
            for seed, gain in full.by_seed(method, d, "bpd_gain").items():
                u = outcome("uniform", d, seed).scalars["empirical_bpd"]
                x = outcome(method, d, seed).scalars["empirical_bpd"]
                assert gain == pytest.approx(100 * (u - x) / u, abs=1e-12)


def test_runs_that_do_not_count_are_counted_and_missing_cells_named(gaps):
    assert len(gaps.rows) == 24
    assert set(count_of_left_out(gaps.left_out).split("; ")) == {
        "1 failed (ValueError: no memory)",
        "1 diverged",
        "1 bound_valid=false (bound.price=paper)",
    }
    assert gaps.missing() == {
        ("fixed_0.2", 1000): [(42, "failed (ValueError: no memory)")],
        ("uniform", 2000): [(123, "diverged")],
        ("fixed_0.8", 2000): [(seed, "no run") for seed in SEEDS],
        ("learned", 2000): [(999, "bound_valid=false (bound.price=paper)")],
    }


def test_means_are_of_the_runs_that_count_and_gaps_are_no_zeros(gaps):
    table = summary(gaps)
    assert table["n_seeds"].to_list() == [3, 2, 3, 3, 3, 2, 3, 3, 0, 2]
    [row] = table.filter(pl.col("n_seeds") == 0).rows(named=True)
    assert (row["budget"], row["mode"], row["ratio"]) == (2000, "fixed", 0.8)
    assert all(row[f"{name}_{of}"] is None for name in NAMES for of in ("mean", "std"))
    [learned] = table.filter(budget=2000, mode="learned").rows(named=True)
    runs = [outcome("learned", 2000, seed).scalars["bound_value"] for seed in (42, 123)]
    assert learned["bound_bpd_mean"] == pytest.approx(np.mean(runs))
    assert set(gaps.gammas(2000)) == {42, 123}


def test_a_gain_without_its_uniform_run_is_not_there(gaps):
    assert gaps.by_seed("fixed_0.5", 2000, "bpd_gain")[123] is None
    [cell] = [c for c in gaps.of_budget(2000) if c["allocation.name"] == "fixed_0.5"]
    others = [gaps.by_seed("fixed_0.5", 2000, "bpd_gain")[seed] for seed in (42, 999)]
    assert cell["bpd_gain_mean"] == pytest.approx(np.mean(others))


def test_one_seed_has_no_standard_deviation(tmp_path):
    grid = load_grid(write_grid(tmp_path, [("fixed_0.5", 1000, 42)]))
    [row] = summary(grid).rows(named=True)
    assert row["bpd_mean"] == outcome("fixed_0.5", 1000, 42).scalars["empirical_bpd"]
    assert row["bpd_std"] is None
    assert "pm" not in latex(summary(grid))


def test_budgets_and_seeds_choose_and_what_they_lack_is_missing(tmp_path):
    store = write_grid(tmp_path)
    grid = load_grid(store, budgets=[2000, 3000], seeds=[999, 7])
    assert (grid.budgets, grid.seeds) == ([2000, 3000], [7, 999])
    assert set(grid.rows["subspace.d"]) == {2000}
    assert set(grid.rows["seed"]) == {999}
    assert grid.missing()["uniform", 2000] == [(7, "no run")]
    assert grid.missing()["learned", 3000] == [(7, "no run"), (999, "no run")]


def test_a_choice_without_runs_names_what_there_is(tmp_path):
    store = write_grid(tmp_path, cells(["uniform"]))
    with pytest.raises(ValueError, match=r"budgets are \[1000, 2000\], its seeds \[42, 123, 999\]"):
        load_grid(store, budgets=[100])


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (ValueError("no memory"), r"1 failed \(ValueError: no memory\)"),
        (RunResult(status="diverged"), "1 diverged"),
        (RunResult(scalars={"val_bpd": 3.0}), "1 without a bound"),
        (outcome("uniform", 1000, 1, bound_valid=False), r"1 bound_valid=false \(no reason stored"),
    ],
)
def test_no_run_that_counts_is_an_error_that_says_why(tmp_path, run, why):
    with pytest.raises(ValueError, match=f"no run of .* can be used: {why}"):
        load_grid(write(tmp_path, {("uniform", 1000, 1): run}))


def test_runs_of_one_cell_that_differ_are_an_error_that_names_their_keys(tmp_path):
    for lr in (0.01, 0.02):
        cell = ("uniform", 1000, 42)
        write(tmp_path, {cell: outcome(*cell, empirical_bpd=4 + lr)}, {"train.lr": lr})
    message = r"2 runs of allocation.name=uniform, subspace.d=1000, seed=42 differ in train.lr"
    with pytest.raises(ValueError, match=message + ".*separate stores"):
        load_grid(tmp_path)


def test_runs_of_one_cell_that_agree_are_one(tmp_path):
    for n in (100, 200):
        write_grid(tmp_path, [("uniform", 1000, 42), ("learned", 1000, 42)], keys={"bound.n": n})
    grid = load_grid(tmp_path)
    assert sorted(grid.rows["allocation.name"]) == ["learned", "uniform"]
    assert grid.gammas(1000)[42].shape == (rows.N_LAYER + 1,)


def test_keys_that_differ_between_cells_are_told(tmp_path):
    write_grid(tmp_path, [("uniform", 1000, 42)], keys={"train.lr": 0.01})
    write_grid(tmp_path, [("fixed_0.5", 1000, 42)], keys={"train.lr": 0.02})
    assert other_keys(load_grid(tmp_path)) == ["train.lr"]


def test_vocabularies_that_differ_are_an_error(tmp_path):
    runs = {c: outcome(*c, vocab_size=64 + c[2]) for c in cells(["uniform"], [1000], [0, 1])}
    with pytest.raises(ValueError, match=r"vocabularies of \[64, 65\]"):
        load_grid(write(tmp_path, runs))


def test_gates_of_other_layers_are_an_error(tmp_path):
    runs = {c: outcome(*c) for c in cells(["learned"], [1000], [0, 1])}
    runs["learned", 1000, 1].tables["gates"] = rows.gates({1: [0.5, 0.5]}, [0, -1])
    with pytest.raises(ValueError, match=r"learned gates of .* have different layers"):
        load_grid(write(tmp_path, runs))


def test_gates_are_those_of_the_last_step_with_the_head_last(tmp_path):
    run = outcome("learned", 1000, 5)
    history = {100: [0.3, 0.1, 0.2], 20: [0.9, 0.9, 0.9]}
    run.tables["gates"] = rows.gates(history, [-1, 0, 1])
    grid = load_grid(write(tmp_path, {("learned", 1000, 5): run}))
    assert grid.layers == [0, 1, -1]
    np.testing.assert_array_equal(grid.gammas(1000)[5], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("seed", range(20))
def test_front_is_that_of_all_pairs(seed):
    """Coarse values, so that ties occur: equal points dominate neither."""
    points = np.random.default_rng(seed).integers(0, 4, size=(7, 2)).astype(float)
    found = dominated_by({str(i): point for i, point in enumerate(points)})
    for i, (x, y) in enumerate(points):
        by = [str(j) for j, (u, v) in enumerate(points) if (u < x and v <= y) or (u <= x and v < y)]
        assert found[str(i)] == by


def test_front_of_a_grid_is_that_of_the_means(full):
    for d in BUDGETS:
        means = summary(full).filter(budget=d).select("kl_nats_mean", "bpd_mean").rows()
        front = {
            method
            for method, (kl, bpd) in zip(METHODS, means, strict=True)
            if not any(u <= kl and v <= bpd and (u, v) != (kl, bpd) for u, v in means)
        }
        assert {method for method, by in front_of(full, d).items() if not by} == front


def test_interval_and_test_are_student_s():
    values = [0.3, -0.1, 0.25, 0.4]
    test = stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(t_interval(values), test.confidence_interval(0.95))
    assert t_test(values) == pytest.approx(test.pvalue)
    assert t_interval(values[:2]) is t_test(values[:2]) is None
    assert t_interval([0.5] * 3) is t_test([0.5] * 3) is None


def test_latex_is_a_booktabs_tabular_of_the_summary(gaps):
    lines = latex(summary(gaps)).splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs}"
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 2 + 10
    columns = re.fullmatch(r"\\begin{tabular}{([lr]+)}", lines[2])[1]
    assert {line.count("&") for line in body} == {len(columns) - 1}
    assert [line for line in lines if line.startswith("\\") and line not in body] == [
        lines[2], r"\toprule", r"\midrule", r"\midrule", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert all(line.count("$") % 2 == 0 for line in body)
    assert not any("_" in line for line in body)
    assert r"2000 & fixed & 0.8 & -- & -- & -- & -- & 0 & 0 \\" in body
    [uniform] = summary(gaps).filter(budget=1000, mode="uniform").rows(named=True)
    bpd = f"${uniform['bpd_mean']:.3f} \\pm {uniform['bpd_std']:.3f}$"
    assert body[2].startswith(f"1000 & uniform & -- & {bpd} & ")
