"""Theory of deep linear networks: each formula against an independent computation."""

import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from dln_cases import POWER_LAW, at_weights, config
from scipy.integrate import quad, solve_ivp

from dln.autograd_forms import noise_statistics
from dln.clean_set import CleanSet
from dln.context import EvalContext
from dln.criteria import get_criterion
from dln.data import haar_rotations, make_matrix
from dln.hessian import hessian_spectrum
from dln.metrics import evaluate, resolve_metrics
from dln.mode_theory import (
    mode_growth,
    mode_time,
    plateau_losses,
    plateau_share,
    plateau_visits,
    sharpness,
    stability_limit,
)
from dln.model import gradient_factors, init_weights
from dln.noise_theory import aligned_gradient_noise, gradient_noise
from dln.theory import predicted_curves, reference_values, teacher_singular_values

ROOT = Path(__file__).resolve().parents[2]
MSE = get_criterion("MSELoss")
GPH = 50 / np.arange(1.0, 6.0)
TEACHERS = [
    {"matrix": "diagonal", "scale": 2},
    {"matrix": "power_law", "scale": 5, "alpha": 0.7},
    {"matrix": "power_law_topk", "scale": 5, "alpha": 1, "k": 2},
    {"matrix": "identity"},
]


def rate(u, s, n_layers, out_dim):
    return n_layers * 2 / out_dim * u ** (2 - 2 / n_layers) * (s - u)


def test_two_layers_grow_as_saxe_says():
    """s e^g / (e^g - 1 + s/u0), g = 4st/o, and half times o/(4s) ln(s/u0 - 1); rounding."""
    t, u0 = np.linspace(0, 1, 50), 0.01
    g = np.exp(4 * GPH * t[:, None] / 5)
    u = mode_growth(t, GPH, u0, n_layers=2, out_dim=5)
    np.testing.assert_allclose(u, GPH * g / (g - 1 + GPH / u0), rtol=1e-12)
    half = mode_time(0.5, GPH, u0, n_layers=2, out_dim=5)
    np.testing.assert_allclose(half, 5 / (4 * GPH) * np.log(GPH / u0 - 1), rtol=1e-12)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 7])
