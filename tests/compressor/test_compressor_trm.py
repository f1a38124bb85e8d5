"""Runs of compressor/trm on synthetic pairs: scores, baselines, resume, bad input."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor import trm_train
from compressor.config import DataConfig, LMConfig, TrainConfig
from compressor.model import load_best
from compressor.states import make_states
from compressor.train import run_stack
from compressor.trm_baselines import PENALTIES, equal_width, fit_ridge, ridge, score
from compressor.trm_check import check
from compressor.trm_config import (
    CodesConfig,
    CostConfig,
    FitConfig,
    RecursionConfig,
    TrmConfig,
    states_config,
)
from compressor.trm_data import make_task
from compressor.trm_fit import Fit, update_average
from compressor.trm_net import OnePass, flops_of

D, K, N, L = 12, 8, 24, 10
SMALL = RecursionConfig(n=1, rounds=2, n_sup=2)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def config(path, trm=SMALL, train=None, **model):
    cfg = TrmConfig(
        task="pairs", device="cpu", trm=trm, model=CodesConfig(**{"d_compressed": K} | model)
    )
    cfg.data.path = str(path)
    cfg.train = train or FitConfig(max_epochs=1)
    return cfg


@pytest.fixture
def linear(tmp_path):
    """post = A pre, on the K dimensions that vary: nothing is lost in the codes."""
    pre = draw(N, L, K) @ draw(K, D, seed=1)
    path = tmp_path / "linear.npz"
    np.savez(path, pre=pre + 3, post=pre @ draw(D, D, seed=2) + 1)
    return path


@pytest.fixture
def noisy(tmp_path):
    """Ragged; post depends on pre at the same position and before, and on noise."""
    pre = draw(N, L, D)
    post = pre @ draw(D, D, seed=1) + np.cumsum(pre, 1) + draw(N, L, D, seed=2)
    path = tmp_path / "noisy.npz"
    np.savez(path, pre=pre, post=post, length=1 + np.arange(N) % L)
    return path


@pytest.fixture
def task(noisy, tmp_path):
    return make_task(config(noisy), tmp_path)


def flat(task, values, sequences):
    return values[sequences][task.mask[sequences]].double()


def test_codes_are_normalised_by_the_train_split_alone(task):
    train = slice(0, task.n_train)
    for values in (task.inputs, task.targets):
        codes = flat(task, values, train)
        torch.testing.assert_close(codes.mean(0), torch.zeros(K).double(), atol=1e-5, rtol=0)
        assert codes.square().mean() == pytest.approx(1, abs=1e-5)
    assert flat(task, task.targets, slice(task.n_train, None)).square().mean() != pytest.approx(
        1, abs=1e-3
    )
    assert (task.inputs[~task.mask] == 0).all()


def test_codes_are_those_of_the_states(noisy, tmp_path):
    """k = D: a rotation, so decompressed targets are the states again, in the split's order."""
    task = make_task(config(noisy, d_compressed=D), tmp_path)
    found = task.compressor.decompress(task.codes(task.targets))
    post, length = np.load(noisy)["post"], np.load(noisy)["length"]
    rows = {tuple(np.round(x, 2)) for i, n in enumerate(length) for x in post[i, :n]}
    assert {tuple(np.round(x, 2)) for x in found[task.mask].numpy()} == rows
    torch.testing.assert_close(
        task.compressor.decompress(task.codes(task.copies))[task.mask].norm(),
        torch.tensor(
            np.linalg.norm(
                np.concatenate([np.load(noisy)["pre"][i, :n] for i, n in enumerate(length)])
            )
        ),
        rtol=1e-4,
        atol=0,
    )


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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pre": draw(3, 4, 2)}, r"needs arrays pre and post \[n, L, D\]; it has pre \[3, 4, 2\]"),
        ({"pre": draw(3, 4, 2), "post": draw(3, 5, 2)}, r"it has pre .* post \[3, 5, 2\]"),
        ({"pre": draw(3, 4), "post": draw(3, 4)}, r"it has pre \[3, 4\]"),
        (
            {"pre": draw(3, 4, 2), "post": draw(3, 4, 2), "length": np.array([1, 2, 5])},
            r"length must be 3 integers in 1\.\.4",
        ),
        (
            {"pre": draw(3, 4, 2), "post": np.full((3, 4, 2), np.nan)},
            "sequence 0 of post is not finite",
        ),
        ({"pre": draw(3, 4, 2), "post": np.ones((3, 4, 2))}, "all the same"),
        ({"pre": draw(2, 4, 2), "post": draw(2, 4, 2)}, "1 sequence to train on"),
        ({"pre": draw(8, 4, 2), "post": draw(8, 4, 2)}, r"model.d_compressed=8 must be in 1\.\.2"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    k = {} if "d_compressed" in message else {"d_compressed": 1}
    with pytest.raises(ValueError, match=message):
        make_task(config(tmp_path / "bad.npz", **k), tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "bad.npz").write_text("pre, post")
    with pytest.raises(ValueError, match=r"data.path=.* is no .npz file"):
        make_task(config(tmp_path / "bad.npz"), tmp_path)


def changed(**sections):
    cfg = TrmConfig(task=sections.pop("task", "depth"))
    for section, values in sections.items():
        for name, value in values.items():
            setattr(getattr(cfg, section), name, value)
    return cfg


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (changed(trm={"from_site": "block_4"}), "trm.from_site=block_4: known are .* block_3"),
        (
            changed(trm={"from_site": "block_2"}, lm={"site": "block_2"}),
            "trm.from_site=block_2 must come before lm.site=block_2",
        ),
        (
            changed(trm={"from_site": "block_3"}, lm={"site": "pre_norm"}),
            "trm.from_site=block_3 must come before lm.site=pre_norm",
        ),
        (changed(lm={"site": "block_1"}), "trm.from_site=block_1 must come before lm.site=block_1"),
        (changed(lm={"site": "block_9"}), "lm.site=block_9: known are"),
        (changed(lm={"source": "synthetic"}), "task=depth needs sequences of a text"),
        (changed(model={"d_compressed": 65}), r"model.d_compressed=65 must be in 1\.\.64"),
        (changed(model={"ratio": 2.0}), "model.d_compressed=16, model.ratio=2.0: one of them"),
        (
            changed(task="next", trm={"from_site": "block_1"}),
            "trm.from_site=block_1 needs task=dep",
        ),
        (changed(task="next", eval={"downstream": True}), "eval.downstream=true needs task=depth"),
        (changed(task="pairs"), "task=pairs needs data.path, .* data.path=None is no file"),
        (
            changed(task="pairs", data={"path": __file__}, train={"init_from": "x"}),
            "train.init_from=x needs task=depth or next",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_run(cfg, message):
    with pytest.raises(ValueError, match=message):
        check(cfg, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrmConfig(task="width"), "task must be one of depth, next, pairs, got 'width'"),
        (lambda: RecursionConfig(n=0), "n must be an integer >= 1, got 0"),
        (lambda: RecursionConfig(ema=1.0), r"ema must be in \[0, 1\), got 1.0"),
        (lambda: FitConfig(equal_flops="wall"), "equal_flops must be one of training, evaluation"),
        (lambda: FitConfig(lr=-1.0), "lr must be finite and > 0"),
        (lambda: CodesConfig(d_compressed=0), "d_compressed must be an integer >= 1"),
    ],
)
def test_a_value_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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
