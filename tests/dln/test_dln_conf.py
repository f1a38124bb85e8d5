"""The experiments of conf/dln: their table, headers, and a start of each run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dln_cases import POWER_LAW, config, workdirs
from omegaconf import OmegaConf

from dln.check import check
from dln.config import TrainConfig
from dln.stacking import stack_width
from dln.train import run_stack

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "conf" / "dln").glob("*.yaml"))}
D10 = {"data__params": {"matrix": "diagonal", "scale": 10}}
TOP_K = {"data__params": {**POWER_LAW, "matrix": "power_law_topk", "k": 5}, "max_steps": 8000}
ONLINE = {"data__online": True}
SV = "partial_product_singular_values"
FOUR = ["layer_norms", "gram_norms", "balance_diffs", "effective_weight_norm"]

TABLE = {
    "diagonal_teacher": D10,
    "gph": {},
    "gph_metrics": {"metrics": ["gradient_stats"]},
    "gph_gd_model_metrics": {"metrics": FOUR},
    "gph_online_baseline_metrics": {
        **ONLINE, "training__batch_size": 500, "metrics": [*FOUR, "gradient_stats"]},
    "hessian_spectrum": {"model__hidden_dim": 10, "max_steps": 8000, "num_evaluations": 200,
                         "metrics": ["hessian_spectrum"]},
    "lr_sweep": {**ONLINE, "training__batch_size": 50, "metrics": [SV]},
    "rank_sweep": {**D10, "model__gamma": 1.5, "max_steps": 25000, "metrics": [
        {"name": "relative_rank", "params": {"abs_tol": 1}}, "singular_values"]},
    "sv_dynamics": {"max_steps": 8000, "metrics": [SV]},
    "sv_dynamics_d_active": {"model__in_dim": 6, "model__out_dim": 6, "data__d_active": 5,
                             "max_steps": 8000, "metrics": [SV, "balance_diffs", "gram_norms"]},
    "sv_dynamics_topk": {**TOP_K, "metrics": [SV]},
    "sv_dynamics_topk_metrics": {**TOP_K, "metrics": [SV, "balance_diffs", "gram_norms"]},
    "smoke": {"model__in_dim": 3, "model__out_dim": 3, "model__num_hidden": 1,
              "model__hidden_dim": 5, "data__params": {"matrix": "diagonal", "scale": 1},
              "data__train_samples": 20, "data__test_samples": 10, "training__lr": 0.01,
              "max_steps": 10, "num_evaluations": 2},
}  # fmt: skip


def load(name):
    content = OmegaConf.load(FILES[name])
    assert content.pop("defaults") == ["/dln/schema/train", "/base", "_self_"]
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), content))
    merged.device = "cpu"
    return merged


@pytest.mark.parametrize("name", TABLE)
def test_an_experiment_is_that_of_the_table(name):
    cfg = load(name)
    assert cfg == config(**{"max_steps": 10000, **TABLE[name]})
    check(cfg, {})


@pytest.mark.parametrize("name", TABLE)
def test_every_experiment_starts(name):
    cfg = load(name)
    cfg.max_steps, cfg.num_evaluations = min(cfg.max_steps, 4), 2
    result = run_stack(cfg, {"training.batch_seed": [0, 1]}, workdirs(2))[1]
    assert result.status == "ok"
    assert all(np.isfinite(curve).all() for curve in result.curves.values())


@pytest.mark.parametrize("name", TABLE)
def test_a_file_says_its_question_and_its_command(name):
    first, question, command, *rest = FILES[name].read_text().splitlines()
    assert first == "# @package _global_"
    assert question.startswith("# ")
    assert command.startswith(f"#   python sweep.py -cn=dln/{name}")
    assert any(line.startswith("# Expect") for line in rest)


@pytest.mark.parametrize(
    ("width", "dtype", "expected"),
    [(10, "float32", 512), (50, "float32", 190), (100, "float32", 49), (100, "float64", 24),
     (1000, "float32", 1)],
)  # fmt: skip
def test_a_stack_holds_four_megabytes_of_weights(width, dtype, expected):
    cfg = config(model__hidden_dim=width, dtype=dtype)
    assert stack_width(cfg) == expected


def test_a_stack_is_narrower_on_a_large_train_set():
    cfg = config(model__hidden_dim=10, data__train_samples=2**18)
    assert stack_width(cfg) == 128


def test_the_schema_and_the_width_of_a_stack_load_no_torch():
    code = (
        "import sys, dln, dln.registry; from dln.config import TrainConfig; "
        "from dln.stacking import stack_width; "
        "assert stack_width(TrainConfig(device='cpu')) == 49; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
