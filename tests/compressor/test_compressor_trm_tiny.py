"""The recursive predictor on codes of the tiny language model."""

from dataclasses import replace

import pytest
import torch
from trm_cases import SMALL

from compressor import trm_train
from compressor.config import DataConfig, LMConfig, TrainConfig
from compressor.model import load_best
from compressor.states import make_states
from compressor.train import run_stack
from compressor.trm_config import (
    CodesConfig,
    CostConfig,
    FitConfig,
    TrmConfig,
    states_config,
)
from compressor.trm_data import make_task


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, cache):
    """task=depth on the tiny language model; the target is the compressor of an earlier run."""
    work = tmp_path_factory.mktemp("tiny") / "work"
    states = {"n_seq": 20, "max_len": 32}
    stage_1a = TrainConfig(device="cpu", data=DataConfig(**states))
    stage_1a.train.max_epochs = 1
    [result] = run_stack(stage_1a, {}, [work / "first"])
    kept = work.parent / "artifacts" / "first"
    kept.mkdir(parents=True)
    [best] = [path for path in result.artifacts if path.name == "best.pt"]
    best.rename(kept / "best.pt")
    cfg = TrmConfig(device="cpu", trm=SMALL, data=DataConfig(**states))
    cfg.train = FitConfig(max_epochs=2, init_from="first")
    cfg.eval.downstream = True
    return cfg, work, load_best(kept / "best.pt").compressor, trm_train.run(cfg, work / "trm")


@pytest.mark.slow
def test_depth_predicts_a_checkpoints_codes_and_what_they_cost(tiny_run):
    cfg, work, compressor, result = tiny_run
    row, task = result.scalars, make_task(cfg, work.parent)
    assert row["from_site"] == "block_1"
    assert torch.equal(task.compressor.W, compressor.W)
    z = compressor.compress(task.states.train)
    torch.testing.assert_close(task.codes(task.targets)[:16][task.mask[:16]], z, rtol=0, atol=1e-4)
    early = make_states(states_config(cfg), site="block_1").train
    torch.testing.assert_close(
        task.codes(task.copies)[:16][task.mask[:16]], compressor.compress(early), rtol=0, atol=1e-4
    )
    for name in ("trm", "mean", "copy", "ridge", "one_pass", "equal_flops"):
        assert row[f"kl_{name}"] > row["kl_rec"] > 0
    assert row["nll_mean"] > row["nll_ridge"] > row["nll_base"]


@pytest.mark.slow
def test_the_downstream_cost_of_the_true_codes_is_the_compressors(tiny_run):
    """Predictions reach the positions that they are of."""
    cfg, work, _, result = tiny_run
    task = make_task(cfg, work.parent)
    row = trm_train.downstream_costs(cfg, task, {"truth": task.targets[task.n_train :]})
    for what in ("nll", "kl", "top1_agree"):
        assert row[f"{what}_truth"] == pytest.approx(row[f"{what}_rec"], abs=1e-4)
        assert row[f"{what}_rec"] == result.scalars[f"{what}_rec"]


@pytest.mark.slow
def test_next_is_the_code_one_token_later(tiny_run):
    cfg, work, compressor, _ = tiny_run
    cfg = replace(cfg, task="next", eval=CostConfig())
    task = make_task(cfg, work.parent)
    z = compressor.compress(task.states.train).split(task.states.sequences.n_kept()[:16].tolist())
    after = torch.cat([one[1:] for one in z])
    before = torch.cat([one[:-1] for one in z])
    for values, expected in ((task.targets, after), (task.copies, before)):
        found = task.codes(values)[:16][task.mask[:16]]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    unit = (before - before.mean(0)).square().mean().sqrt()
    inputs = task.inputs[:16][task.mask[:16]]
    torch.testing.assert_close(inputs, (before - before.mean(0)) / unit, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lm": LMConfig(site="pre_norm")}, "its lm.site is post_norm, this run's pre_norm"),
        ({"model": CodesConfig(d_compressed=8)}, "its model.d_compressed is 16, this run's 8"),
        ({"model": CodesConfig(center="mean")}, "its model.center is None, this run's mean"),
        ({"train": FitConfig(init_from="none")}, "train.init_from=none: neither a run of .* nor"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tiny_run, changes, message):
    cfg, work, _, _ = tiny_run
    with pytest.raises(ValueError, match=message):
        make_task(replace(cfg, **changes), work.parent)
