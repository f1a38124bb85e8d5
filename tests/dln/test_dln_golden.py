"""Golden properties of learning in deep linear networks."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from dln_cases import config, reference_losses, small, train, trainer
from scipy.integrate import solve_ivp

from dln.criteria import get_criterion
from dln.lockstep import train_in_lockstep
from dln.model import gradient_factors, init_weights
from dln.optimizers import SGD

MSE = get_criterion("MSELoss")
NOISE = {"data__noise_std": 0.1}
GPH = {  # inputs have five dimensions: smaller batches are samples, others their moments
    "full": {},
    "full, noise": NOISE,
    "samples": {"training__batch_size": 3, **NOISE},
    "moments": {"training__batch_size": 5},
    "large, noise": {"training__batch_size": 50, **NOISE},
    "online samples": {"training__batch_size": 3, "data__online": True, **NOISE},
    "online": {"training__batch_size": 5, "data__online": True, **NOISE},
}


@cache
def gph_losses(kind, dtype):
    """2000 steps of gph, 50 records: the test losses."""
    cfg = config(max_steps=2000, num_evaluations=50, dtype=dtype, **GPH[kind])
    return train(cfg)[0].curves["test_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", GPH)
def test_gph_is_the_run_of_autograd(kind):
    """2000 steps on the same batches, rel 1e-10 (updating through an alias: 1 %).

    With 100 of gph's 500 samples, for the sake of autograd's time with full batches.
    """
    values = {"max_steps": 2000, "data__train_samples": 100, "dtype": "float64", **GPH[kind]}
    cfg = config(**values, num_evaluations=50)
    losses = train(cfg)[0].curves["test_loss"]
    np.testing.assert_allclose(losses, reference_losses(cfg, record_every=40), rtol=1e-10)


@pytest.mark.parametrize("kind", GPH)
def test_float32_follows_float64(kind):
    """5e-5, at every record from a loss of 690 down to 0.02 or less."""
    exact = gph_losses(kind, "float64")
    assert exact[-1] < 0.02
    np.testing.assert_allclose(gph_losses(kind, "float32"), exact, rtol=5e-5)


def gram_differences(weights):
    """B_l = W_l W_l^T - W_{l+1}^T W_{l+1}."""
    return [W @ W.mT - V.mT @ V for W, V in pairwise(weights)]


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_one_step_changes_the_balance_by_second_order_terms_only(batch_size):
    """B_l' - B_l = lr^2 (G_l G_l^T - G_{l+1}^T G_{l+1}); <W_l, G_l> equal for all l."""
    state = trainer(small(model__num_hidden=3, training__batch_size=batch_size))
    lr = 0.01
    for _ in range(5):
        before = gram_differences(state.weights)
        batch = state.loader.next_batch()
        factors = state.gradient(batch)
        G = [left.mT @ right for left, right in factors]
        inner = [(W * g).sum().item() for W, g in zip(state.weights, G, strict=True)]
        assert inner == pytest.approx([inner[0]] * 4, rel=1e-10)
        state.optimizer.step(state.weights, factors)
        second = [g @ g.mT - h.mT @ h for g, h in pairwise(G)]
        for old, new, term in zip(before, gram_differences(state.weights), second, strict=True):
            torch.testing.assert_close(new - old, lr**2 * term, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_balance_is_conserved_by_the_flow():
    """on gph at lr * steps = 0.2 the balance moves by 7e-3 at lr 1e-4, by twice that
    at 2e-4 (2.00 +- 0.02)."""

    def moved(lr):
        cfg = config(training__lr=lr, max_steps=round(0.2 / lr), num_evaluations=1, dtype="float64")
        state = trainer(cfg)
        start = gram_differences(state.weights)
        train_in_lockstep({"": state})
        end = gram_differences(state.weights)
        return [(b - a).norm().item() for a, b in zip(start, end, strict=True)]

    slow, fast = moved(1e-4), moved(2e-4)
    assert max(slow) == pytest.approx(7e-3, rel=0.15)
    assert np.array(fast) / slow == pytest.approx(2.0, abs=0.02)


def diagonal_flow(n_layers, u0, lr, time):
    """Products u(t) [steps + 1, 5] of W_l = u0^(1/L) I learning diag(1..5) on whitened inputs."""
    d = 5
    x = d**0.5 * torch.eye(d, dtype=torch.float64)[None]  # X^T X / N = I
    y = x @ torch.diag(torch.arange(1.0, d + 1, dtype=torch.float64))
    weights = [u0 ** (1 / n_layers) * torch.eye(d, dtype=torch.float64)[None].clone()
               for _ in range(n_layers)]  # fmt: skip
    optimizer = SGD(weights, torch.tensor([lr]))
    products = []
    for _ in range(round(time / lr) + 1):
        u = torch.stack([W[0].diagonal() for W in weights]).prod(0)
        products.append(u)
        optimizer.step(weights, gradient_factors(weights, x, lambda f: MSE.gradient(f, y)))
    return torch.stack(products).numpy()


@pytest.mark.slow
def test_two_layers_follow_the_closed_form_of_saxe():
    """error <= 5.5e-3 at lr 1e-3, halving with lr; half times o/(4s) ln(s/u0 - 1)."""
    s, o, u0, time = np.arange(1.0, 6.0), 5, 0.01, 5.0
    errors = {}
    for lr in (1e-3, 5e-4):
        u = diagonal_flow(2, u0, lr, time)
        t = lr * np.arange(len(u))[:, None]
        growth = np.exp(4 * s * t / o)
        errors[lr] = abs(u - s * growth / (growth - 1 + s / u0)).max()
        if lr == 1e-3:
            half = (u > s / 2).argmax(0)[1:] * lr  # mode 1 needs longer than t = 5
            assert half == pytest.approx((o / (4 * s) * np.log(s / u0 - 1))[1:], abs=3e-3)
    assert errors[1e-3] <= 5.5e-3
    assert errors[1e-3] / errors[5e-4] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("n_layers", [1, 3, 4])
def test_deep_layers_follow_their_differential_equation(n_layers):
    """du/dt = L (2/o) u^(2 - 2/L) (s - u). Euler's error is O(lr)."""
    s, u0, lr, time = np.arange(1.0, 6.0), 0.05, 1e-3, 3.0

    def slope(_, u):
        return n_layers * 2 / 5 * u ** (2 - 2 / n_layers) * (s - u)

    u = diagonal_flow(n_layers, u0, lr, time)
    times = lr * np.arange(len(u))
    exact = solve_ivp(slope, (0, time), np.full(5, u0), t_eval=times, rtol=1e-9, atol=1e-12)
    assert abs(u - exact.y.T).max() < 2e-2


def test_initial_weights_have_the_stated_variance():
    """E||W_l||_F^2 = n_{l+1} n_l h^-gamma, E||E||_F^2 = 0.25 at the defaults."""
    replicas = 400
    for gamma, product in ((1.0, 0.25), (0.5, 0.25 * 100**2)):
        model = config(model__gamma=gamma).model
        rotation = torch.eye(5, dtype=torch.float64).expand(replicas, 5, 5)
        weights = init_weights(model, range(replicas), [gamma] * replicas, rotation)
        for W in weights:
            n = W[0].numel()
            mean = W.square().sum((1, 2)).mean().item()
            assert mean == pytest.approx(n * 100**-gamma, rel=5 * (2 / n / replicas) ** 0.5)
        E = weights[3] @ weights[2] @ weights[1] @ weights[0]
        assert E.square().sum((1, 2)).mean().item() == pytest.approx(product, rel=0.1)


def test_initial_test_loss_of_gph():
    """(||A||_F^2 + E||E||_F^2) / o = 731.9 in the mean over 64 data seeds, 2.5 %."""
    cfg = config(max_steps=0)
    seeds = {"data.data_seed": range(64), "model.model_seed": range(64)}
    losses = [result.scalars["final_test_loss"] for result in train(cfg, seeds, 64)]
    expected = (2500 * sum(i**-2 for i in range(1, 6)) + 0.25) / 5
    assert expected == pytest.approx(731.9, abs=0.05)
    assert np.mean(losses) == pytest.approx(expected, rel=0.025)


def test_silent_inputs_keep_their_weights():
    """W_0 (I - P) is constant for all t, the rest of W_0 is not."""
    state = trainer(small(data__d_active=2, max_steps=200, training__batch_size=3))
    silent = torch.eye(3, dtype=torch.float64) - state.dataset.projector
    start = state.weights[0].clone()
    train_in_lockstep({"": state})
    torch.testing.assert_close(state.weights[0] @ silent, start @ silent, rtol=0, atol=1e-12)
    assert (state.weights[0] - start).norm() > 0.1


@pytest.mark.slow
def test_gph_learns_the_teachers_singular_values():
    """gamma 0.75, 5000 steps: 50/i, rel 1e-4 in float32."""
    cfg = config(model__gamma=0.75, max_steps=5000, num_evaluations=1, metrics=["singular_values"])
    curves = train(cfg)[0].curves
    values = [curves[f"sv_{k}"][-1] for k in range(5)]
    assert values == pytest.approx([50 / i for i in range(1, 6)], rel=1e-4)


def test_converged_losses_with_noise_are_those_of_least_squares():
    """noise 0.2, N = 500: test 0.04*5/494, train 0.04*495/500 in the mean.

    E converges to the least squares solution whatever the depth; two layers and an identity
    teacher get there fast. 64 data seeds, test sets of 2000: standard errors 3 % (a chi-square of
    25 entries) and 0.4 %.
    """
    cfg = config(
        model__num_hidden=1,
        model__hidden_dim=10,
        data__params={"matrix": "identity"},
        data__noise_std=0.2,
        data__test_samples=2000,
        training__lr=0.2,
        training__track_train_loss=True,
        max_steps=400,
        num_evaluations=2,
        dtype="float64",
    )
    results = train(cfg, {"data.data_seed": range(64)}, 64)
    curves = [result.curves["train_loss"] for result in results]
    assert all(curve[1] == pytest.approx(curve[2], rel=1e-9) for curve in curves)  # converged
    test_loss = np.mean([result.scalars["final_test_loss"] for result in results])
    train_loss = np.mean([result.scalars["final_train_loss"] for result in results])
    assert test_loss == pytest.approx(0.04 * 5 / 494, rel=0.12)
    assert train_loss == pytest.approx(0.04 * 495 / 500, rel=0.015)


@pytest.mark.parametrize("batch_size", [20, 21])
def test_the_whole_set_as_a_batch_is_the_full_batch(batch_size):
    """exactly, at any batch seed."""
    full = train(small())[0].curves["test_loss"]
    cfg = small(training__batch_size=batch_size, training__batch_seed=9)
    assert train(cfg)[0].curves["test_loss"].tolist() == full.tolist()
