"""`python -m analysis` in a subprocess on a store written by SweepWriter."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from plugins.config_files import ConfigFile, write_config
from plugins.result import RunResult
from plugins.store import SweepWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """gamma 0.75, 1.5 x seeds 0, 1, 2: loss gamma (1 + seed) 0.1^step; one diverged, one failed."""
    store = tmp_path_factory.mktemp("runs") / "store"
    config = ConfigFile(
        {"experiment": "test/train", "training": {"lr": 0.1}},
        ("model.gamma", "training.batch_seed"),
        1,
    )
    write_config(store, config)
    provenance = dict.fromkeys(("host", "job", "code", "versions")) | {"experiment": "test/train"}
    with SweepWriter(store, "plan", provenance) as writer:
        cases = [(gamma, seed) for gamma in (0.75, 1.5) for seed in range(3)]
        for index, (gamma, seed) in enumerate(cases):
            n = 2 if (gamma, seed) == (1.5, 1) else 4
            outcome = RunResult(
                curves={
                    "step": list(range(n)),
                    "test_loss": [gamma * (1 + seed) * 0.1**step for step in range(n)],
                },
                status="ok" if n == 4 else "diverged",
            )
            if (gamma, seed) == (0.75, 2):
                outcome = RuntimeError("no memory")
            values = {"model.gamma": gamma, "training.batch_seed": seed}
            now = datetime.now(UTC)
            writer.append(index, f"{index:016x}", config.config_id, values, outcome, now, now, 1.0)
    return store


def analysis(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_draws_the_figure_and_prints_the_last_means(store, tmp_path):
    """gamma = 0.75, step 3: 0.00075 and 0.0015: mean 1.125e-3, half t_1 0.00075 / 2 = 4.765e-3."""
    figure = tmp_path / "figure.png"
    done = analysis(store, "--y", "test_loss", "--by", "model.gamma", "-o", figure)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(figure),
        "model.gamma = 0.75: test_loss 0.001125 +- 0.0048 at step 3 (2 of 3 runs)",
        "model.gamma = 1.5: test_loss 0.003 +- 0.019 at step 3 (2 of 3 runs)",
        "  failed: model.gamma = 0.75, training.batch_seed = 2, no record",
        "  diverged: model.gamma = 1.5, training.batch_seed = 1, last record at step 1",
    ]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_without_by_all_runs_make_one_line_and_the_suffix_is_the_format(store, tmp_path):
    figure = tmp_path / "figure.svg"
    done = analysis(store, store, "--y", "test_loss", "--linear", "-o", figure)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == (
        "all runs: test_loss 0.002063 +- 0.0026 at step 3 (4 of 6 runs)"
    )
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"store": "nowhere"}, "no store nowhere"),
        ({"--y": "test_los"}, "did you mean 'test_loss'?"),
        ({"--by": "model.gama"}, "did you mean 'model.gamma'?"),
        ({"-o": "nowhere/figure.png"}, "cannot write nowhere/figure.png: no folder nowhere"),
        ({"-o": "figure"}, "cannot write figure: no suffix such as .png"),
        ({"-o": "figure.abc"}, "Format 'abc' is not supported"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(store, changed, message):
    given = {"store": store, "--y": "test_loss", "--by": "model.gamma", "-o": "x.png"} | changed
    done = analysis(given.pop("store"), *(word for pair in given.items() for word in pair))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_help_has_examples():
    done = analysis("--help")
    assert done.returncode == 0
    assert "python -m analysis outputs/dln/gph --y test_loss --by model.gamma" in done.stdout
