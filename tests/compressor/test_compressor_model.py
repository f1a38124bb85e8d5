"""The compressor and its file."""

from dataclasses import asdict

import pytest
import torch
from compressor_cases import config

from compressor.config import ModelConfig
from compressor.model import (
    Best,
    Compressor,
    continued,
    initial_weights,
    load_best,
    save_best,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_best(**changes):
    W = torch.linalg.qr(normal(12, 3)).Q.T.contiguous()
    return Best(Compressor(W, normal(12, seed=1)), asdict(config(**changes)), "abc", {"mse": 0.5})


def test_reconstruction_is_a_projection_about_the_mean():
    c = some_best().compressor
    x = normal(2, 5, 12, seed=2)
    assert (c.k, c.dim) == (3, 12)
    assert c.compress(x).shape == (2, 5, 3)
    torch.testing.assert_close(c(x), c.mu + (x - c.mu) @ c.W.T @ c.W)
    torch.testing.assert_close(c(c(x)), c(x))
    torch.testing.assert_close(c(c.mu), c.mu)
    torch.testing.assert_close(c.decompress(c.compress(x)), c(x))


def test_file_gives_back_what_was_saved(tmp_path):
    best = some_best()
    save_best(tmp_path / "best.pt", best)
    found = load_best(tmp_path / "best.pt")
    assert torch.equal(found.compressor.W, best.compressor.W)
    assert torch.equal(found.compressor.mu, best.compressor.mu)
    assert (found.config, found.run_id, found.metrics) == (best.config, "abc", {"mse": 0.5})
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert set(content) == {"W", "mu", "config", "run_id", "site", "metrics"}
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_failed_save_keeps_the_file_before(tmp_path):
    path = tmp_path / "best.pt"
    save_best(path, some_best())
    before = path.read_bytes()
    best = some_best()
    best.metrics["bad"] = lambda: None  # cannot be pickled
    with pytest.raises(Exception, match="pickle"):
        save_best(path, best)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no zip", None], ids=["empty", "text", "other keys"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "best.pt"
    if content is None:
        torch.save({"weights": normal(2, 2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"best\.pt is no checkpoint of a compressor"):
        load_best(path)
    with pytest.raises(ValueError, match=r"nothing\.pt: no such file"):
        load_best(tmp_path / "nothing.pt")


def test_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "best.pt"
    save_best(path, some_best())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is no checkpoint of a compressor"):
        load_best(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.d_compressed", 4),
        ("lm.dim", 13),
        ("model.center", "mean"),
        ("lm.site", "pre_norm"),
    ],
)
def test_checkpoint_that_does_not_fit_names_what_differs(tmp_path, key, value):
    save_best(tmp_path / "best.pt", some_best())
    fits = {"model.d_compressed": 3, "lm.dim": 12, "model.center": None, "lm.site": "post_norm"}

    def compressor(wanted):
        k, dim, center, site = wanted.values()
        changes = {"model": {"center": center}, "lm": {"site": site}}
        cfg = config(train={"init_from": str(tmp_path)}, **changes)
        return continued(cfg, k, dim, tmp_path / "store")

    torch.testing.assert_close(compressor(fits).W, some_best().compressor.W)
    with pytest.raises(ValueError, match=rf"its {key} is {fits[key]}, this run's {value}"):
        compressor(fits | {key: value})


@pytest.mark.parametrize(("init", "scale"), [("orthogonal", 1.0), ("pca", 1.0), ("small", 1e-2)])
def test_initial_rows_are_orthonormal_times_a_scale(init, scale):
    basis = torch.linalg.qr(normal(12, 12, seed=3).double()).Q
    W = initial_weights(ModelConfig(init=init), 5, basis, 0)
    assert W.dtype == torch.float32
    torch.testing.assert_close(W @ W.T, scale**2 * torch.eye(5), rtol=1e-5, atol=1e-6 * scale**2)
    half = initial_weights(ModelConfig(init=init, init_scale=0.5), 5, basis, 0)
    torch.testing.assert_close(half, W * (0.5 / scale))
    if init == "pca":
        torch.testing.assert_close(W, basis[:, :5].T.float())
    else:
        assert not torch.equal(initial_weights(ModelConfig(init=init), 5, basis, 1), W)
