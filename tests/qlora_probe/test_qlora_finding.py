"""The numbers of docs/qlora_probe.md, computed anew from the stores that hold its runs."""

import json

import polars as pl
import pytest

from plugins.load import load_sweep
from qlora_probe.theory import rank_correlation

FINAL = "final_eval_loss"
T = 4.303 / 3**0.5  # half a 95 % t interval of three runs, in standard deviations


@pytest.fixture
def runs(root):
    return lambda name, model="tiny": load_sweep(
        root / "docs" / "data" / f"qlora_{model}" / name, params="all"
    )


def means(frame, by, column=FINAL):
    """By the values of a key: mean, half of the interval."""
    rows = frame.group_by(by, maintain_order=True).agg(
        pl.len(), pl.col(column).mean().alias("mean"), (T * pl.col(column).std()).alias("half")
    )
    assert set(rows["len"]) == {3}
    return {key[:-3]: key[-2:] for key in rows.sort(by).rows()}


def numbers(found, places=2):
    return [round(mean, places) for mean, _ in found.values()]


def test_large_rates_learn_most_and_forget(runs):
    trained = runs("lr").filter(pl.col("done_steps") == 25)
    assert numbers(means(trained, ["optim.lr"])) == [10.36, 9.81, 7.28, 4.32, 4.24]
    halves = [round(half, 2) for _, half in means(trained, ["optim.lr"]).values()]
    assert halves[1:] == [0.07, 0.29, 0.17, 0.75]
    assert numbers(means(trained, ["optim.lr"], "forgetting_lost")) == [0, 0, 0, 39, 80]
    assert not trained["overfit"].any()
    clipped = numbers(means(trained, ["optim.lr"], "clip_fraction"))
    assert clipped == [1, 1, 1, 0.81, 0.59]


def test_one_basin_up_to_a_rate(runs):
    frame = runs("lr")
    rate = dict(frame.filter(pl.col("done_steps") == 25).select("run_id", "optim.lr").rows())
    seed = dict(frame.select("run_id", "seed").rows())
    barriers = {}
    compared = frame.drop_nulls("loss_barrier").select("eval.adapters", "loss_barrier")
    for pair, barrier in compared.rows():
        a, b = json.loads(pair)
        if seed[a] == seed[b]:
            barriers.setdefault((rate[a], rate[b]), []).append(barrier)
    assert barriers[1e-3, 5e-3] == [0, 0, 0]
    assert max(barriers[2e-4, 1e-3]) < 0.13
    assert 1.1 < min(barriers[5e-3, 5e-2]) < max(barriers[5e-3, 5e-2]) < 2


def test_loss_follows_the_first_update_not_the_rank(runs):
    found = means(runs("rank"), ["lora.alpha_policy", "lora_rank"])
    by_policy = {
        policy: [round(found[policy, r][0], 2) for r in (2, 4, 8, 16)]
        for policy in ("fixed", "proportional", "rslora")
    }
    assert by_policy == {
        "fixed": [4.22, 4.23, 4.24, 4.24],
        "proportional": [4.82, 4.37, 4.24, 4.17],
        "rslora": [4.18, 4.15, 4.12, 4.10],
    }
    first = means(runs("rank"), ["lora.alpha_policy", "lora_rank"], "first_update_norm")
    correlation = rank_correlation(
        [first[key][0] for key in found], [mean for mean, _ in found.values()]
    )
    assert correlation.rho < -0.95


def test_8_bits_of_adam_change_nothing_that_shows(runs):
    found = means(runs("quant"), ["quant", "optim.name"])
    for quant in (None, "nf4", "fp4"):
        assert abs(found[quant, "adamw"][0] - found[quant, "adamw8bit"][0]) < 1e-3
    assert {key[0]: round(mean, 2) for key, (mean, _) in found.items()} == {
        None: 5.14,
        "nf4": 5.03,
        "fp4": 5.05,
    }


def test_bfloat16_is_a_hundredth_of_a_nat_away(runs):
    found = means(runs("dtype"), ["model.compute_dtype"])
    assert numbers(found, 3) == [5.009, 5.025]


def test_forgetting_adams_state_and_warming_up(runs):
    found = means(runs("state"), ["train.reset_state_at", "train.warmup_ratio"])
    loss = {key: round(mean, 2) for key, (mean, _) in found.items()}
    assert [loss["[]", ratio] for ratio in (0, 0.03, 0.1)] == [5.08, 5.03, 5.03]
    assert [loss["[14]", ratio] for ratio in (0, 0.03, 0.1)] == [4.97, 4.90, 4.89]


def test_batches_and_rates(runs):
    found = means(runs("batch"), ["train.batch", "train.accum", "optim.lr"])
    same = [found[key][0] for key in ((16, 1, 2e-3), (4, 4, 2e-3), (1, 16, 2e-3))]
    assert max(same) - min(same) < 0.01
    scaled = {key: round(mean, 2) for key, (mean, _) in found.items()}
    assert scaled[4, 1, 5e-4] == 4.74
    assert scaled[4, 16, 8e-3] == 5.24
    assert (scaled[4, 1, 1e-3], scaled[4, 16, 4e-3]) == (4.23, 6.40)
    assert (scaled[4, 1, 2e-3], scaled[4, 16, 2e-3]) == (4.11, 8.27)


def test_without_norms(runs):
    found = means(runs("norm"), ["model.norm"])
    assert sorted(numbers(found)) == [4.32, 5.46]


def test_a_single_packed_update_teaches_nothing(runs):
    run = runs("packed").filter(pl.col("optim.lr") == 2e-4).row(0, named=True)
    assert run["done_steps"] == 1
    assert run["reduction"] < 0.002


def test_rates_of_smollm2(runs):
    frame = runs("lr_sweep", "smollm2")
    assert numbers(means(frame, ["optim.lr"])) == [5.53, 1.38, 0.88, 1.88]
    halves = [half for _, half in means(frame, ["optim.lr"]).values()]
    assert halves == pytest.approx([0.02, 0.28, 0.26, 2.0], abs=0.01)
    assert numbers(means(frame, ["optim.lr"], "forgetting_lost"), 1) == [0, 1.7, 2.3, 4]
    assert set(frame["forgetting_base_correct"]) <= {4, 5}


def test_rank_of_smollm2_matters_by_the_rule_for_alpha(runs):
    frame = runs("rank_sweep", "smollm2").sort("lora_rank")
    by_policy = {
        policy: [round(x, 2) for x in frame.filter(pl.col("lora.alpha_policy") == policy)[FINAL]]
        for policy in ("fixed", "proportional", "rslora")
    }
    assert by_policy == {
        "fixed": [1.30, 1.31, 1.29, 1.30],
        "proportional": [3.27, 2.29, 1.29, 0.94],
        "rslora": [0.89, 0.83, 0.78, 0.99],
    }


def test_quantized_smollm2(runs):
    frame = runs("quant_effect", "smollm2")
    rows = frame.select("quant", "optim.name", FINAL).rows()
    loss = {(quant, optimizer): final for quant, optimizer, final in rows}
    for quant in (None, "nf4", "fp4"):
        assert abs(loss[quant, "adamw"] - loss[quant, "adamw8bit"]) < 4e-4
    assert [round(loss[quant, "adamw"], 2) for quant in (None, "nf4", "fp4")] == [1.04, 1.29, 1.05]