def test_modes_solve_their_equation(n_layers):
    """A stiff integrator of u itself, rel 1e-8: silent modes, and starts at and above s, too."""
    s, u0 = np.array([3.0, 1.0, 0.0, 1.5, 0.5]), np.array([0.02, 0.1, 0.3, 1.5, 0.9])
    t = np.linspace(0, 20, 40)
    exact = solve_ivp(
        lambda _, u: rate(u, s, n_layers, 5), (0, 20), u0, "Radau", t, rtol=1e-10, atol=1e-14
    )
    u = mode_growth(t, s, u0, n_layers=n_layers, out_dim=5)
    np.testing.assert_allclose(u, exact.y.T, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("u0", [1e-6, 0.1])
def test_the_time_to_a_fraction_is_the_integral_of_the_inverse_rate(n_layers, u0):
    """Quadrature over ln u, rel 1e-10; and the growth is there at that time."""
    fractions = np.array([0.01, 0.5, 0.99])[:, None]
    times = mode_time(fractions, GPH, u0, n_layers=n_layers, out_dim=5)
    for s, column in zip(GPH, times.T, strict=True):
        for fraction, time in zip(fractions[:, 0], column, strict=True):
            ends = np.log(u0), np.log(fraction * s)
            of_log = lambda x, s=s: np.exp(x) / rate(np.exp(x), s, n_layers, 5)
            expected, _ = quad(of_log, *ends, epsabs=0, epsrel=1e-11, limit=500)
            assert time == pytest.approx(expected, rel=1e-10)
        u = mode_growth(column, [s], u0, n_layers=n_layers, out_dim=5)
        np.testing.assert_allclose(u, fractions * s, rtol=1e-8)


def test_growth_keeps_its_accuracy_at_both_ends():
    """u and s - u both rel 1e-8 after 1e5 steps of gph: by the times between fractions."""
    t = mode_time(np.array([0.5, 1 - 1e-6]), 50, 1e-8, n_layers=4, out_dim=5)
    u = mode_growth(t, [50], 1e-8, n_layers=4, out_dim=5)[:, 0]
    assert u[0] == pytest.approx(25, rel=1e-8)
    assert 50 - u[1] == pytest.approx(50e-6, rel=1e-7)  # 1 - 1e-6 is rounded at 1e-10


def test_growth_and_time_refuse_what_has_no_meaning():
    with pytest.raises(ValueError, match="u0 > 0"):
        mode_growth([0], [1], 0, n_layers=2, out_dim=5)
    with pytest.raises(ValueError, match="s must be >= 0"):
        mode_growth([0], [-1], 0.1, n_layers=2, out_dim=5)
    for fraction, s, u0 in [(1, 1, 0.1), (0.5, 1, 0.6), (0.5, 0, 0.1)]:
        with pytest.raises(ValueError, match="fraction"):
            mode_time(fraction, s, u0, n_layers=2, out_dim=5)


def test_plateaus_are_the_losses_of_the_best_networks_of_each_rank():
    A = np.random.default_rng(0).normal(size=(4, 4))
    left, s, right = np.linalg.svd(A)
    best = [(left[:, :k] * s[:k]) @ right[:k] for k in range(5)]
    losses = [np.square(A - E).sum() / 4 for E in best]
    np.testing.assert_allclose(plateau_losses(s[[2, 0, 3, 1]], 4), losses, atol=1e-12)


def test_visits_of_a_staircase_and_of_a_steady_decay():
    """Edges between records are interpolated: exact for straight pieces."""
    step = [0, 10, 20, 30, 40, 50]
    staircase = [100, 100, 10, 10, 1, 0]
    entry, leave = plateau_visits(step, staircase, [100, 10, 1], 0.1).T
    assert entry == pytest.approx([0, 10 + 89 / 9, 30 + 89 / 9])
    assert leave == pytest.approx([10 + 10 / 9, 30 + 10 / 9, 41])
    visits = plateau_visits(step, staircase, [100, 10, 1], 0.1)
    assert plateau_share(visits) == pytest.approx((101 / 9 + 10 / 9) / (31 - 10 / 9))

    t = np.linspace(0, 10, 2001)
    decay = plateau_visits(t, 100 * np.exp(-t), [100, 10, 1], 0.1)
    lengths = decay[1:, 1] - decay[1:, 0]
    assert lengths == pytest.approx(np.log(1.1 / 0.9), abs=1e-4)
    assert plateau_share(decay) == pytest.approx(2 * np.log(1.1 / 0.9) / np.log(100), rel=1e-4)


def test_visits_that_do_not_begin_or_end_are_nan():
    visits = plateau_visits([0, 1, 2], [50, 10, 10], [100, 10, 1])
    expected = [[0, 0], [39 / 40, np.nan], [np.nan, np.nan]]
    np.testing.assert_allclose(visits, expected, rtol=1e-12)
    assert np.isnan(plateau_share(visits))


@pytest.mark.parametrize("plateaus", [[10, 0], [1, 10], [10, 9]])
def test_plateaus_that_cannot_be_told_apart_are_refused(plateaus):
    with pytest.raises(ValueError, match="10% apart"):
        plateau_visits([0, 1], [10, 1], plateaus)


def gaussian_design(dim):
    """[6^dim, dim] with all moments of N(0, I) up to degree 5: its values are the population's.

    Per axis the three nodes of Gauss-Hermite quadrature, -sqrt(3), 0, sqrt(3), weights 1:4:1.
    """
    nodes = 3**0.5 * torch.tensor([-1.0, 0, 0, 0, 0, 1], dtype=torch.float64)
    return torch.tensor(list(product(nodes, repeat=dim)), dtype=torch.float64)


def balanced_minimum(s, n_layers, hidden):
    """W_l of a network whose product is diag(s), all layers with singular values s^(1/L)."""
    d = len(s)
    sizes = [d, *[hidden] * (n_layers - 1), d]
    weights = [np.zeros((rows, cols)) for cols, rows in pairwise(sizes)]
    for W in weights:
        W[np.arange(d), np.arange(d)] = s ** (1 / n_layers)
    return weights


def spectrum(weights, s):
    x = len(s) ** 0.5 * torch.eye(len(s), dtype=torch.float64)[None]  # S = I
    teacher = torch.diag(torch.tensor(s))[None]
    ctx = at_weights([torch.tensor(W)[None] for W in weights], x, teacher)
    return hessian_spectrum(ctx)[0].numpy()


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_spectrum_and_sharpness_at_the_balanced_minimum(n_layers):
    """Rounding; random minima of the same teacher are never flatter."""
    s, L, o = np.array([3.0, 1.0, 0.5]), n_layers, 3
    weights = balanced_minimum(s, L, 4)
    found = spectrum(weights, s)
    k = np.arange(L)
    formula = (
        2 / o * (s[:, None, None] ** (2 * (L - 1 - k) / L) * s[:, None] ** (2 * k / L)).sum(-1)
    )
    np.testing.assert_allclose(found[-o * o :], np.sort(formula.ravel()), atol=1e-12)
    assert abs(found[: -o * o]).max(initial=0) < 1e-12
    assert sharpness(s, n_layers=L, out_dim=o) == pytest.approx(found[-1], rel=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20 if L > 1 else 0):
        G = np.eye(4) + 0.3 * rng.normal(size=(4, 4))
        moved = [G @ weights[0], weights[1] @ np.linalg.inv(G), *weights[2:]]
        assert spectrum(moved, s)[-1] >= found[-1] * (1 - 1e-12)


@pytest.mark.parametrize(("factor", "stays"), [(0.98, True), (1.02, False)])
def test_gph_stays_at_its_minimum_below_the_stability_limit_only(factor, stays):
    """lr = 2 / sharpness = 5 / (4 * 50^1.5) = 3.54e-3, started 1e-6 off, 1000 steps."""
    limit = stability_limit(GPH, n_layers=4, out_dim=5)
    assert limit == pytest.approx(5 / (4 * 50**1.5), rel=1e-12)
    rng = np.random.default_rng(0)
    W = [V + 1e-6 * rng.normal(size=V.shape) for V in balanced_minimum(GPH, 4, 5)]
    errors = []
    for _ in range(1000):
        D = W[3] @ W[2] @ W[1] @ W[0] - np.diag(GPH)
        errors.append(np.linalg.norm(D))
        G = 2 / 5 * D
        before = [np.eye(5), W[0], W[1] @ W[0], W[2] @ W[1] @ W[0]]
        after = [W[3] @ W[2] @ W[1], W[3] @ W[2], W[3], np.eye(5)]
        W = [V - factor * limit * Q.T @ G @ P.T for V, P, Q in zip(W, before, after, strict=True)]
    if stays:
        assert errors[-1] < 1e-9 * 50
    else:
        assert errors[-1] > 1e3 * errors[0]


def random_network(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) / shape[1] ** 0.5 for shape in shapes]


