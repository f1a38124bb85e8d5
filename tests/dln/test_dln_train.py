"""Runs and stacks: records, divergence, a stack against its members."""

import time

import numpy as np
import pytest
import torch
from dln_cases import config, small, trainer, workdirs

from dln.lockstep import train_in_lockstep
from dln.records import record_steps
from dln.registry import metrics, register_metric
from dln.train import run_stack

REPLICA_VALUES = {
    "model.model_seed": lambda r: r % 7,
    "model.gamma": lambda r: (0.75, 1.0, 1.5)[r % 3],
    "training.lr": lambda r: (0.01, 0.02)[r % 2],
    "training.batch_seed": lambda r: r // 3,
    "data.data_seed": lambda r: r % 5,
    "data.noise_std": lambda r: (0.0, 0.1)[r // 2 % 2],
}


@pytest.mark.parametrize(
    ("max_steps", "num_evaluations", "expected"),
    [
        (10000, 250, [*range(0, 10001, 40)]),
        (10, 4, [0, 3, 6, 9, 10]),
        (10, 2, [0, 5, 10]),
        (3, 250, [0, 1, 2, 3]),
        (0, 250, [0]),
        (7, 1, [0, 7]),
    ],
)
def test_the_grid_of_records(max_steps, num_evaluations, expected):
    assert record_steps(max_steps, num_evaluations) == expected


def test_a_run_records_the_initial_and_the_trained_network():
    cfg = small(max_steps=10, num_evaluations=4, training__track_train_loss=True)
    state = trainer(cfg)
    initial = [W.clone() for W in state.weights]
    result = train_in_lockstep({"": state})[0]
    assert list(result.curves) == ["step", "test_loss", "train_loss"]
    assert result.curves["step"].tolist() == [0, 3, 6, 9, 10]
    data = state.dataset
    for record, weights in ((0, initial), (-1, state.weights)):
        E = weights[2] @ weights[1] @ weights[0]
        for name, x, y in (
            ("test_loss", data.test_inputs, data.test_targets),
            ("train_loss", data.train_inputs, data.train_targets),
        ):
            loss = (x @ E.mT - y).square().mean().item()
            assert result.curves[name][record] == pytest.approx(loss, rel=1e-12)
    assert result.status == "ok"
    assert result.scalars == {
        "final_test_loss": result.curves["test_loss"][-1],
        "final_train_loss": result.curves["train_loss"][-1],
        "n_params": 72,
    }


def test_a_run_tells_its_share_of_the_time_of_each_metric(monkeypatch):
    """Two runs: three records of at least 20 ms are 30 ms a run; no more than the stack took."""
    monkeypatch.setattr(metrics, "_functions", dict(metrics._functions))

    @register_metric("sleepy")
    def sleepy(ctx):
        time.sleep(0.02)
        return ctx.product[:, 0, 0]

    cfg = small(metrics=["sleepy", "weight_norm"], max_steps=2, num_evaluations=2)
    start = time.perf_counter()
    results = run_stack(cfg, {"training.batch_seed": [0, 1]}, workdirs(2))
    taken = time.perf_counter() - start
    for result in results:
        spent = [result.scalars[f"seconds_metric_{name}"] for name in ("sleepy", "weight_norm")]
        assert 0.03 <= spent[0] <= taken / 2
        assert 0 < spent[1] <= taken / 2 - spent[0]


def test_no_steps_are_one_record():
    result = run_stack(small(max_steps=0), {}, workdirs(1))[0]
    assert result.curves["step"].tolist() == [0]


def test_losses_have_the_dtype_of_training():
    for dtype in ("float32", "float64"):
        result = run_stack(small(dtype=dtype), {}, workdirs(1))[0]
        assert result.curves["test_loss"].dtype == dtype
        assert result.scalars["final_test_loss"] == float(result.curves["test_loss"][-1])


@pytest.mark.parametrize(
    "values",
    [
        {"training__batch_size": 5},
        {"training__batch_size": 3, "data__online": True, "training__optimizer": "Adam"},
        {"training__optimizer_params": {"momentum": 0.5}, "data__d_active": 2},
    ],
)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_a_run_alone_is_the_run_in_a_mixed_stack_of_64(values, dtype, rtol):
    """Property 10, also permuted, over 1000 steps below the stability limit.

    Relative to the largest loss and norm: near zero the relative error of float32 means nothing.
    """
    cfg = small(**values, dtype=dtype, max_steps=1000, metrics=["weight_norm", "singular_values"])
    if cfg.training.optimizer == "Adam":
        cfg.training.lr = 1e-3
    replicas = {key: [value(r) for r in range(64)] for key, value in REPLICA_VALUES.items()}
    if cfg.training.optimizer == "Adam":
        replicas["training.lr"] = [lr / 10 for lr in replicas["training.lr"]]
    stack = run_stack(cfg, replicas, workdirs(64))
    order = np.random.default_rng(0).permutation(64)
    permuted = {key: [column[r] for r in order] for key, column in replicas.items()}
    shuffled = run_stack(cfg, permuted, workdirs(64))
    for r in (0, 1, 22, 63):
        alone = run_stack(cfg, {k: [v[r]] for k, v in replicas.items()}, workdirs(1))[0]
        for other in (stack[r], shuffled[list(order).index(r)]):
            assert list(other.curves) == list(alone.curves)
            for name, curve in alone.curves.items():
                scale = abs(curve).max()
                np.testing.assert_allclose(other.curves[name], curve, rtol=rtol, atol=rtol * scale)


def test_replica_values_are_those_of_the_config():
    """A column of a stack of one and the field itself are the same run, for every replica key."""
    for key, value in REPLICA_VALUES.items():
        name = key.replace(".", "__")
        by_field = run_stack(small(training__batch_size=5, **{name: value(11)}), {}, workdirs(1))
        by_column = run_stack(small(training__batch_size=5), {key: [value(11)]}, workdirs(1))
        usual = run_stack(small(training__batch_size=5), {}, workdirs(1))
        ours = by_column[0].curves["test_loss"].tolist()
        assert ours == by_field[0].curves["test_loss"].tolist()
        assert ours != usual[0].curves["test_loss"].tolist(), key


def test_columns_of_a_wrong_length_or_of_a_fixed_key_are_errors():
    with pytest.raises(ValueError, match=r"training\.lr has 2 values for 3 runs"):
        run_stack(small(), {"training.lr": [1, 2]}, workdirs(3))
    with pytest.raises(ValueError, match=r"'model.hidden_dim'.* may not differ"):
        run_stack(small(), {"model.hidden_dim": [1, 2]}, workdirs(2))


def diverging(**values):
    """Stack mates at lr 0.01, with a replica at lr 100 in the middle."""
    cfg = small(**{"training__batch_size": 5, "num_evaluations": 30, **values})
    return cfg, {"training.lr": [0.01, 100.0, 0.02], "training.batch_seed": [0, 1, 2]}


def test_gph_at_a_large_rate_diverges_by_step_ten():
    """Property 8."""
    cfg = config(training__lr=0.1, max_steps=20, num_evaluations=20)
    result = run_stack(cfg, {}, workdirs(1))[0]
    assert result.status == "diverged"
    assert result.scalars["diverged_step"] <= 10


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"data__online": True, "data__noise_std": 0.1, "data__d_active": 2},
        {"training__optimizer_params": {"momentum": 0.9}},
        {"training__track_train_loss": True},
    ],
)
def test_stack_mates_of_a_diverged_replica_are_unchanged(values):
    cfg, replicas = diverging(**values, metrics=["relative_rank", "partial_product_metrics"])
    good, bad, other = run_stack(cfg, replicas, workdirs(3))
    assert bad.status == "diverged"
    n = len(bad.curves["step"])
    assert 0 < n < 31
    assert bad.scalars["diverged_step"] > bad.curves["step"][-1]
    assert bad.scalars["final_test_loss"] == bad.curves["test_loss"][-1]
    assert all(np.isfinite(curve).all() and len(curve) == n for curve in bad.curves.values())
    for r, result in ((0, good), (2, other)):
        assert result.status == "ok"
        assert "diverged_step" not in result.scalars
        alone = run_stack(cfg, {k: [v[r]] for k, v in replicas.items()}, workdirs(1))[0]
        for name, curve in alone.curves.items():
            np.testing.assert_allclose(result.curves[name], curve, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("at_step", "record"), [(0, 0), (10, 10)])
