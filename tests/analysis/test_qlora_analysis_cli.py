"""`python -m analysis.qlora_probe`: what it writes and prints, for stores by formula and a run."""

import subprocess
import sys

import pytest
from qlora_rows import diverged, result, write

from analysis.qlora_probe import load_run, report, runs_of
from analysis.qlora_probe.__main__ import OF_A_RUN, OVER_RUNS, main
from plugins import api

PROBES = "[{grad_norm:{every:1}},update_ratio,{sharpness:{every:2}},noise_scale,kl_to_base,\
delta_rank,activation_drift,landscape,inner_view]"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two learning rates by two ranks, one that diverged; all probes."""
    store = tmp_path_factory.mktemp("several")
    cells = [
        ({"optim.lr": lr, "lora.r": r}, result(4 + 1 / r, rank=r))
        for lr in (1e-3, 1e-2)
        for r in (2, 8)
    ]
    write(store, ({"optim.lr": 1.0, "lora.r": 8}, diverged()), *cells)
    return store


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_writes_every_figure_the_answers_of_each_run_and_the_report(several, tmp_path):
    command = [sys.executable, "-m", "analysis.qlora_probe", several, "-o", tmp_path / "out"]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = {f"{name}.png" for name in (*OVER_RUNS, *OF_A_RUN)}
    answers = {f"generations/{i:016x}.{end}" for i in range(11, 15) for end in ("md", "csv")}
    assert files(tmp_path / "out") == {*figures, *answers, "report.txt"}
    for name in figures:
        assert f"{tmp_path / 'out' / name}: " in done.stdout
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert "of run 000000000000000b, optim.lr = 0.001, lora.r = 2; another" in done.stdout
    assert (tmp_path / "out" / "report.txt").read_text() == report(runs_of(several))
    assert report(runs_of(several)) in done.stdout
    assert done.stderr.splitlines() == [
        "no generations: run 000000000000000a has no table generations"
    ]


def test_one_run_shows_its_answers_and_says_what_is_left_out(tmp_path, capsys):
    write(tmp_path / "store", ({"seed": 0}, result(probes=False)))
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == {
        "loss_curves.png",
        "forgetting.png",
        "generations.md",
        "generations.csv",
        "report.txt",
    }
    out, err = capsys.readouterr()
    assert "  tuned  fail  trained says 1\n" in out
    left_out = {line.split(":")[0] for line in err.splitlines()}
    drawn = {"loss_curves", "forgetting"}
    assert left_out == {f"no {name}.png" for name in {*OVER_RUNS, *OF_A_RUN} - drawn}
    assert (
        "no sharpness.png: run 000000000000000a has no curve sharpness (the probe sharpness "
        "writes it)\n" in err
    )


def test_runs_without_answers_are_counted_in_one_line(tmp_path, capsys):
    own = result(probes=False)
    own.tables.clear()
    write(tmp_path / "store", *(({"seed": seed}, own) for seed in range(3)))
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("no generations")]
    assert line.endswith("run 000000000000000a has no table generations (and 2 more runs)")
    assert not (tmp_path / "out" / "generations").exists()


def test_run_chooses_whose_figures_are_drawn(several, tmp_path, capsys):
    assert main([str(several), "-o", str(tmp_path), "--run", f"{14:016x}"]) == 0
    out = capsys.readouterr().out
    assert "of run 000000000000000e, optim.lr = 0.01, lora.r = 8; another one with --run:" in out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "no store nowhere"),
        ({"-o": "no/folder/out"}, "cannot write to no/folder/out: no folder no/folder"),
        ({"--run": "000000000000000"}, "did you mean '000000000000000"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_accepted(several, changed, message, capsys):
    arguments = {"store": str(several), "-o": str(several / "out")} | changed
    store = arguments.pop("store")
    assert main([store, *(word for pair in arguments.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err
    assert not (several / "out").exists()


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m analysis.qlora_probe outputs/qlora_lr_sweep -o" in capsys.readouterr().out


def test_importing_the_analyses_loads_no_torch():
    code = "import sys, analysis.qlora_probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.slow
def test_the_probes_of_a_real_run_write_what_the_figures_read(root, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(root / "tests" / "qlora_probe")
    from qlora_cases import save_llama

    model = ["model.source=hf", f"model.path={save_llama(tmp_path / 'llama')}", "lora.r=4"]
    small = ["data.n_examples=24", "train.accum=2", "eval.n=1", "eval.max_new=2", "eval.suite=tiny"]
    small += [*model, f"callbacks={PROBES}", "optim.lr=1e-3,1e-2"]
    assert api.sweep("qlora_probe/qlora_minimum", small, output=tmp_path / "store").ok == 2
    capsys.readouterr()
    assert main([str(tmp_path / "store"), "-o", str(tmp_path / "out")]) == 0
    first = load_run(tmp_path / "store").row["run_id"]
    assert capsys.readouterr().err.splitlines() == [
        "no ranks.png: the runs have one value of lora_rank",
        f"no line.png: run {first} has no table line",
    ]