@pytest.mark.parametrize("shapes", [[(2, 3)], [(4, 3), (2, 4)], [(5, 3), (4, 5), (2, 4)]])
@pytest.mark.parametrize("noise_std", [0.0, 0.7])
def test_gradient_noise_is_what_the_metrics_measure(shapes, noise_std):
    """On samples with the moments of Gaussian inputs and label noise: rounding."""
    weights = random_network(shapes)
    A = np.random.default_rng(9).normal(size=(2, 3))
    samples = gaussian_design(5)
    x, z = samples[None, :, :3], samples[None, :, 3:]
    clean = CleanSet.of(x, torch.tensor(A)[None])
    noisy = replace(clean, targets=clean.targets + noise_std * z)
    ctx = EvalContext([torch.tensor(W)[None] for W in weights], noisy, MSE)
    measured = [value.item() for value in noise_statistics(ctx, 1, with_hessian=False)]
    assert [*gradient_noise(weights, A, noise_std)] == pytest.approx(measured, rel=1e-12)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_noise_of_aligned_networks_is_the_general_one(n_layers):
    u, s = np.array([2.5, 0.3, 0.8]), np.array([3.0, 1.0, 0.5])
    general = gradient_noise(balanced_minimum(u, n_layers, 4), np.diag(s))
    aligned = aligned_gradient_noise(u, s, n_layers=n_layers, out_dim=3)
    np.testing.assert_allclose(aligned, general, rtol=1e-12)


