"""Metrics: closed forms against automatic differentiation, a stack against its members."""

from itertools import pairwise

import pytest
import torch
from dln_cases import at_weights, context, small, train, trainer
from torch.func import grad, hessian, vmap

from dln import autograd_forms
from dln.config import ModelConfig, layer_shapes
from dln.criteria import CRITERIA
from dln.data import haar_rotations
from dln.hessian import mse_hessians
from dln.metrics import columns_of, evaluate, resolve_metrics
from dln.registry import metrics, register_metric
from dln.trials import metric_columns

SHAPES = {
    "one layer": [(3, 4)],
    "two layers": [(5, 4), (3, 5)],
    "four layers": [(5, 4), (2, 5), (6, 2), (3, 6)],
}
NOISE = ["grad_norm_squared", "trace_gradient_covariance", "trace_hessian_covariance"]


def columns(name, ctx, **params):
    value = metrics.resolve({"name": name, "params": params})(ctx)
    return columns_of(name, value, len(ctx.inputs))


def brute_force(ctx, r):
    """theta, g_i of every sample, H: straight from torch.func and the definition."""
    sizes = [W[r].numel() for W in ctx.weights]
    module = getattr(torch.nn, ctx.criterion.name)()

    def loss(theta, x, y):
        for W, part in zip(ctx.weights, theta.split(sizes), strict=True):
            x = x @ part.view(W.shape[1:]).T
        return module(x, y)

    theta = torch.cat([W[r].flatten() for W in ctx.weights])
    x, y = ctx.inputs[r], ctx.targets[r]
    per_sample = vmap(grad(lambda t, a, b: loss(t, a[None], b[None])), (None, 0, 0))(theta, x, y)
    return theta, per_sample, hessian(loss)(theta, x, y)


