"""Velocity and acceleration of a metric's mean."""

import numpy as np
import pytest
from memdyn_series import one_layer, run_of

from memdyn.theory import compute_compression_velocity


def test_a_square_has_the_slope_of_its_midpoints_and_a_constant_acceleration():
    e = np.array([0, 1, 3, 6, 10])
    found = compute_compression_velocity({"epoch": e, "nv_rel": e**2})
    assert found.velocity.tolist() == [1, 4, 9, 16]
    assert found.acceleration.tolist() == [2, 2, 2]
    assert (2 * found.midpoints).tolist() == [1, 4, 9, 16]
    assert found.sign_changes == 0


def test_standard_errors_are_those_of_the_passages_own_changes():
    """A level that differs between passages is no error of the velocity."""
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(3, 40))
    y = 100 * rng.normal(size=40) + np.concatenate([np.zeros((1, 40)), changes.cumsum(0)])
    found = compute_compression_velocity(one_layer(y, epochs=[0, 1, 2, 4]))
    expected = changes.std(1, ddof=1) / np.sqrt(40) / [1, 1, 2]
    np.testing.assert_allclose(found.velocity_se, expected, rtol=1e-10)
    np.testing.assert_allclose(found.se, y.std(1, ddof=1) / np.sqrt(40), rtol=1e-10)


def test_a_wobble_within_two_standard_errors_is_no_change_of_sign():
    rng = np.random.default_rng(1)
    mean = np.array([0, -1, -2, -1.99, -3, -2])[:, None]
    y = mean + 0.3 * rng.normal(size=(6, 30))
    y += mean - y.mean(1, keepdims=True)
    epochs = range(6)
    assert compute_compression_velocity(one_layer(y, epochs)).sign_changes == 1
    bare = {"epoch": epochs, "nv_rel": mean[:, 0]}
    assert compute_compression_velocity(bare).sign_changes == 3


def test_groups_and_layers_are_taken_apart():
    data = run_of(n=10)
    trained, novel = (
        compute_compression_velocity(data, 1, group) for group in ("trained", "novel")
    )
    assert trained.velocity.mean() < -0.02
    assert abs(novel.velocity.mean()) < 0.02
    with pytest.raises(ValueError, match="group must be trained or novel, got 'test'"):
        compute_compression_velocity(data, 1, "test")


def test_one_epoch_has_no_velocity():
    found = compute_compression_velocity({"epoch": [3], "nv_rel": [1.0]})
    assert (found.velocity.size, found.acceleration.size, found.sign_changes) == (0, 0, None)
    assert found.reason == "nv_rel of trained passages at 1 epochs, 2 needed"
