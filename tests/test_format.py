"""A store that version 0.1.0 wrote is read, merged, folded and resumed as it was.

tests/data/store_v1 is never written anew. It holds, in one folder, what these commands made, and
one part that a second folder had before its runs of seed 1 were computed again:

    python sweep.py -cn=toy/trivial seed=0..4 model.width=1,2 bad_seeds=[3] diverging_seeds=[2]
    the same with --rerun seed=1
    python sweep.py -cn=smoke training.batch_seed=0,1 training.batch_size=5 \
        metrics=[singular_values,partial_product_singular_values]
    python sweep.py -cn=toy/trivial seed=0..3 model.scale=0.5,2 steps=5 +params.a=1 \
        '+params.b=[x,null]' note=hello
    python sweep.py -cn=sublora allocation.name=learned ... (two layers, four steps)
"""

import re
import shutil

import numpy as np
import polars as pl
import pytest
from test_cli import summary

from analysis import load_sweep, load_sweep_config, load_table
from plugins.merge import compact, merge
from plugins.status import main as status

TRIVIAL = ("-cn=toy/trivial", "seed=0..4", "model.width=1,2", "bad_seeds=[3]",
           "diverging_seeds=[2]")  # fmt: skip
LATER = ("-cn=toy/trivial", "seed=0..3", "model.scale=0.5,2", "steps=5", "+params.a=1",
         "+params.b=[x,null]", "note=hello")  # fmt: skip
SMOKE = ("-cn=smoke", "training.batch_seed=0,1", "training.batch_size=5",
         "metrics=[singular_values,partial_product_singular_values]")  # fmt: skip
EVERY = ("ok", "diverged", "failed")


@pytest.fixture
def store(root, tmp_path):
    return shutil.copytree(root / "tests/data/store_v1", tmp_path / "store")


def check(store):
    """Every run counts once, with the numbers of its closed form."""
    runs = load_sweep(store, params="all", status=EVERY)
    assert runs["experiment"].value_counts().sort("experiment").rows() == [
        ("dln/train", 2),
        ("sublora/train", 1),
        ("toy/trivial", 14),
    ]
    toy = runs.filter(experiment="toy/trivial").sort("steps", "seed", "model.width", "model.scale")
    assert toy["seed"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2]
    assert toy["status"].to_list() == [
        *["ok"] * 4, "diverged", "diverged", "failed", "failed", *["ok"] * 6
    ]  # fmt: skip
    for run in toy.iter_rows(named=True):
        if run["status"] == "failed":
            assert run["error"].endswith("RuntimeError: seed 3 is bad\n")
            assert run["loss"] is None
            continue
        step = np.arange(run["steps"])
        loss = run["model.scale"] * run["model.width"] / (1 + step + run["seed"])
        assert run["step"] == step.tolist()
        assert run["loss"] == loss.astype(np.float32).tolist()
        assert run["final_loss"] == np.float32(loss[-1])
    assert toy.schema["loss"] == pl.List(pl.Float32)
    assert toy["steps"].to_list() == [3] * 8 + [5] * 6  # fixed in both plans
    assert toy["model.scale"].to_list() == [1.0] * 8 + [0.5, 2.0] * 3  # varies in one of them
    assert toy["params.a"].to_list() == [None] * 8 + [1] * 6
    assert toy["params.b"].to_list() == [None] * 8 + ['["x", null]'] * 6
    assert toy["note"].to_list() == [None] * 8 + ["hello"] * 6
    plans = toy.filter(status="ok", steps=3).group_by("seed").agg(pl.col("plan").unique())
    first, again = plans.sort("seed")["plan"].to_list()
    assert first < again  # what was computed twice: the later attempt counts

    for run in runs.filter(experiment="dln/train").iter_rows(named=True):
        values = [run[f"sv_{k}"] for k in range(3)]
        np.testing.assert_array_equal(
            np.transpose(values), run["pp_0_1_sv"]
        )  # both layers' product
        assert run["final_test_loss"] == run["test_loss"][-1]
    gates = load_table(store, name="gates")
    assert (
        gates["run_id"].unique().to_list()
        == runs.filter(experiment="sublora/train")["run_id"].to_list()
    )
    assert gates["step"].to_list() == [step for step in range(5) for _ in range(3)]
    assert gates.filter(step=0)["gamma"].to_list() == [0.5] * 3


def test_it_is_read(store):
    check(store)
    config = load_sweep_config(store, "5e1d78605a7d1937")
    assert config["allocation"]["name"] == "learned"
    assert (store / "artifacts" / "5e1d78605a7d1937" / "message.bin").stat().st_size == 47


def test_it_is_folded_and_merged(store, root, tmp_path):
    compact(store)
    assert len([*(store / "parts").iterdir()]) == 1
    check(store)
    merge([store, root / "tests/data/store_v1"], tmp_path / "both", keep="error")
    check(tmp_path / "both")


def test_it_is_resumed(store, sweep_cli):
    """The run_ids of its configs are those of today: nothing that ended is computed again."""
    assert summary(sweep_cli(*SMOKE, f"--output={store}")) == (2, 2, 0, 0, 0, 0)
    assert summary(sweep_cli(*LATER, f"--output={store}")) == (6, 6, 0, 0, 0, 0)
    done = sweep_cli(*TRIVIAL, f"--output={store}")
    assert (done.returncode, summary(done)) == (1, (8, 6, 0, 0, 2, 0))
    check(store)


def test_its_plans_are_counted(store, capsys):
    status([str(store)])
    counts = re.findall(r"planned (\d+), done (\d+), failed (\d+)", capsys.readouterr().out)
    assert counts == [
        ("8", "6", "2"),
        ("4", "2", "2"),
        ("2", "2", "0"),
        ("6", "6", "0"),
        ("1", "1", "0"),
    ]
