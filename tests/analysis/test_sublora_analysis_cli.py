"""`python -m analysis.sublora`: what it writes and prints, and where it ends with 2."""

import subprocess
import sys

import polars as pl
import pytest
from sublora_rows import SEEDS, cells, outcome, write, write_grid

from analysis.sublora import latex, load_grid, report, summary
from analysis.sublora.__main__ import main

TEN = {
    "pareto_frontier_d1000.png",
    "pareto_frontier_d2000.png",
    "compression_comparison_d1000.png",
    "compression_comparison_d2000.png",
    "allocation_comparison_grid.png",
    "learned_gating_heatmap_d1000.png",
    "learned_gating_heatmap_d2000.png",
    "learned_gating_trend.png",
    "summary_table.csv",
    "summary_table.tex",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("store"))


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_grid_has_exactly_its_ten_files_and_the_hypotheses(store, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "analysis.sublora", store, "-o", out]
    command += ["--budgets", 1000, 2000, "--seeds", 42, 123, 999]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(out) == TEN
    for name in TEN:
        assert f"{out / name}: " in done.stdout
        if name.endswith(".png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")
    grid = load_grid(store)
    assert pl.read_csv(out / "summary_table.csv").shape == (10, 13)
    assert (out / "summary_table.csv").read_text() == summary(grid).write_csv()
    assert (out / "summary_table.tex").read_text() == latex(summary(grid))
    assert done.stdout.endswith(f"\nruns: 30; left out: none\n\n{report(grid)}\n")
    for name in ("H1: ", "H2: ", "H3: "):
        assert f"\n{name}" in done.stdout


def test_one_budget_and_seed(store, tmp_path, capsys):
    arguments = [str(store), "-o", str(tmp_path / "out"), "--budgets", "1000", "--seeds", "123"]
    assert main(arguments) == 0
    assert files(tmp_path / "out") == {name for name in TEN if "d2000" not in name}
    said = capsys.readouterr()
    assert said.err == ""
    assert "runs: 5; left out: none" in said.out


def test_what_is_left_out_is_counted_and_what_is_missing_warned_of(tmp_path, capsys):
    runs = {cell: outcome(*cell) for cell in cells(["uniform", "fixed_0.5"], [1000])}
    runs["uniform", 1000, 42] = ValueError("no memory")
    invalid = {"bound_valid": False, "bound_invalid_reason": "bound.price=paper"}
    runs["fixed_0.5", 1000, 999] = outcome("fixed_0.5", 1000, 999, **invalid)
    del runs["fixed_0.5", 1000, 123]
    write(tmp_path / "store", runs)
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "warning: uniform, d = 1000 has no usable run of seed 42 (failed (ValueError: no memory))",
        "warning: fixed_0.5, d = 1000 has no usable run of seed 123 (no run), 999 "
        "(bound_valid=false (bound.price=paper))",
        "no learned_gating_heatmap_d1000.png: no usable run with learned gates has subspace.d=1000",
        "no learned_gating_trend.png: no usable run has learned gates",
    ]
    left_out = "1 failed (ValueError: no memory); 1 bound_valid=false (bound.price=paper)"
    assert f"runs: 3; left out: {left_out}\n" in said.out


def test_keys_that_differ_are_warned_of(tmp_path, capsys):
    for method, lr in (("uniform", 0.01), ("learned", 0.02)):
        write_grid(tmp_path / "store", cells([method], [1000]), {"train.lr": lr})
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    warning = "warning: the runs compared differ also in train.lr"
    assert capsys.readouterr().err.splitlines() == [warning]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "no store nowhere"),
        ({"-o": "no/folder/out"}, "cannot write to no/folder/out: no folder no/folder"),
        ({"--budgets": "100"}, "its budgets are [1000, 2000], its seeds [42, 123, 999]"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(store, changed, message, capsys):
    arguments = {"store": str(store), "-o": str(store / "out")} | changed
    at = arguments.pop("store")
    assert main([at, *(word for pair in arguments.items() for word in pair)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (store / "out").exists()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (ValueError("no memory"), "can be used: 3 failed (ValueError: no memory)"),
        (outcome("uniform", 1000, 1, bound_valid=False), "can be used: 3 bound_valid=false"),
    ],
)
def test_a_store_without_a_run_that_counts_ends_with_2(tmp_path, run, message, capsys):
    write(tmp_path / "store", {("uniform", 1000, seed): run for seed in SEEDS})
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_family_is_named(tmp_path, capsys):
    cell = ("uniform", 1000, 42)
    write(tmp_path / "store", {cell: outcome(*cell)}, experiment="memdyn/train")
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 2
    assert "holds no run of sublora/train, but memdyn/train" in capsys.readouterr().err


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m analysis.sublora outputs/sublora/" in capsys.readouterr().out


def test_importing_the_analysis_loads_no_torch():
    code = "import sys, analysis.sublora; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
