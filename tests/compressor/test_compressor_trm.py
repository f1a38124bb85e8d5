"""Runs of compressor/trm on synthetic pairs: scores, baselines, resume."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from trm_cases import D, K, L, N, config, draw, flat

from compressor import trm_train
from compressor.trm_baselines import PENALTIES, equal_width, fit_ridge, ridge, score
from compressor.trm_config import (
    FitConfig,
    RecursionConfig,
)
from compressor.trm_fit import Fit, update_average
from compressor.trm_net import OnePass, flops_of


def test_r2_and_cos_are_their_formulas(task):
    heldout = slice(task.n_train, None)
    predicted = torch.randn(task.targets[heldout].shape, generator=torch.Generator().manual_seed(0))
    found = score(task, predicted, heldout)
    mask = task.mask[heldout]
    x, y = (task.codes(v)[mask].double().numpy() for v in (predicted, task.targets[heldout]))
    mean = task.codes(flat(task, task.targets, slice(0, task.n_train))).mean(0).numpy()
    r2 = 1 - ((x - y) ** 2).sum() / ((y - mean) ** 2).sum()
    cos = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert found.r2 == pytest.approx(r2, rel=1e-4)
    assert found.cos == pytest.approx(cos.mean(), rel=1e-4)


def test_the_train_mean_has_an_r2_of_0_and_the_truth_of_1(task):
    for sequences in (slice(0, task.n_train), slice(task.n_train, None)):
        zeros = torch.zeros_like(task.targets[sequences])
        assert score(task, zeros, sequences).r2 == 0
        assert score(task, task.targets[sequences], sequences).r2 == 1


def test_ridge_is_least_squares_on_rows_of_the_penalty():
    """The penalty N alpha ||W||^2 is K more rows sqrt(N alpha) e_i with target 0."""
    X, Y = (torch.from_numpy(draw(50, n, seed=n)).double() + n for n in (K, 3))
    alpha = 0.3
    W, bias = fit_ridge(X, Y, alpha)
    more = torch.eye(K).double() * math.sqrt(len(X) * alpha)
    rows = torch.cat([X - X.mean(0), more])
    expected = torch.linalg.lstsq(rows, torch.cat([Y - Y.mean(0), torch.zeros(K, 3)])).solution
    torch.testing.assert_close(W, expected)
    torch.testing.assert_close((X @ W + bias).mean(0), Y.mean(0))


def test_ridge_chooses_its_penalty_without_the_held_out_split(task):
    predictions, penalty = ridge(task)
    targets = task.targets.clone()
    targets[task.n_train :] = 100.0
    again, same = ridge(replace(task, targets=targets))
    assert same == penalty
    assert penalty in PENALTIES
    assert torch.equal(again, predictions)


def test_the_average_follows_its_formula():
    net = torch.nn.Linear(1, 1, bias=False)
    average = copy.deepcopy(net)
    expected = average.weight.item()
    for step in range(1, 8):
        with torch.no_grad():
            net.weight.fill_(float(step))
        update_average(average, net, 0.35, step)
        d = min(0.35, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * step
    assert average.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_wider_net_has_as_many_operations_as_it_is_asked_for():
    found = flops_of(K, equal_width(K, L, 1e6), 4, L)
    assert found == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize(("equal", "of"), [("training", "flops_train"), ("evaluation", "flops")])
def test_equal_operations_are_equal(task, linear, equal, of):
    cfg = config(linear, trm=RecursionConfig(), train=FitConfig(equal_flops=equal))
    costs = trm_train.make_costs(cfg, task)
    found, recursion = (getattr(costs[name], of) for name in ("equal_flops", "trm"))
    assert found == pytest.approx(recursion, rel=0.1)  # widths are even
    assert costs["one_pass"].n_params == costs["trm"].n_params


@pytest.fixture(scope="module")
def linear_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    pre = draw(60, L, K) / np.arange(1, K + 1, dtype=np.float32)
    np.savez(
        folder / "linear.npz", pre=pre, post=pre @ (np.eye(K, dtype=np.float32) + 0.3 * draw(K, K))
    )
    trm, train = RecursionConfig(n=1, rounds=2, n_sup=2), FitConfig(max_epochs=15)
    cfg = config(folder / "linear.npz", trm=trm, train=train)
    return trm_train.run(cfg, folder / "work" / "run")


def test_a_linear_task_is_ridges_and_the_recursion_comes_near(linear_run):
    row = linear_run.scalars
    assert row["r2_ridge"] == pytest.approx(1, abs=1e-5)
    assert row["r2_mean"] == 0
    assert row["r2_trm"] > 0.8  # the norm of y and u costs it a part of the codes' lengths
    assert row["r2_one_pass"] > 0.95
    assert row["r2_equal_flops"] > 0.95
    assert row["r2_copy"] < 0.8


def test_a_row_has_what_its_methods_cost(linear_run):
    result = linear_run
    row, methods = result.scalars, result.tables["methods"]
    assert row["effective_layers"] == 2 * 2 * 2 * 2
    assert row["n_updates"] == 2 * 12 * 15  # 48 sequences, 4 a batch
    assert result.curves["step"][-1] == row["n_updates"]
    assert result.curves["heldout_r2_trm"][-1] == pytest.approx(row["r2_trm"])
    assert len(methods["method"]) == 12
    assert set(methods["split"]) == {"train", "heldout"}
    for i, name in enumerate(methods["method"]):
        if methods["split"][i] == "heldout":
            assert methods["r2"][i] == row[f"r2_{name}"]
    assert result.tables["answers"]["after"] == [1, 2]
    assert result.tables["answers"]["r2"][-1] == row["r2_trm"]
    assert [path.name for path in result.artifacts] == ["trm.pt"]
    assert not [name for name in row if name.startswith(("nll", "lm_"))]


def numbers(result):
    scalars = {k: v for k, v in result.scalars.items() if not k.startswith("seconds_")}
    return scalars, result.curves, result.tables


@pytest.mark.parametrize("at", [3, 40])  # in the recursion's training, in a plain net's
def test_an_interrupted_run_ends_as_an_uninterrupted_one(noisy, tmp_path, monkeypatch, at):
    monkeypatch.setattr(trm_train, "SAVE_SECONDS", 0.0)
    cfg = config(noisy, train=FitConfig(max_epochs=4))
    whole = trm_train.run(cfg, tmp_path / "whole")
    calls = 0

    def stop(_fraction):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trm_train.run(cfg, tmp_path / "cut", stop)
    fractions = []
    resumed = trm_train.run(cfg, tmp_path / "cut", fractions.append)
    assert numbers(resumed) == numbers(whole)
    assert len(fractions) == 20 + 40 + 40 - at  # batches that were left: 20 of 2 updates, 40, 40
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_the_seed_decides_the_run_and_nothing_else_does(noisy, tmp_path):
    runs = [
        trm_train.run(config(noisy, train=FitConfig(seed=seed)), tmp_path / str(i))
        for i, seed in enumerate((0, 0, 1))
        if torch.manual_seed(i)
    ]
    assert numbers(runs[0]) == numbers(runs[1])
    assert runs[2].scalars["r2_trm"] != runs[0].scalars["r2_trm"]
    assert runs[2].scalars["r2_ridge"] == runs[0].scalars["r2_ridge"]


def test_padding_changes_no_number(noisy, tmp_path):
    arrays = dict(np.load(noisy))
    wider = {name: np.full((N, L + 5, D), 7.0, np.float32) for name in ("pre", "post")}
    for name, array in wider.items():
        for i, n in enumerate(arrays["length"]):
            array[i, :n] = arrays[name][i, :n]
    np.savez(tmp_path / "wider.npz", **wider, length=arrays["length"])
    rows = [
        trm_train.run(config(path), tmp_path / path.stem).scalars
        for path in (noisy, tmp_path / "wider.npz")
    ]
    assert {n: v for n, v in rows[0].items() if n.startswith(("r2", "cos", "flops", "data"))} == {
        n: v for n, v in rows[1].items() if n.startswith(("r2", "cos", "flops", "data"))
    }


def test_padding_of_a_task_changes_no_weight(task):
    wide = {
        name: torch.nn.functional.pad(getattr(task, name), (0, 0, 0, 5), value=9.0)
        for name in ("inputs", "targets", "copies")
    }
    wider = replace(task, **wide, mask=torch.nn.functional.pad(task.mask, (0, 5)))
    weights = []
    for one in (task, wider):
        net = OnePass(K, K, 1, torch.Generator().manual_seed(0))
        fit = Fit(net, one, FitConfig(), lr=1e-2, n_sup=1, n_updates=8, ema=0.9)
        fit.run(lambda: None, lambda fraction: None)
        weights.append(torch.cat([p.flatten() for p in fit.average.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)


def test_a_loss_that_is_not_finite_ends_as_diverged_with_its_curves(noisy, tmp_path):
    train = FitConfig(lr=1e30, clip=None, max_epochs=4)
    result = trm_train.run(config(noisy, train=train), tmp_path / "run")
    assert result.status == "diverged"
    assert "r2_ridge" in result.scalars
    assert "r2_trm" not in result.scalars