def test_the_noise_of_one_matrix_and_of_an_aligned_start_is_d_plus_one_gradients():
    weights, A = random_network([(3, 4)]), np.random.default_rng(1).normal(size=(3, 4))
    squared, trace = gradient_noise(weights, A)
    assert trace == pytest.approx(5 * squared, rel=1e-12)
    squared, trace = aligned_gradient_noise(np.full(5, 0.01), GPH, n_layers=4, out_dim=5)
    assert trace == pytest.approx(6 * squared, rel=1e-12)


@pytest.mark.parametrize("n_layers", [2, 4])
def test_wide_normal_networks_start_with_the_noise_of_one_matrix(n_layers):
    """Tr Sigma / ||g||^2: mean d + 1, variance as stated; 500 networks, 4 standard errors.

    Width 100: higher orders in h^(-1/2) are 10 % of the variance.
    """
    L, d, h, replicas = n_layers, 5, 100, 500
    model = config(model__num_hidden=L - 1).model
    rotation = haar_rotations([0], d).expand(replicas, d, d)
    weights = [W.numpy() for W in init_weights(model, range(replicas), [1.0] * replicas, rotation)]
    squared, trace = gradient_noise(weights, np.diag(GPH))
    ratio = trace / squared
    spread = np.sum(GPH**4) / np.sum(GPH**2) ** 2 - 1 / d
    variance = d**2 / h * spread * (L - 1) * (2 * L - 1) / (3 * L)
    assert ratio.mean() == pytest.approx(d + 1, abs=4 * (variance / replicas) ** 0.5 + 3 / h)
    assert ratio.var() == pytest.approx(variance, rel=4 * (2 / replicas) ** 0.5 + 0.1)


@pytest.mark.parametrize("params", TEACHERS, ids=lambda params: params["matrix"])
def test_singular_values_are_those_of_the_data_set(params):
    cfg = asdict(config(data__params=params))
    expected = make_matrix(params, 5, 5).diagonal().numpy()
    np.testing.assert_allclose(teacher_singular_values(cfg), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"matrix": "mine"}, "data.params.matrix='mine'"),
     ({"matrix": "diagonal", "scale": -1}, "data.params.scale=-1")],
)  # fmt: skip
def test_teachers_without_theory_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        teacher_singular_values(asdict(config(data__params=params)))


def aligned(**values):
    """A small run from an aligned start."""
    defaults = {
        "model__init": "aligned",
        "model__in_dim": 3,
        "model__out_dim": 3,
        "model__num_hidden": 2,
        "model__hidden_dim": 4,
        "data__params": {"matrix": "diagonal", "scale": 1},
        "training__lr": 1e-3,
    }
    return config(**{**defaults, **values})


