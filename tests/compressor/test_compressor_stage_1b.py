"""Stage 1b: from a compressor of text to reasoning traces, and what is forgotten of the text."""

import shutil

import pytest
import torch
from compressor_cases import final, on_model, run, save_gpt2

from compressor.states import make_states


@pytest.fixture(scope="module")
def store(gpt2, tmp_path_factory):
    """A store with a run of stage 1a, as the worker leaves it: artifacts/<run_id>/best.pt."""
    folder = tmp_path_factory.mktemp("store")
    [result] = run(on_model(gpt2), folder)
    (folder / "artifacts" / "first").mkdir(parents=True)
    shutil.copy(result.artifacts[0], folder / "artifacts" / "first" / "best.pt")
    return folder


def stage_1b(gpt2, init_from="first", **changes):
    train = {"batch": 64, "max_epochs": 4, "init_from": str(init_from)} | changes.pop("train", {})
    return on_model(gpt2, stage="1b", train=train, **changes)


def mse(W, X):
    X, W = X.double(), W.double()
    return (X @ W.T @ W - X).square().mean().item()


@pytest.mark.parametrize("place", ["run", "file", "folder"])
def test_goes_on_from_the_checkpoint_at_a_smaller_rate(gpt2, store, tmp_path, place):
    shutil.copytree(store, tmp_path / "store")
    folder = tmp_path / "store" / "artifacts" / "first"
    init_from = {"run": "first", "file": folder / "best.pt", "folder": folder}[place]
    cfg = stage_1b(gpt2, init_from)
    [result] = run(cfg, tmp_path / "store")
    W = torch.load(folder / "best.pt", weights_only=True)["W"]
    states = make_states(cfg)
    assert result.curves["train_mse"][0] == pytest.approx(mse(W, states.train), rel=1e-9)
    assert max(result.curves["lr"][1:]) <= 0.3 * cfg.train.lr
    n, warmup = result.scalars["n_steps"], round(0.1 * result.scalars["n_steps"])
    assert n > warmup >= 1
    row = result.scalars
    text = make_states(on_model(gpt2)).heldout
    before, after = mse(W, text), mse(final(result), text)
    assert row["mse_1a_before"] == pytest.approx(before, rel=1e-9)
    assert row["mse_1a_after"] == pytest.approx(after, rel=1e-9)
    assert row["forget_1a"] == pytest.approx(after / before - 1, rel=1e-6)
    assert row["mse_pca_train"] == pytest.approx(states.spectrum.mse_pca(3))  # of the traces
    assert row["mse_heldout"] == pytest.approx(mse(final(result), states.heldout))


def test_rates_are_three_tenths_of_those_of_stage_1a(gpt2, store):
    first = run(on_model(gpt2, train={"batch": 64, "schedule": "constant"}), store / "a")[0]
    cfg = stage_1b(gpt2, store / "artifacts" / "first", train={"schedule": "constant"})
    second = run(cfg, store / "b")[0]
    assert set(first.curves["lr"][1:]) == {1e-2}
    assert second.curves["lr"][1:] == pytest.approx([3e-3] * 4)


def test_states_are_of_the_thinking_alone(gpt2, store):
    sequences = make_states(stage_1b(gpt2)).sequences
    assert sequences.doc_id[0].startswith("0-")
    everything = make_states(stage_1b(gpt2, data={"span": "all"})).sequences
    assert sequences.n_kept().sum() < everything.n_kept().sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"d_compressed": 4}}, r"its model\.d_compressed is 3, this run's 4"),
        ({"model": {"center": "mean"}}, r"its model\.center is None, this run's mean"),
        ({"lm": {"site": "block_1"}}, r"its lm\.site is post_norm, this run's block_1"),
        ({"train": {"init_from": "nosuchrun"}}, r"train\.init_from=nosuchrun: neither a run of"),
    ],
    ids=str,
)
def test_checkpoint_that_does_not_fit_is_an_error(gpt2, store, changes, message):
    with pytest.raises(ValueError, match=message):
        run(stage_1b(gpt2, **changes), store)


def test_checkpoint_of_another_width_is_an_error(store, tmp_path):
    wide = save_gpt2(tmp_path / "wide", n_embd=20)
    with pytest.raises(ValueError, match=r"its lm\.dim is 16, this run's 20"):
        run(stage_1b(wide), store)


def test_damaged_checkpoint_is_an_error_and_stays(gpt2, store, tmp_path):
    shutil.copytree(store / "artifacts", tmp_path / "store" / "artifacts")
    file = tmp_path / "store" / "artifacts" / "first" / "best.pt"
    content = file.read_bytes()[:500]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"best\.pt is no checkpoint of a compressor"):
        run(stage_1b(gpt2), tmp_path / "store")
    assert file.read_bytes() == content
    assert not (tmp_path / "store" / "work").exists()


def test_text_that_was_reconstructed_without_error_gives_no_ratio(gpt2, tmp_path):
    """Of a code of all dimensions the error is rounding: forget_1a is a number or left out."""
    model = {"d_compressed": 16, "init": "pca"}
    [first] = run(on_model(gpt2, model=model, train={"lr": 1e-9}), tmp_path / "a")
    cfg = stage_1b(gpt2, first.artifacts[0], model={"d_compressed": 16}, train={"lr": 1e-9})
    [result] = run(cfg, tmp_path / "b")
    assert result.scalars["mse_1a_before"] < 1e-10


def test_checkpoint_that_was_replaced_meanwhile_is_started_from(gpt2, store, tmp_path, monkeypatch):
    """An interrupted run does not go on from weights that come of another checkpoint."""
    from compressor import train

    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    file = tmp_path / "best.pt"
    shutil.copy(store / "artifacts" / "first" / "best.pt", file)

    def stop(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(stage_1b(gpt2, file), tmp_path / "killed", on_progress=stop)
    content = torch.load(file, weights_only=True)
    content["W"] = content["W"].flip(1)
    torch.save(content, file)
    [result] = run(stage_1b(gpt2, file), tmp_path / "killed")
    [expected] = run(stage_1b(gpt2, file), tmp_path / "other")
    assert torch.equal(final(result), final(expected))