def test_a_divergence_at_the_step_of_a_switch_is_one(at_step, record):
    """Batches of the new size have not been drawn when the replica leaves."""
    switch = {"switch_batch_size": {"at_step": at_step, "batch_size": 7}}
    cfg, replicas = diverging(max_steps=20, num_evaluations=2, callbacks=[switch])
    state = trainer(cfg, replicas, 3)
    if at_step == 0:
        state.weights[0][1] = torch.inf
    good, bad, _ = train_in_lockstep({"": state})
    assert (good.status, bad.status) == ("ok", "diverged")
    assert bad.scalars["diverged_step"] == record


def test_a_stack_whose_replicas_all_diverge_ends():
    cfg, _ = diverging()
    seen = []
    results = run_stack(cfg, {"training.lr": [100.0, 200.0]}, workdirs(2), seen.append)
    assert [result.status for result in results] == ["diverged", "diverged"]
    assert seen[-1] == 1.0


def test_divergence_is_seen_off_the_grid_at_every_hundredth_step():
    cfg, _ = diverging(max_steps=1000, num_evaluations=1)
    result = run_stack(cfg, {"training.lr": [100.0]}, workdirs(1))[0]
    assert result.scalars["diverged_step"] == 100
    assert result.curves["step"].tolist() == [0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_no_metric_sees_a_weight_that_is_not_finite(monkeypatch, value, layer):
    """Also where the bad weight meets zeros only."""
    monkeypatch.setattr(metrics, "_functions", dict(metrics._functions))

    @register_metric("witness")
    def witness(ctx):
        assert all(W.isfinite().all() for W in ctx.weights)
        return ctx.product.sum((-2, -1))

    state = trainer(small(metrics=["witness"]), {"training.batch_seed": [0, 1]}, 2)
    state.weights[0].zero_()
    state.weights[-1].zero_()
    state.weights[layer][1, 0, 1] = value
    fine, bad = train_in_lockstep({"": state})
    assert (fine.status, bad.status) == ("ok", "diverged")
    assert bad.scalars["diverged_step"] == 0
    assert "final_test_loss" not in bad.scalars
    assert all(len(curve) == 0 for curve in bad.curves.values())


def test_a_finite_explosion_is_a_divergence():
    """test_loss > 1e12 (1 + its start), far below the largest number."""
    cfg = small(model__num_hidden=0, training__lr=10.0, max_steps=200, num_evaluations=200)
    result = run_stack(cfg, {}, workdirs(1))[0]
    losses = result.curves["test_loss"]
    assert result.status == "diverged"
    assert losses[-1] <= 1e12 * (1 + losses[0])
    assert losses[-1] > 1e6


def test_progress_rises_to_one_at_records():
    seen = []
    run_stack(small(max_steps=10, num_evaluations=2), {}, workdirs(1), seen.append)
    assert seen == [0.0, 0.5, 1.0]


def test_runs_leave_torchs_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    run_stack(small(training__batch_size=5), {}, workdirs(1))
    assert torch.rand(1).equal(expected)
    assert torch.get_num_threads() == threads
