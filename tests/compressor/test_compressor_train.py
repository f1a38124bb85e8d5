"""Runs: what a row says, and that a stack's rows are those of its runs alone."""

import math

import numpy as np
import pytest
import torch
from compressor_cases import config, final, numbers, on_model, run

from compressor import registry
from compressor.model import load_best
from compressor.states import make_states


def test_row_says_what_was_trained(tmp_path):
    cfg = config()
    [result] = run(cfg, tmp_path)
    row, states = result.scalars, make_states(cfg)
    assert result.status == "ok"
    assert (row["dim"], row["k"], row["n_params"]) == (12, 3, 36)
    assert (row["n_tokens"], row["n_tokens_train"], row["n_tokens_heldout"]) == (500, 400, 100)
    assert (row["n_steps"], row["n_epochs"], row["stopped_early"]) == (28, 4, False)
    W = final(result).double()
    for split in ("train", "heldout"):
        X = getattr(states, split).double()
        assert row[f"mse_{split}"] == pytest.approx((X @ W.T @ W - X).square().mean().item())
    assert row["mse_pca_train"] == pytest.approx(states.spectrum.mse_pca(3))
    assert row["gap_pca_train"] == pytest.approx(row["mse_train"] / row["mse_pca_train"] - 1)
    assert row["mse_oracle_heldout"] <= row["mse_heldout"]
    best = row["best_epoch"] * 7
    curve = dict(zip(result.curves["step"], result.curves["heldout_mse"], strict=True))
    assert row["mse_heldout"] == pytest.approx(curve[best], rel=1e-9)
    assert curve[best] == min(curve.values())
    assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def test_files_of_a_run(tmp_path):
    cfg = config(lm={"mean": 2.0}, model={"center": "mean"})
    [result] = run(cfg, tmp_path)
    best_file, eigenvalues = result.artifacts
    best, states = load_best(best_file), make_states(cfg)
    torch.testing.assert_close(best.compressor.mu, states.train.mean(0))
    X = states.heldout
    mse = (best.compressor(X) - X).double().square().mean().item()
    assert mse == pytest.approx(result.scalars["mse_heldout"], rel=1e-5)
    assert best.run_id == "0"
    assert best.config["model"]["center"] == "mean"
    assert best.metrics == result.scalars
    assert (np.diff(np.load(eigenvalues)) <= 0).all()
    assert np.load(eigenvalues).sum() == pytest.approx(states.spectrum.C.trace().item())


def test_curves_are_of_the_named_quantities(tmp_path):
    curves = run(config(), tmp_path)[0].curves
    assert curves["step"] == [0, 7, 14, 21, 28]
    assert set(curves) == {
        *("step", "train_mse", "heldout_mse", "train_gap", "heldout_gap", "overlap", "orth"),
        *("idem", "heldout_loss", "mode_strength", "loss", "lr", "grad_norm", "grad_norm_clipped"),
    }
    assert [len(point) for point in curves["mode_strength"]] == [4] * 5


REPLICAS = {
    "train.seed": [0, 1, 0, 2],
    "train.lr": [1e-2, 1e-2, 3e-2, 1e-3],
    "model.d_compressed": [3, 3, 5, 2],
}


@pytest.mark.parametrize("source", ["synthetic", "language model"])
def test_rows_of_a_stack_are_those_of_the_runs_alone(gpt2, tmp_path, source):
    def make(**changes):
        if source == "synthetic":
            return config(**changes)
        return on_model(gpt2, eval={"downstream": True}, **changes)

    together = run(make(), tmp_path / "stack", REPLICAS)
    for i, result in enumerate(together):
        train = {"seed": REPLICAS["train.seed"][i], "lr": REPLICAS["train.lr"][i]}
        model = {"d_compressed": REPLICAS["model.d_compressed"][i]}
        [alone] = run(make(train=train | {"batch": 64, "max_epochs": 4}, model=model), tmp_path)
        found, expected = numbers(result), numbers(alone)
        assert set(found) == set(expected)
        for name, value in expected.items():
            if isinstance(value, str) or name.endswith("sha256"):
                assert found[name] == value
            else:
                a, b = np.array(found[name], float), np.array(value, float)
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def test_ratios_may_differ_in_a_stack(tmp_path):
    cfg = config(model={"d_compressed": None, "ratio": 4})
    results = run(cfg, tmp_path, {"model.ratio": [12, 4.0, 2]})
    assert [result.scalars["k"] for result in results] == [1, 3, 6]


def test_same_config_gives_the_same_row(tmp_path):
    one, two = (numbers(run(config(), tmp_path / name)[0]) for name in "ab")
    np.testing.assert_equal(one, two)


def test_diverged_run_has_its_curves_and_the_others_their_rows(tmp_path):
    replicas = {"train.lr": [1e-2, 1e30]}
    fine, broken = run(config(), tmp_path / "stack", replicas)
    assert (fine.status, broken.status) == ("ok", "diverged")
    assert broken.curves["step"] == [0]
    assert broken.scalars["best_epoch"] == 0
    [alone] = run(config(), tmp_path)
    assert fine.scalars["mse_heldout"] == pytest.approx(alone.scalars["mse_heldout"], rel=1e-5)


def test_fewer_states_than_dimensions_of_the_code_are_warned_of(tmp_path, capsys):
    [result] = run(config(lm={"rows": 6}, model={"d_compressed": 8}), tmp_path)
    assert "5 states of the train split are fewer than D' = 8" in capsys.readouterr().err
    assert result.scalars["mse_pca_train"] == 0
    assert "gap_pca_train" not in result.scalars
    assert result.scalars["is_degenerate"] is True
    assert "subspace_overlap" not in result.scalars


def test_code_of_all_dimensions_loses_nothing(tmp_path):
    [result] = run(config(model={"d_compressed": 12, "init": "pca"}), tmp_path)
    assert result.scalars["mse_pca_heldout"] == 0
    assert result.curves["train_mse"][0] < 1e-12


def test_key_that_cannot_differ_in_a_stack_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.seed.* may not differ inside a stack"):
        run(config(), tmp_path, {"data.seed": [0, 1]})


def test_metric_of_somebody_else_is_a_column(tmp_path):
    @registry.register_metric("trace_of_m")
    def trace_of_m(ctx, times):
        return times * ctx.W.square().sum().item()

    [result] = run(config(metrics=[{"trace_of_m": {"times": 2.0}}]), tmp_path)
    W = final(result)
    assert result.scalars["trace_of_m"] == pytest.approx(2 * W.square().sum().item())
    assert "mse_heldout" not in result.scalars


def test_end_of_stage_1a_says_how_to_go_on(tmp_path, capsys):
    run(config(), tmp_path, {"train.seed": [0, 1]})
    err = capsys.readouterr().err
    assert "stage=1b train.init_from=0" in err
    assert "stage=1b train.init_from=1" in err
    assert "400 states to train on: 7 updates an epoch, at most 28" in err
