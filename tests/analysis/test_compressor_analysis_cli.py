"""`python -m analysis.compressor`: what it writes and prints, for stores of real runs."""

import subprocess
import sys

import pytest
from compressor_rows import predictor, train, write

from analysis.compressor import load_store, report
from analysis.compressor.__main__ import OF_A_RUN, OVER_RUNS, main
from plugins import api


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two D'; a nested W."""
    store = tmp_path_factory.mktemp("several")
    train(store, "model.d_compressed=4,8")
    train(store, "model.d_compressed=8", "model.nested=[4,8]")
    return store


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_writes_what_the_runs_allow_and_says_what_they_do_not(several, tmp_path):
    command = [sys.executable, "-m", "analysis.compressor", several, "-o", tmp_path / "out"]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    drawn = {"reconstruction", "gap", "nested", "mode_strength", "spectrum"}
    assert files(tmp_path / "out") == {*(f"{name}.png" for name in drawn), "report.txt"}
    for name in drawn:
        assert f"{tmp_path / 'out' / name}.png: " in done.stdout
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert done.stderr.splitlines() == [
        "no downstream.png: none of the 3 runs has kl",
        "no stage_1b.png: none of the 3 runs has mse_1a_before",
        f"no trm.png: no finished run of compressor/trm in {several}",
    ]
    text = report(load_store(several))
    assert (tmp_path / "out" / "report.txt").read_text() == text
    assert text in done.stdout


def test_run_chooses_whose_modes_are_drawn(several, tmp_path, capsys):
    rows = load_store(several).rows
    last = rows["run_id"][-1]
    assert main([str(several), "-o", str(tmp_path), "--run", last]) == 0
    named = "model.d_compressed = 8, model.nested = [4, 8]"
    assert f"of run {last}, {named}; another one with --run:" in capsys.readouterr().out


def test_a_store_of_predictors_has_their_figure(tmp_path, capsys):
    write(tmp_path / "store", ({"trm.seed": 0}, predictor()))
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == {"trm.png", "report.txt"}
    err = capsys.readouterr().err
    missing = f"no finished run of compressor/train in {tmp_path / 'store'}"
    for name in (set(OVER_RUNS) - {"trm"}) | set(OF_A_RUN):
        assert f"{name}.png" in err
    assert err.count(missing) == 5  # nested.png lacks a table, and one line is for those of a run


def test_failed_runs_leave_a_report(tmp_path, capsys):
    write(tmp_path / "store", ({"seed": 0}, ValueError("no states")), experiment="compressor/train")
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == {"report.txt"}
    assert "failed, 1 runs: ValueError: no states" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "no store nowhere"),
        ({"-o": "no/folder/out"}, "cannot write to no/folder/out: no folder no/folder"),
        ({"--run": "000000000000000"}, "holds no run '000000000000000'"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_accepted(several, changed, message, capsys):
    arguments = {"store": str(several), "-o": str(several / "out")} | changed
    store = arguments.pop("store")
    assert main([store, *(word for pair in arguments.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err
    assert not (several / "out").exists()


def test_a_store_of_another_family_is_named(tmp_path, capsys):
    write(tmp_path / "store", ({"seed": 0}, predictor()), experiment="memdyn/train")
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 2
    needed = "holds no run of compressor/train or compressor/trm, but memdyn/train"
    assert needed in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m analysis.compressor outputs/compressor/" in capsys.readouterr().out


def test_importing_the_analyses_loads_no_torch():
    code = "import sys, analysis.compressor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.slow
def test_both_stages_on_a_language_model_write_what_the_figures_read(tmp_path, capsys):
    small = ["data.n_seq=20", "data.max_len=64", "train.max_epochs=2", "model.d_compressed=8"]
    store = tmp_path / "store"
    assert api.sweep("compressor/compressor", small, output=store).ok == 1
    first = load_store(store).rows["run_id"][0]
    more = [*small, "stage=1b", f"train.init_from={first}"]
    assert api.sweep("compressor/compressor", more, output=store).ok == 1
    capsys.readouterr()
    assert main([str(store), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"no nested.png: no run of {store} has a table nested",
        f"no trm.png: no finished run of compressor/trm in {store}",
    ]