@pytest.mark.parametrize("n", [7, 12])  # samples fewer, or not, than the products of two inputs
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_gradient_noise_is_that_of_the_samples_gradients(shapes, criterion, n):
    """For every criterion: 1e-10 of the definition."""
    ctx = context(shapes, n, replicas=2, criterion=criterion)
    values = columns("trace_covariances", ctx)
    for r in range(2):
        _, g_i, H = brute_force(ctx, r)
        g = g_i.mean(0)
        noise = g_i - g
        expected = [g @ g, (noise**2).sum() / n, torch.einsum("ip,pq,iq->", noise, H, noise) / n]
        for name, value in zip(NOISE, expected, strict=True):
            torch.testing.assert_close(values[name][r], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("criterion", ["MSELoss", "HuberLoss"])
@pytest.mark.parametrize("name", ["gradient_stats", "trace_covariances", *NOISE[1:]])
def test_chunks_change_nothing_but_memory(name, criterion):
    for chunks in (1, 3, 7, 50):
        ctx = context(SHAPES["four layers"], 7, criterion=criterion)
        values = columns(name, ctx, chunks=chunks)
        usual = columns(name, context(SHAPES["four layers"], 7, criterion=criterion))
        for column, value in values.items():
            torch.testing.assert_close(value, usual[column], rtol=1e-12, atol=0)


def test_one_sample_has_no_noise():
    values = columns("trace_covariances", context(SHAPES["two layers"], 1))
    assert values["trace_gradient_covariance"] >= 0
    assert values["trace_gradient_covariance"] < 1e-12 * values["grad_norm_squared"]


def test_noise_of_a_zero_matrix_in_the_mean():
    """E = 0: g^2 = (4/o^2) ||A||^2 (1 + (d+1)/N), Tr Sigma = (d+1) (4/o^2) ||A||^2 (1 - 1/N).

    The factors of N are the means over samples of the large-N values. 200 data sets of 400
    samples: standard error below 1 %.
    """
    d, o, n, replicas = 5, 5, 400, 200
    ctx = context([(o, d)], n, replicas=replicas)
    A = haar_rotations(range(replicas), d) * torch.arange(1.0, d + 1)
    zero = at_weights([torch.zeros_like(A)], ctx.inputs, A)
    values = columns("gradient_stats", zero)
    size = 4 / o**2 * 55
    assert values["grad_norm_squared"].mean() == pytest.approx(size * (1 + 6 / n), rel=0.03)
    assert values["trace_gradient_covariance"].mean() == pytest.approx(6 * size, rel=0.03)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_hessian_is_that_of_torch_func(shapes):
    """Blocks, eigenvalues, and Tr H = (2/o) sum ||Q_k||^2 tr(P_k S P_k^T)."""
    ctx = context(shapes, 7, replicas=2)
    H = mse_hessians(ctx)
    for r in range(2):
        torch.testing.assert_close(H[r], brute_force(ctx, r)[2], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(H, autograd_forms.hessians(ctx), rtol=1e-10, atol=1e-12)
    S = ctx.inputs.mT @ ctx.inputs / 7
    trace = sum(
        ctx.after(k).square().sum((-2, -1))
        * (ctx.before(k) @ S @ ctx.before(k).mT).diagonal(dim1=-2, dim2=-1).sum(-1)
        for k in range(len(shapes))
    )
    spectrum = columns("hessian_spectrum", ctx)["hessian_spectrum"]
    torch.testing.assert_close(spectrum.sum(-1), 2 / 3 * trace)
    torch.testing.assert_close(spectrum, torch.linalg.eigvalsh(H))


def test_hessian_at_the_teacher_has_rank_25_and_no_negative_eigenvalue():
    """5-10-10-5 (P = 200) at E = A: H = J^T J / N (2/o) with J onto 5 x 5 matrices."""
    ctx = context([(10, 5), (10, 10), (5, 10)], 50)
    ctx = at_weights(ctx.weights, ctx.inputs, ctx.product)
    spectrum = columns("hessian_spectrum", ctx)["hessian_spectrum"][0]
    assert (spectrum > 1e-9 * spectrum[-1]).sum() == 25
    assert spectrum[0] >= -1e-9 * spectrum[-1]


def test_hessian_in_parts_is_the_same(monkeypatch):
    ctx = context(SHAPES["two layers"], 7, replicas=3)
    whole = columns("hessian_spectrum", ctx)["hessian_spectrum"]
    monkeypatch.setattr("dln.hessian._BYTES_AT_ONCE", 1)
    torch.testing.assert_close(columns("hessian_spectrum", ctx)["hessian_spectrum"], whole)


def test_a_large_hessian_is_refused_with_its_size():
    ctx = context(SHAPES["two layers"], 7)
    with pytest.raises(ValueError, match=r"P = 35 .* max_params = 34; .* 8 P\^2 = 9800 bytes"):
        columns("hessian_spectrum", ctx, max_params=34)


@pytest.mark.parametrize("criterion", ["MSELoss", "SmoothL1Loss"])
@pytest.mark.parametrize("name", metrics.names())
def test_metric_of_a_stack_is_the_stack_of_metrics(name, criterion):
    three = context(SHAPES["four layers"], 9, replicas=3, criterion=criterion)
    together = columns(name, three)
    for r in range(3):
        alone = columns(name, three.replicas(r, r + 1))
        assert list(alone) == list(together)
        for column, value in together.items():
            torch.testing.assert_close(value[r], alone[column][0], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", metrics.names())
def test_planning_knows_the_columns_of_every_metric(name):
    model = ModelConfig(in_dim=3, out_dim=3, num_hidden=2, hidden_dim=4)
    ctx = context(layer_shapes(model), 6)
    planned = metric_columns(name, tuple(layer_shapes(model)), 6, "MSELoss")
    assert planned == (name, list(columns(name, ctx)))


def test_norms_are_those_of_the_matrices():
    ctx = context(SHAPES["four layers"], 3)
    weights = [W[0] for W in ctx.weights]
    values = {name: v.item() for name, v in evaluate(resolve_metrics(
        ["weight_norm", "layer_norms", "gram_norms", "balance_diffs"]), ctx).items()}  # fmt: skip
    expected = {"weight_norm": sum(W.norm() ** 2 for W in weights) ** 0.5}
    for layer, W in enumerate(weights):
        expected[f"layer_norm_{layer}"] = W.norm()
        expected[f"gram_norm_{layer}"] = (W @ W.T).norm()
    for layer, (W, V) in enumerate(pairwise(weights)):
        expected[f"balance_diff_{layer}"] = (W @ W.T - V.T @ V).norm()
    assert values == pytest.approx({name: float(v) for name, v in expected.items()}, rel=1e-12)


def test_products_of_the_context_are_the_products():
    ctx = context(SHAPES["four layers"], 3)
    W0, W1, W2, W3 = ctx.weights
    torch.testing.assert_close(ctx.product, W3 @ W2 @ W1 @ W0)
    torch.testing.assert_close(ctx.partial(1, 2), W2 @ W1)
    torch.testing.assert_close(ctx.partial(1, 3), W3 @ W2 @ W1)
    torch.testing.assert_close(ctx.between(0, 3), W2 @ W1)
    for k in range(4):
        torch.testing.assert_close(ctx.after(k) @ ctx.weights[k] @ ctx.before(k), ctx.product)


def test_the_end_to_end_norm_goes_by_the_name_asked_for():
    ctx = context(SHAPES["two layers"], 3)
    for name in ("effective_weight_norm", "end_to_end_weight_norm"):
        values = evaluate(resolve_metrics([name]), ctx)
        torch.testing.assert_close(values[name], torch.linalg.matrix_norm(ctx.product))


def test_spectra_and_ranks_of_known_products():
    """W_1 W_0 = diag(4, 1, 0.01, 0): relative rank 2 at tol 0.01 (strictly above), 1 at abs 2."""
    W0 = torch.diag(torch.tensor([2.0, 1.0, 0.1, 0.0], dtype=torch.float64))[None]
    W1 = torch.diag(torch.tensor([2.0, 1.0, 0.1, 3.0], dtype=torch.float64))[None]
    x, A = torch.zeros(1, 2, 4, dtype=torch.float64), torch.zeros_like(W0)
    ctx = at_weights([W0, W1], x, A)
    values = columns("singular_values", ctx)
    assert [values[f"sv_{k}"].item() for k in range(4)] == pytest.approx([4, 1, 0.01, 0])
    pp = columns("partial_product_metrics", ctx, tol=0.04)
    assert list(pp) == [f"pp_{s}_sv" for s in ("0_0", "0_1", "1_1")] + [
        f"pp_{s}_relative_rank" for s in ("0_0", "0_1", "1_1")]  # fmt: skip
    assert pp["pp_1_1_sv"][0].tolist() == pytest.approx([3, 2, 1, 0.1])
    assert [pp[f"pp_{s}_relative_rank"].item() for s in ("0_0", "0_1", "1_1")] == [3, 2, 3]
    assert columns("relative_rank", ctx)["relative_rank"].tolist() == [2]
    assert columns("relative_rank", ctx, tol=0, abs_tol=2)["relative_rank"].tolist() == [1]
    zero = at_weights([torch.zeros_like(W0)], x, A)
    assert columns("relative_rank", zero, tol=0)["relative_rank"].tolist() == [0]
    layers = columns("layer_singular_values", ctx)
    assert layers["layer_1_sv_0"].item() == pytest.approx(3)
    assert len(layers) == 8


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("gradient_stats", {"chunks": 0}, "chunks must be an integer >= 1, got 0"),
        ("trace_hessian_covariance", {"chunks": 1.5}, "chunks must be an integer >= 1, got 1.5"),
        ("relative_rank", {"tol": -1}, "tol must be finite and >= 0, got -1"),
        ("hessian_spectrum", {"max_params": 0}, "max_params must be an integer >= 1, got 0"),
    ],
)
def test_bad_params_of_metrics(name, params, message):
    with pytest.raises(ValueError, match=message):
        columns(name, context(SHAPES["two layers"], 4), **params)


def test_a_metric_of_a_wrong_shape_and_columns_of_two_metrics_are_errors_of_the_run(monkeypatch):
    monkeypatch.setattr(metrics, "_functions", dict(metrics._functions))
    register_metric("scalar")(lambda ctx: ctx.product.sum())
    register_metric("sneaky")(lambda ctx: {"weight_norm": ctx.product.sum((-2, -1))})
    ctx = context(SHAPES["two layers"], 3, replicas=2)
    with pytest.raises(ValueError, match=r"metric 'scalar' must return .* R = 2, got \(\)"):
        evaluate(resolve_metrics(["scalar"]), ctx)
    with pytest.raises(ValueError, match=r"'weight_norm' comes from two metrics, .*'sneaky'"):
        evaluate(resolve_metrics(["weight_norm", "sneaky"]), ctx)


def test_metrics_of_a_run_are_taken_on_the_test_set_and_stored_as_asked():
    cfg = small(metrics=["relative_rank", {"hessian_spectrum": {}}, "weight_norm"], dtype="float32")
    curves = train(cfg)[0].curves
    assert list(curves) == [
        "step", "test_loss", "relative_rank", "hessian_spectrum", "weight_norm"]  # fmt: skip
    kinds = {name: (str(values.dtype), values.shape) for name, values in curves.items()}
    assert kinds["step"] == ("int64", (7,))
    assert kinds["relative_rank"] == ("int64", (7,))
    assert kinds["hessian_spectrum"] == ("float32", (7, 72))
    state = trainer(cfg)
    ctx = state.context()
    assert curves["weight_norm"][0] == pytest.approx(columns("weight_norm", ctx)["weight_norm"])
    assert ctx.inputs.equal(state.dataset.test_inputs)
