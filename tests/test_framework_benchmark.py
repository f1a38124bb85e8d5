"""benchmarks/framework.py at tiny sizes: contenders do the same work, the tables come out."""

import json

import pytest
from dynascope_toy import Trivial
from omegaconf import OmegaConf

from benchmarks import framework, hydra_app, keepers
from plugins.load import load_sweep


@pytest.mark.parametrize("keeper", keepers.KEEPERS, ids=lambda keeper: keeper.name)
@pytest.mark.parametrize("columns", [keepers.SCALARS, (keepers.CURVE,)])
def test_a_keeper_gives_back_what_it_was_given(tmp_path, keeper, columns):
    results = keepers.Results(7)
    keeper.write(tmp_path, results)
    frame = keeper.load(tmp_path, (*keepers.KEYS, *columns))
    assert set(frame.columns) >= {*keepers.KEYS, *columns}
    assert len(frame) == 7
    results.check(frame)


def test_the_hydra_application_computes_the_runs_of_the_toy_family(tmp_path):
    assert OmegaConf.structured(hydra_app.Config) == OmegaConf.structured(Trivial)
    framework.by_hydra()(3, tmp_path)
    framework.by_command("toy/trivial")(3, tmp_path)
    rows = load_sweep(tmp_path / "store").select("final_loss", "step", "loss").to_dicts()
    files = [tmp_path / "out" / str(seed) / "result.json" for seed in range(3)]
    assert [json.loads(file.read_text()) for file in files] == rows
    assert framework.rows(tmp_path) == framework.result_files(tmp_path) == 3


def test_tables(capsys):
    launchers = [
        framework.Launcher("by Hydra", framework.by_hydra(), framework.result_files, (1, 2)),
        framework.Launcher("here", framework.in_process("toy/single"), framework.rows, (2, 9)),
    ]
    framework.overhead(launchers, rounds=1)
    framework.into_frame(keepers.KEEPERS[:2], 9, rounds=1)
    cells = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    table = {name.strip(): [number.split() for number in numbers] for name, *numbers in cells}
    assert [table[name][0][0] for name in ("by Hydra", "here")] == ["2", "9"]
    assert all(float(number) > 0 for number in table["signac"][1] + table["signac"][3][:2])
    assert table["ours"][3][2] == table["ours"][4][2] == "1.0"
