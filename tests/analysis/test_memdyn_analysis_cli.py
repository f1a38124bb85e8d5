"""`python -m analysis.memdyn`: what it writes and prints, for stores by formula and for a run."""

import subprocess
import sys

import polars as pl
import pytest
from memdyn_rows import long, write

from analysis.memdyn.__main__ import main
from analysis.memdyn.figures import FIGURES
from memdyn import theory
from plugins import api

IDS = [f"{seed + 10:016x}" for seed in range(3)]
FILES = {*(f"figures/{name}.png" for name in FIGURES), "training_summary.csv", "summary_report.txt"}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Seeds 0, 1, 2 (diverged); seed 3 failed."""
    store = tmp_path_factory.mktemp("several")
    write(store, 0, 1, 2, failed=3)
    return store


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_writes_a_folder_per_run_and_means_over_seeds(several, tmp_path):
    command = [sys.executable, "-m", "analysis.memdyn", several, "-o", tmp_path / "out"]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {f"{run}/{name}" for run in IDS for name in FILES} | {"figures/over_seeds.png"}
    assert files(tmp_path / "out") == expected
    listed, *answers = done.stdout.split("\n\nrun ")
    assert {line.split(": ")[0] for line in listed.splitlines() if line} == {
        str(tmp_path / "out" / name) for name in expected
    }
    assert [answer.splitlines()[0] for answer in answers] == [
        f"{IDS[0]}, seed = 0",
        f"{IDS[1]}, seed = 1",
        f"{IDS[2]}, seed = 2, diverged",
    ]
    assert all("* Memorized at epoch" in answer for answer in answers)
    assert "PROGRESS" not in done.stdout


def test_one_run_writes_into_the_folder_itself(several, tmp_path, capsys):
    assert main([str(several), "-o", str(tmp_path), "--run", IDS[1]]) == 0
    assert files(tmp_path) == FILES
    report = (tmp_path / "summary_report.txt").read_text()
    assert report == theory.generate_summary_report(long(seed=1))
    assert report.split("PROGRESS")[0].strip() in capsys.readouterr().out


def test_memorized_passages_are_counted_anew(several, tmp_path):
    """At epochs 0, 1, 2, 4, 8: 0, 1, 3, 7, 12 of 12 with accuracy 1, the others .25."""
    counts = {"0.6": [0, 1, 3, 7, 12], "0.25": [12] * 5}
    for threshold, expected in counts.items():
        arguments = [str(several), "-o", str(tmp_path), "--run", IDS[0], "--threshold", threshold]
        assert main(arguments) == 0
        summary = pl.read_csv(tmp_path / "training_summary.csv")
        assert summary["epoch"].to_list() == [0, 1, 2, 4, 8]
        assert summary["num_memorized"].to_list() == expected
        assert summary["memorization_rate"].to_list() == [k / 12 for k in expected]
        assert summary["novel_rate"].to_list() == [0] * 5
        assert summary["best_layer"].to_list() == [1] * 5  # as the run wrote it
        assert f"at least {float(threshold):g}." in " ".join(
            (tmp_path / "summary_report.txt").read_text().split()
        )


def test_alpha_and_min_effect_reach_the_report(several, tmp_path):
    given = ["--alpha", "0.01", "--min-effect", "30"]
    assert main([str(several), "-o", str(tmp_path), "--run", IDS[0], *given]) == 0
    report = (tmp_path / "summary_report.txt").read_text()
    assert report == theory.generate_summary_report(long(), alpha=0.01, min_effect=30)
    assert report != theory.generate_summary_report(long())


def test_without_the_runs_own_summary_its_curves_are_written(tmp_path):
    store = tmp_path / "store"
    [run_id] = write(store, 0)
    (store / "artifacts" / run_id / "training_summary.csv").unlink()
    assert main([str(store), "-o", str(tmp_path / "out")]) == 0
    summary = pl.read_csv(tmp_path / "out" / "training_summary.csv")
    assert summary.columns == [
        "epoch",
        "num_memorized",
        "memorization_rate",
        "novel_rate",
        "mean_accuracy",
    ]
    assert summary["num_memorized"].to_list() == [0, 1, 3, 7, 12]
    assert summary["mean_accuracy"].to_list() == [0.5] * 5


def test_a_real_run_gets_the_report_and_the_summary_that_it_wrote_itself(tmp_path):
    small = ["data.n_passages=6", "data.length=24", "model.layers=3", "model.width=16"]
    small += ["model.vocab=300", "schedule.epochs=[0,1,2]", "k_neighbors=5", "eval_batch=12"]
    assert api.sweep("memdyn/memdyn", small, output=tmp_path / "store").ok == 1
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == FILES
    [own] = (tmp_path / "store" / "artifacts").iterdir()
    report, summary = "summary_report.txt", "training_summary.csv"
    assert (tmp_path / "out" / report).read_text() == (own / report).read_text()
    assert pl.read_csv(tmp_path / "out" / summary).equals(pl.read_csv(own / summary))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "no store nowhere"),
        ({"-o": "no/folder/out"}, "cannot write to no/folder/out: no folder no/folder"),
        ({"--run": "000000000000000"}, "did you mean '000000000000000"),
        ({"--threshold": "1.5"}, "--threshold: must be a number in (0, 1], got 1.5"),
        ({"--threshold": "high"}, "--threshold: must be a number in (0, 1], got high"),
        ({"--alpha": "1"}, "--alpha: must be a number in (0, 1), got 1"),
        ({"--min-effect": "0"}, "--min-effect: must be a number > 0, got 0"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_accepted(several, changed, message, capsys):
    arguments = {"store": str(several), "-o": str(several / "out")} | changed
    store = arguments.pop("store")
    try:
        code = main([store, *(word for pair in arguments.items() for word in pair)])
    except SystemExit as end:  # argparse's
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (several / "out").exists()


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m analysis.memdyn outputs/memdyn -o" in capsys.readouterr().out