def measured_curves(cfg, steps):
    """Columns of all metrics that theory knows, of a network trained and measured on a design.

    Its samples have the moments of Gaussian inputs, so that only Euler's error is left.
    """
    d = cfg.model.in_dim
    rotation = haar_rotations([0], d)
    D = make_matrix(cfg.data.params, d, d)
    inputs = gaussian_design(d)[None]
    if cfg.data.d_active is not None:
        active = torch.arange(d) < cfg.data.d_active
        inputs = inputs @ (rotation.mT @ (active[:, None] * rotation))
    teacher = rotation.mT @ D @ rotation
    targets = inputs @ teacher.mT
    weights = init_weights(cfg.model, [0], [cfg.model.gamma], rotation)
    metrics = resolve_metrics(
        ["singular_values", "effective_weight_norm", "end_to_end_weight_norm", "weight_norm",
         "layer_norms", "gram_norms", "balance_diffs", "gradient_stats"]
    )  # fmt: skip
    rows = []
    for step in range(max(steps) + 1):
        if step in steps:
            ctx = at_weights(weights, inputs, teacher)
            loss = {"test_loss": MSE(inputs @ ctx.product.mT, targets)}
            rows.append(loss | evaluate(metrics, ctx))
        factors = gradient_factors(weights, inputs, lambda f: MSE.gradient(f, targets))
        weights = [W - cfg.training.lr * left.mT @ right
                   for W, (left, right) in zip(weights, factors, strict=True)]  # fmt: skip
    return {name: np.array([row[name].item() for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("d_active", [None, 2])
@pytest.mark.parametrize("params", TEACHERS, ids=lambda params: params["matrix"])
@pytest.mark.parametrize("num_hidden", [0, 1, 3])
def test_predicted_columns_are_those_that_a_network_starts_with(num_hidden, params, d_active):
    """All columns at step 0: rounding."""
    cfg = aligned(model__num_hidden=num_hidden, data__params=params, data__d_active=d_active)
    measured, predicted = measured_curves(cfg, [0]), predicted_curves(asdict(cfg), [0])
    assert set(predicted) == set(measured)
    for name, curve in predicted.items():
        np.testing.assert_allclose(measured[name], curve, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("d_active", [None, 2])
@pytest.mark.parametrize("num_hidden", [0, 1, 2])
def test_predicted_columns_are_learned_up_to_eulers_error(num_hidden, d_active):
    """Within 1 % of a curve's largest value at lr 1e-3 (2 % at 2e-3): the error halves with lr."""
    errors = {}
    for lr in (2e-3, 1e-3):
        cfg = aligned(model__num_hidden=num_hidden, data__d_active=d_active, training__lr=lr)
        steps = [round(t / lr) for t in (0.4, 0.8, 1.2, 2)]
        measured, predicted = measured_curves(cfg, steps), predicted_curves(asdict(cfg), steps)
        errors[lr] = {
            name: abs(measured[name] - curve).max() / max(curve.max(), 1)
            for name, curve in predicted.items()
        }
    assert max(errors[1e-3].values()) < 0.01
    for name, error in errors[2e-3].items():
        assert errors[1e-3][name] == pytest.approx(error / 2, rel=0.1, abs=1e-12), name


@pytest.mark.parametrize(
    ("key", "values"),
    [("model.init", {"model__init": "normal"}),
     ("data.online", {"data__online": True, "training__batch_size": 5}),
     ("data.noise_std", {"data__noise_std": 0.1}),
     ("training.batch_size", {"training__batch_size": 499}),
     ("training.optimizer", {"training__optimizer": "Adam"}),
     ("training.optimizer_params", {"training__optimizer_params": {"momentum": 0.9}}),
     ("training.criterion", {"training__criterion": "L1Loss"}),
     ("training.lr", {"training__lr": 0.5}),
     ("callbacks", {"callbacks": [{"lr_decay": {"decay_every": 1, "factor": 0.5}}]}),
     ("experiment", {"experiment": "dln/compare"})],
)  # fmt: skip
def test_runs_without_theory_are_refused_by_the_key(key, values):
    with pytest.raises(ValueError, match=rf"{key}\b"):
        predicted_curves(asdict(aligned(**values)), [0])


def test_a_config_older_than_the_key_is_refused_by_it():
    cfg = asdict(aligned())
    del cfg["model"]["init"]
    with pytest.raises(ValueError, match=r"the config has no model\.init"):
        predicted_curves(cfg, [0])


def test_full_batches_are_known_by_their_size():
    cfg = aligned(training__batch_size=500, training__optimizer_params={"momentum": 0})
    assert predicted_curves(asdict(cfg), [0])["test_loss"].shape == (1,)


def test_no_steps_give_no_values():
    assert predicted_curves(asdict(aligned()), [])["test_loss"].shape == (0,)


def test_reference_values_hold_for_normal_starts():
    """gph: 731.9, 231.9, ... and 3.54e-3; silent modes have no plateau."""
    reference = reference_values(asdict(config()))
    tails = [sum(2500 / i**2 for i in range(k, 6)) / 5 for k in range(1, 7)]
    np.testing.assert_allclose(reference["plateau_losses"], tails, atol=1e-10)
    assert reference["stability_limit"] == pytest.approx(5 / (4 * 50**1.5), rel=1e-12)
    cfg = config(data__d_active=3, data__params={**POWER_LAW, "matrix": "power_law_topk", "k": 2})
    assert reference_values(asdict(cfg))["plateau_losses"] == pytest.approx([625, 125, 0])
    with pytest.raises(ValueError, match=r"training\.criterion='HuberLoss'"):
        reference_values(asdict(config(training__criterion="HuberLoss")))


def test_theory_loads_no_torch():
    code = "import sys, dln.theory; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
