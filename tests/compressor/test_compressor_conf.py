"""The files of conf/compressor as people start them, on the tiny language model."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from compressor.config import TrainConfig, tiny
from compressor.model import load_best
from compressor.states import load_model, make_states
from plugins import api
from plugins.lm.corpora import load_corpus
from plugins.lm.tokenizers import raw_bytes
from plugins.lm.windows import windows
from plugins.load import load_sweep, load_table

pytestmark = pytest.mark.slow  # a language model is trained first


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """The store of the five sizes."""
    store = tmp_path_factory.mktemp("sizes")
    assert api.sweep("compressor/compressor_sweep", output=store).ok == 5
    return store


def test_tiny_language_model_has_learned_the_text():
    """Its loss is half a nat below the entropy of single bytes: it reads what came before."""
    lm = load_model(TrainConfig())
    ids, _ = windows(load_corpus("state_of_the_union"), raw_bytes(), 128)
    ids = torch.from_numpy(ids[:: len(ids) // 40])
    with torch.no_grad():
        loss = lm.model(input_ids=ids, labels=ids).loss.item()
    frequencies = np.bincount(ids.flatten(), minlength=256) / ids.numel()
    entropy = -(frequencies[frequencies > 0] * np.log(frequencies[frequencies > 0])).sum()
    assert loss < entropy - 0.5
    assert len(lm.blocks) == tiny().config["n_layer"]


def test_five_sizes_come_close_to_pca_and_cost_less_the_larger_they_are(sizes):
    runs = load_sweep(sizes).sort("k")
    assert runs["k"].to_list() == [4, 8, 16, 32, 64]
    assert (runs["dim"] == 64).all()
    assert runs["mse_heldout"].is_sorted(descending=True)
    assert runs["kl"].is_sorted(descending=True)
    gaps = runs["gap_pca_train"]
    assert gaps.drop_nulls().min() >= -1e-6
    assert gaps[:3].max() < 0.3
    assert (runs["kl_random"] > runs["kl_pca"])[:4].all()
    assert runs["delta_nll_pca"][-1] == pytest.approx(0, abs=1e-4)
    assert runs["nll_base"].n_unique() == 1
    assert runs["lm_sha256"].n_unique() == 1


def test_states_of_the_five_sizes_were_extracted_once(sizes, cache):
    states = [json.loads((f / "manifest.json").read_text()) for f in (cache / "states").iterdir()]
    keys = [json.loads(state["key"]) for state in states]
    run = load_sweep(sizes)["corpus_sha256"][0]
    assert sum(key["tokens"] == run and key["site"] == "post_norm" for key in keys) == 1


def test_stage_1b_goes_on_from_a_row_of_its_store(sizes):
    first = load_sweep(sizes).filter(k=16).row(0, named=True)
    overrides = ["stage=1b", f"train.init_from={first['run_id']}"]
    assert api.sweep("compressor/compressor", overrides, output=sizes).ok == 1
    runs = load_sweep(sizes)
    row = runs.filter(runs["forget_1a"].is_not_null()).row(0, named=True)
    assert row["mse_1a_before"] == pytest.approx(first["mse_heldout"], rel=1e-5)
    assert row["forget_1a"] > 0
    assert row["train_mse"][-1] < row["train_mse"][0]


def test_best_checkpoint_of_a_row_is_loaded_by_its_run_id(sizes):
    row = load_sweep(sizes).filter(k=8).row(0, named=True)
    best = load_best(sizes / "artifacts" / row["run_id"] / "best.pt")
    assert best.run_id == row["run_id"]
    X = make_states(TrainConfig()).heldout
    mse = (best.compressor(X) - X).double().square().mean().item()
    assert mse == pytest.approx(row["mse_heldout"], rel=1e-4)


def test_nested_run_has_a_table(tmp_path):
    overrides = ["model.nested=[4,8,16]", "eval.downstream=false"]
    assert api.sweep("compressor/compressor", overrides, output=tmp_path).ok == 1
    table = load_table(tmp_path, name="nested")
    assert table.group_by("split").len()["len"].to_list() == [3, 3]
    assert table.filter(split="heldout").sort("k")["mse"].is_sorted(descending=True)


def test_synthetic_states_need_no_language_model_library(root, tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['sweep.py', '-cn=compressor', *sys.argv[1:]]\n"
        "try:\n"
        f"    runpy.run_path({str(root / 'sweep.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print('exit', end.code)\n"
        "print(*sorted(name for name in sys.modules if '.' not in name))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, "lm.source=synthetic", "eval.downstream=false"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    *_, modules = done.stdout.splitlines()
    assert "torch" in modules.split()
    assert not {"transformers", "peft", "datasets", "wandb", "accelerate"} & set(modules.split())
    assert load_sweep(next(tmp_path.rglob("parts")).parent)["status"].to_list() == ["ok"]
