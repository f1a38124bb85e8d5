"""Data: teachers, independence of the streams' parts, projection, third-party matrices."""

import pytest
import torch

from dln.config import DataConfig, ModelConfig
from dln.data import haar_rotations, make_dataset, make_matrix
from dln.registry import matrices, register_matrix

MODEL = ModelConfig(in_dim=4, out_dim=4)
POWER = {"matrix": "power_law", "scale": 3, "alpha": 0.5}


def dataset(seeds=(0,), noise=(0.0,), model=MODEL, **values):
    return make_dataset(DataConfig(**{"params": POWER, **values}), model, list(seeds), list(noise))


@pytest.mark.parametrize(
    ("params", "diagonal"),
    [
        ({"matrix": "diagonal", "scale": 10}, [10, 20, 30, 40]),
        ({"matrix": "power_law", "scale": 50, "alpha": 1}, [50, 25, 50 / 3, 12.5]),
        ({"matrix": "power_law_topk", "scale": 8, "alpha": 2, "k": 2}, [8, 2, 0, 0]),
        ({"matrix": "identity"}, [1, 1, 1, 1]),
    ],
)
def test_matrices_are_the_specified_diagonals(params, diagonal):
    expected = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    torch.testing.assert_close(make_matrix(params, 4, 4), expected, rtol=1e-15, atol=0)
    A = dataset(params=params).teacher[0]
    assert torch.linalg.eigvalsh(A).flip(0).tolist() == pytest.approx(
        sorted(diagonal, reverse=True), rel=1e-12, abs=1e-12
    )


@pytest.mark.parametrize("name", matrices.names())
def test_every_matrix_is_float64_and_refuses_a_rectangle(name):
    params = {"scale": 2.0, "alpha": 1.0, "k": 2}
    needed = {"diagonal": 1, "power_law": 2, "power_law_topk": 3, "identity": 0}.get(name, 0)
    spec = {"matrix": name, **dict(list(params.items())[:needed])}
    assert make_matrix(spec, 3, 3).dtype == torch.float64
    with pytest.raises(ValueError, match=r"model.out_dim=2 .* model.in_dim=3"):
        make_matrix(spec, 2, 3)


def test_rotations_are_orthogonal_and_haar():
    """Haar: E O = 0, E O_ij^2 = 1/d, E tr(O)^2 = 1; without QR's signs E O_11 is not 0."""
    Q = haar_rotations(range(20_000), 3)
    eye = torch.eye(3, dtype=torch.float64).expand_as(Q)
    torch.testing.assert_close(Q @ Q.mT, eye, rtol=0, atol=1e-13)
    standard_error = 3**-0.5 / 20_000**0.5
    assert Q.mean(0).abs().max() < 5 * standard_error
    assert (Q.square().mean(0) - 1 / 3).abs().max() < 5 * standard_error
    traces = Q.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(traces.square().mean() - 1) < 0.05


def test_test_set_does_not_change_with_train_set_noise_or_online():
    usual = dataset(train_samples=30, test_samples=20)
    for other in (
        dataset(train_samples=7, test_samples=20),
        dataset(train_samples=30, test_samples=20, noise=(0.5,)),
        dataset(test_samples=20, online=True),
    ):
        assert other.teacher.equal(usual.teacher)
        assert other.test_inputs.equal(usual.test_inputs)
        assert other.test_targets.equal(usual.test_targets)


def test_train_inputs_do_not_change_with_noise_or_test_set_and_grow_at_the_end():
    usual = dataset(train_samples=30, test_samples=20)
    noisy = dataset(train_samples=30, test_samples=9, noise=(0.5,))
    assert noisy.train_inputs.equal(usual.train_inputs)
    longer = dataset(train_samples=50, test_samples=20)
    assert longer.train_inputs[:, :30].equal(usual.train_inputs)
    noise = noisy.train_targets - usual.train_targets
    assert 0.5 * 0.7 < noise.std() < 0.5 * 1.3


def test_targets_are_the_teacher_on_the_inputs():
    data = dataset(seeds=(0, 3), noise=(0.0, 0.0))
    for inputs, targets in (
        (data.test_inputs, data.test_targets),
        (data.train_inputs, data.train_targets),
    ):
        torch.testing.assert_close(inputs @ data.teacher.mT, targets)


def test_neighbouring_data_seeds_share_nothing():
    data = dataset(seeds=(0, 1), noise=(0.0, 0.0))
    for part in (data.teacher, data.test_inputs, data.train_inputs):
        assert not torch.isin(part[0], part[1]).any()


def test_data_of_a_stack_is_the_data_of_each_seed():
    together = dataset(seeds=(4, 0, 4), noise=(0.0, 0.3, 0.3))
    targets, inputs = map(together.spread, (together.train_targets, together.train_inputs))
    for r, (seed, noise) in enumerate([(4, 0.0), (0, 0.3), (4, 0.3)]):
        alone = dataset(seeds=(seed,), noise=(noise,))
        torch.testing.assert_close(targets[r], alone.train_targets[0])
        assert inputs[r].equal(alone.train_inputs[0])


def test_replicas_of_one_seed_and_noise_share_a_set():
    data = dataset(seeds=(4, 0, 4, 4), noise=(0.1, 0.1, 0.1, 0.2))
    assert data.which.tolist() == [0, 1, 0, 2]
    assert len(data.train_inputs) == 3
    data.keep(torch.tensor([0, 3]))
    assert data.spread(data.teacher).equal(data.teacher[[0, 2]])


def test_one_set_is_spread_without_a_copy():
    data = dataset(seeds=(4, 4), noise=(0.1, 0.1))
    assert data.spread(data.train_inputs).shape == (2, *data.train_inputs.shape[1:])
    assert data.spread(data.train_inputs).data_ptr() == data.train_inputs.data_ptr()


@pytest.mark.parametrize("active", [1, 3, 4])
def test_d_active_projects_the_same_draw_on_the_first_modes(active):
    usual, projected = dataset(), dataset(d_active=active)
    P = projected.projector[0]
    torch.testing.assert_close(P @ P, P)
    assert P.trace().item() == pytest.approx(active)
    A = usual.teacher[0]
    torch.testing.assert_close(P @ A, A @ P)  # made of the teacher's own modes
    active_values = torch.linalg.eigvalsh(P @ A).flip(0)[:active]
    expected = 3 * torch.arange(1, active + 1, dtype=torch.float64) ** -0.5
    torch.testing.assert_close(active_values, expected)
    torch.testing.assert_close(projected.train_inputs, usual.train_inputs @ P)
    torch.testing.assert_close(projected.test_targets, projected.test_inputs @ A.mT)


def test_a_registered_matrix_gets_a_generator_per_data_seed(monkeypatch):
    monkeypatch.setattr(matrices, "_functions", dict(matrices._functions))

    @register_matrix("gaussian")
    def gaussian(rows, cols, generator, scale=1.0):
        return scale * torch.randn(rows, cols, generator=generator, dtype=torch.float64)

    data = dataset(seeds=(0, 1, 0), noise=(0, 0, 0.1), params={"matrix": "gaussian", "scale": 2})
    assert data.teacher[0].equal(data.teacher[2])
    assert not data.teacher[0].allclose(data.teacher[1])
