"""An interrupted run goes on from its last checkpoint as if nothing had happened."""

import numpy as np
import pytest
import torch
from compressor_cases import config, final, numbers, run

from compressor import registry, train


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def save_after_every_epoch(monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)


def interrupt(cfg, folder, epoch, replicas=None):
    """Stops right after the checkpoint of `epoch`."""

    def on_progress(fraction):
        if fraction * cfg.train.max_epochs >= epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(cfg, folder, replicas, on_progress=on_progress)


CHANGES = [
    {},
    {"model": {"init": "small", "center": "mean"}, "lm": {"mean": 2.0}},
    {"train": {"optimizer": "sgd", "lr": 0.3}},
    {"train": {"objective": "cosine"}},
    {"eval": {"every": 3}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("epoch", [1, 3])
def test_run_alone_ends_bit_for_bit_as_undisturbed(tmp_path, capsys, changes, epoch):
    cfg = config(**changes)
    [expected] = run(cfg, tmp_path / "undisturbed")
    interrupt(cfg, tmp_path / "killed", epoch)
    capsys.readouterr()
    [result] = run(cfg, tmp_path / "killed")
    assert f"goes on after epoch {epoch}" in capsys.readouterr().err
    np.testing.assert_equal(numbers(result), numbers(expected))
    assert torch.equal(final(result), final(expected))


def test_run_killed_inside_an_epoch_repeats_that_epoch(tmp_path):
    cfg = config()

    class Break:
        def record(self, run, step, values):
            if step == 21:
                raise Interrupted

    registry.register_callback("break_at_21")(Break)
    [expected] = run(cfg, tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        run(config(callbacks=["break_at_21"]), tmp_path / "killed")
    [result] = run(cfg, tmp_path / "killed")
    np.testing.assert_equal(numbers(result), numbers(expected))


def test_killed_twice(tmp_path):
    cfg = config()
    [expected] = run(cfg, tmp_path / "undisturbed")
    interrupt(cfg, tmp_path / "killed", 1)
    interrupt(cfg, tmp_path / "killed", 2)
    [result] = run(cfg, tmp_path / "killed")
    np.testing.assert_equal(numbers(result), numbers(expected))


def test_early_stopping_counts_on(tmp_path):
    cfg = config(train={"max_epochs": 20, "min_delta": 2e-3, "patience": 2})
    [expected] = run(cfg, tmp_path / "undisturbed")
    last = expected.scalars["n_epochs"]
    assert expected.scalars["stopped_early"]
    assert last < 20
    interrupt(cfg, tmp_path / "killed", last - 1)  # one epoch without a better loss is behind it
    [result] = run(cfg, tmp_path / "killed")
    np.testing.assert_equal(numbers(result), numbers(expected))


def test_stack_of_which_one_has_stopped_and_one_diverged(tmp_path):
    cfg = config(train={"max_epochs": 6, "min_delta": 1e-4, "patience": 2})
    replicas = {"train.lr": [1e-6, 1e-2, 1e30, 1e-2], "train.seed": [0, 1, 2, 3]}
    expected = run(cfg, tmp_path / "undisturbed", replicas)
    assert [result.scalars["n_epochs"] for result in expected] == [3, 6, 0, 6]
    interrupt(cfg, tmp_path / "killed", 4, replicas)
    found = run(cfg, tmp_path / "killed", replicas)
    assert [result.status for result in found] == ["ok", "ok", "diverged", "ok"]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_equal(numbers(one), numbers(other))


def test_runs_that_were_stopped_at_different_epochs_make_their_ways_together(tmp_path):
    """As when a stack is killed between the files of two members."""
    replicas = {"train.seed": [0, 1, 2]}
    expected = run(config(), tmp_path / "undisturbed", replicas)
    interrupt(config(), tmp_path / "killed", 3, replicas)
    folder = tmp_path / "killed" / "work" / "1"
    newest = max(folder.glob("checkpoints/*/epoch-*.pt"))
    assert newest.name == "epoch-00003.pt"
    newest.unlink()
    found = run(config(), tmp_path / "killed", replicas)
    for one, other in zip(found, expected, strict=True):
        a, b = numbers(one), numbers(other)
        for name in ("mse_heldout", "mse_train", "best_epoch", "n_steps"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)
        assert a["curve step"] == b["curve step"]


def test_damaged_checkpoint_is_named_and_left_out(tmp_path, capsys):
    cfg = config()
    [expected] = run(cfg, tmp_path / "undisturbed")
    interrupt(cfg, tmp_path / "killed", 3)
    files = sorted((tmp_path / "killed").rglob("epoch-*.pt"))
    assert [file.name for file in files] == ["epoch-00002.pt", "epoch-00003.pt"]
    files[-1].write_bytes(files[-1].read_bytes()[:100])
    capsys.readouterr()
    [result] = run(cfg, tmp_path / "killed")
    err = capsys.readouterr().err
    assert "epoch-00003.pt is damaged and left out" in err
    assert "goes on after epoch 2" in err
    np.testing.assert_equal(numbers(result), numbers(expected))


def test_states_that_have_changed_are_trained_on_from_the_start(tmp_path, capsys):
    interrupt(config(), tmp_path, 2)
    capsys.readouterr()
    [result] = run(config(data={"seed": 1}), tmp_path)
    assert "goes on after" not in capsys.readouterr().err
    [expected] = run(config(data={"seed": 1}), tmp_path / "other")
    np.testing.assert_equal(numbers(result), numbers(expected))
