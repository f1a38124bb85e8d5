"""Tasks of the recursive predictor: codes of a file's states, and files that do not fit."""

import numpy as np
import pytest
import torch
from trm_cases import D, K, config, draw, flat

from compressor.trm_data import make_task


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
