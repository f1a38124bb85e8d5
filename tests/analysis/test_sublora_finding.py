"""The numbers of docs/sublora.md, computed anew from the store that holds its runs."""

import polars as pl
import pytest

from analysis.sublora import differences, gate_tests, load_grid, slopes, summary
from plugins.load import load_sweep
from sublora.bounds import bound, delta_range, kl_nats
from sublora.decode import decode


@pytest.fixture(scope="module")
def store(request):
    return request.config.rootpath / "docs" / "data" / "sublora_markov"


@pytest.fixture(scope="module")
def grid(store):
    return load_grid(store, None, None)


def test_table_of_the_page(grid, root):
    """Every row of it, but for the risk on fresh documents, which the store does not hold."""
    page, rows = (root / "docs" / "sublora.md").read_text(), []
    for row in summary(grid).iter_rows(named=True):
        name = row["mode"] if row["ratio"] is None else f"{row['mode']}_{row['ratio']:g}"
        start = f"| {name} | {row['bound_bpd_mean']:.3f} | {row['bound_bpd_std']:.3f}"
        start = start.replace("| 0.", "| .") + f" | {row['bpd_mean']:.3f} | "
        end = f" | {row['kl_nats_mean']:.0f} | {row['size_bits_mean']:.0f} | {row['n_vacuous']} |"
        rows.append((start, end))
    assert len(rows) == 10
    for start, end in rows:
        [line] = [line for line in page.splitlines() if start in line]
        assert line.endswith(end)


def test_rows_are_the_formulas(store):
    """bound = risk + Delta (sqrt + sqrt) of the row's own L, risk, m and n."""
    for row in load_sweep(store, params="all").iter_rows(named=True):
        kl = kl_nats(row["compressed_size_bits"], row["search_bits"])
        assert row["kl_divergence"] == pytest.approx(float(kl), rel=1e-12)
        width = delta_range(row["alpha_best"], row["vocab_size"])
        units = row["m"], row["n"]
        found = bound(row["empirical_bpd"], kl, *units, 0.05, row["search_bits"], width)
        assert row["bound_value"] == pytest.approx(float(found), rel=1e-12)
        assert row["bound_valid"]
        assert row["alpha_best"] == 0.5


def test_fixed_and_uniform_are_not_vacuous(store):
    rows = load_sweep(store, params="all").filter(pl.col("mode") != "learned")
    assert len(rows) == 24
    assert rows["bound_value"].max() < 5.92 < 6


def interval(row):
    return [round(row[name], 2) for name in ("mean", "low", "high")]


def test_first_hypothesis(grid):
    found = differences(grid).filter(
        pl.col("minus") == "uniform", pl.col("measure") == "bound_value"
    )
    rows = {(row["d"], row["method"]): interval(row) for row in found.iter_rows(named=True)}
    fixed = [rows[1000, f"fixed_{share}"] for share in (0.2, 0.5, 0.8)]
    assert [mean for mean, _, _ in fixed] == [-0.01, -0.04, -0.06]
    assert all(low < 0 < high for _, low, high in fixed)
    assert rows[2000, "fixed_0.2"] == [0.08, 0.08, 0.09]
    assert rows[2000, "fixed_0.5"] == [0.01, -0.14, 0.16]
    assert rows[2000, "fixed_0.8"] == [0.07, 0.01, 0.13]
    assert rows[1000, "learned"] == [0.36, 0.25, 0.46]
    assert rows[2000, "learned"] == [0.25, 0.2, 0.31]


def test_second_and_third_hypothesis(grid):
    tests = {(row["d"], row["layer"]): row for row in gate_tests(grid).iter_rows(named=True)}
    apart = {at for at, row in tests.items() if row["q"] < 0.05}
    assert apart == {(2000, 0), (2000, -1)}
    assert [round(tests[d, -1]["mean"], 2) for d in (1000, 2000)] == [0.18, 0.18]
    assert [round(tests[2000, -1][name], 3) for name in ("mean", "low", "high", "q")] == [
        0.183, 0.16, 0.206, 0.004
    ]  # fmt: skip
    assert [round(tests[2000, 0][name], 3) for name in ("mean", "low", "high", "q")] == [
        -0.122, -0.184, -0.061, 0.033
    ]  # fmt: skip
    found = [
        [round(row[name], 3) for name in ("mean", "low", "high")]
        for row in slopes(grid).iter_rows(named=True)
    ]
    assert found == [[0.014, -0.043, 0.071], [0.02, -0.037, 0.077]]


def test_a_message_of_the_store_decodes_to_its_row(store):
    """Elsewhere another processor may round other last digits."""
    run_id = "0519bf63e03691b7"
    [row] = load_sweep(store).filter(pl.col("run_id") == run_id).to_dicts()
    printed = decode(store / "artifacts" / run_id / "message.bin")
    found = dict(line.split(": ", 1) for line in printed.splitlines())
    assert float(found["bound_value"]) == pytest.approx(row["bound_value"], rel=1e-5)
    assert found["kl_divergence"] == repr(row["kl_divergence"])
    assert found["bound_valid"] == "True"
