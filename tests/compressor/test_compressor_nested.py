"""Nested compressors: every prefix of W is one of its own."""

import numpy as np
import pytest
import torch
from compressor_cases import config, final, numbers, run

from compressor.nested import nested_weights
from compressor.objectives import nested_mse
from compressor.states import make_states
from plugins.result import RunResult

NESTED = {"d_compressed": 6, "nested": [1, 3, 6]}


def rows(result, split):
    table = result.tables["nested"]
    index = [i for i, name in enumerate(table["split"]) if name == split]
    return {name: [column[i] for i in index] for name, column in table.items()}


def test_table_has_every_prefix_as_a_compressor_of_its_own(tmp_path):
    [result] = run(config(model=NESTED), tmp_path)
    W, states = final(result).double(), make_states(config())
    for split in ("train", "heldout"):
        table, X = rows(result, split), getattr(states, split).double()
        assert table["k"] == [1, 3, 6]
        for i, k in enumerate(table["k"]):
            Xhat = X @ W[:k].T @ W[:k]
            assert table["mse"][i] == pytest.approx((Xhat - X).square().mean().item())
            assert table["cos"][i] == pytest.approx(
                torch.cosine_similarity(X, Xhat, eps=1e-30).mean().item()
            )
    train = rows(result, "train")
    gaps = [
        m / states.spectrum.mse_pca(k) - 1 for m, k in zip(train["mse"], (1, 3, 6), strict=True)
    ]
    assert train["gap_pca"] == pytest.approx(gaps)
    assert train["mse"][-1] == pytest.approx(result.scalars["mse_train"])


@pytest.mark.parametrize("weights", ["equal", "inverse_pca"])
def test_heldout_loss_is_the_weighted_sum_of_the_prefixes(tmp_path, weights):
    [result] = run(config(model=NESTED | {"nested_weights": weights}), tmp_path)
    states = make_states(config())
    w = [1.0] * 3 if weights == "equal" else [1 / states.spectrum.mse_pca(k) for k in (1, 3, 6)]
    losses = rows(result, "heldout")["mse"]
    expected = sum(a * b for a, b in zip(w, losses, strict=True)) / sum(w)
    assert min(result.curves["heldout_loss"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", ["equal", "inverse_pca"])
def test_ordered_pca_is_the_optimum_of_all_prefixes(tmp_path, weights):
    """Its gradient is 0 in float64, and training from it leaves every gap below 1e-3."""
    cfg = config(model=NESTED | {"init": "pca", "nested_weights": weights})
    spectrum, X = make_states(cfg).spectrum, make_states(cfg).train.double()
    W = spectrum.leading(6)[None].requires_grad_()
    loss = nested_mse(X[None], W, torch.zeros(12).double(), [1, 3, 6], [0.2, 0.3, 0.5])
    [gradient] = torch.autograd.grad(loss.sum(), W)
    assert gradient.abs().max() < 1e-12
    assert max(rows(run(cfg, tmp_path)[0], "train")["gap_pca"]) < 2e-2


def test_prefixes_of_a_trained_nested_compressor_come_close_to_pca(tmp_path):
    train = {"batch": 64, "max_epochs": 150, "early_stopping": False}
    nested, plain = (
        run(config(model={"d_compressed": 6, "nested": sizes}, train=train), tmp_path / str(i))[0]
        for i, sizes in enumerate(([1, 3, 6], []))
    )
    assert max(rows(nested, "train")["gap_pca"]) < 0.02
    W, X = final(plain).double()[:1], make_states(config()).train.double()
    mse = (X @ W.T @ W - X).square().mean().item()
    assert mse / make_states(config()).spectrum.mse_pca(1) - 1 > 0.1  # not of a plain one


def test_one_prefix_is_a_plain_compressor(tmp_path):
    one, plain = (
        numbers(run(config(model={"nested": sizes}), tmp_path / str(i))[0])
        for i, sizes in enumerate(([3], []))
    )
    assert one["mse_heldout"] == pytest.approx(plain["mse_heldout"], rel=1e-5)
    np.testing.assert_allclose(one["curve train_mse"], plain["curve train_mse"], rtol=1e-5)


def test_last_prefix_of_all_dimensions_has_no_gap(tmp_path):
    [result] = run(config(model={"d_compressed": 12, "nested": [3, 12]}), tmp_path)
    assert rows(result, "train")["gap_pca"][1] is None
    assert isinstance(result, RunResult)  # whose columns are equally long


def test_weights_by_a_pca_without_error_are_an_error(tmp_path):
    model = {"d_compressed": 12, "nested": [3, 12], "nested_weights": "inverse_pca"}
    with pytest.raises(ValueError, match=r"k=12 has a PCA without error"):
        run(config(model=model), tmp_path)


def test_weights_of_nested_losses():
    cfg = config(model={"nested": [1, 2, 3]})
    states = make_states(cfg)
    assert nested_weights(cfg, states.spectrum) == pytest.approx([1 / 3] * 3)
    cfg = config(model={"nested": [1, 2, 3], "nested_weights": "inverse_pca"})
    found = nested_weights(cfg, states.spectrum)
    assert sum(found) == pytest.approx(1)
    products = [w * states.spectrum.mse_pca(k) for w, k in zip(found, (1, 2, 3), strict=True)]
    assert products == pytest.approx([products[0]] * 3)
