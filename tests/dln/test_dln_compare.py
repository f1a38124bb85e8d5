"""Comparisons: two networks against each alone, distances, stacks, divergence."""

import numpy as np
import pytest
import torch
from compare_cases import comparison
from dln_cases import config, context, small, train, workdirs

import dln.comparative_metrics  # noqa: F401  (registers)
from dln.compare import run_stack
from dln.compare_config import stack_width
from dln.metrics import columns_of
from dln.registry import comparative_metrics

ALL = ["param_distance", "param_cosine_sim", "layer_distances", "frobenius_distance"]
DISTANCES = ["param_distance", "frobenius_distance", *(f"layer_distance_{i}" for i in range(3))]
SWITCH = {"switch_batch_size": {"at_step": 7, "batch_size": 4}}
SHAPES = [(5, 4), (2, 5), (3, 2)]

OTHER_VALUES = {
    "model_a.model_seed": lambda r: r % 7,
    "model_b.model_seed": lambda r: r % 3,
    "model_a.gamma": lambda r: (0.75, 1.0, 1.5)[r % 3],
    "model_b.gamma": lambda r: (1.0, 1.5)[r // 3 % 2],
    "training_a.lr": lambda r: (0.01, 0.02)[r % 2],
    "training_b.lr": lambda r: (0.01, 0.02, 0.015)[r // 2 % 3],
    "training_a.batch_seed": lambda r: r // 3,
    "training_b.batch_seed": lambda r: r // 5,
    "data.data_seed": lambda r: r % 5,
    "data.noise_std": lambda r: (0.0, 0.1)[r // 2 % 2],
}


def run(cfg):
    return run_stack(cfg, {}, workdirs(1))[0]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"training__batch_size": 5},
        {"training__batch_size": 5, "data__noise_std": 0.1, "training__optimizer": "AdamW"},
        {"training__batch_size": 2, "data__online": True, "callbacks_a": [SWITCH],
         "callbacks_b": [SWITCH]},
        {"training__criterion": "L1Loss", "training__batch_size": 500},
    ],
)  # fmt: skip
def test_equal_sides_stay_equal(values):
    """Property 8: every distance exactly 0; the cosine 1 to rounding."""
    result = run(comparison(**values, metrics=["singular_values"], comparative_metrics=ALL))
    curves = result.curves
    assert all((curves[name] == 0).all() for name in DISTANCES)
    np.testing.assert_allclose(curves["param_cosine_sim"], 1, rtol=1e-14)
    both = [name for name in curves if name.endswith("_a")]
    assert len(both) == 4
    for name in both:
        np.testing.assert_array_equal(curves[name], curves[f"{name[:-1]}b"])


def test_a_full_batch_is_the_whole_train_set_by_any_size():
    """Property 8: null and train_samples."""
    sizes = ({"training__batch_size": None}, {"training__batch_size": 20})
    result = run(comparison(a=sizes[0], b=sizes[1], comparative_metrics=["param_distance"]))
    assert (result.curves["param_distance"] == 0).all()


@pytest.mark.parametrize(
    ("a", "b", "values"),
    [
        ({}, {"model__model_seed": 3, "model__gamma": 1.5, "training__lr": 0.02}, {}),
        ({}, {"training__batch_size": 5, "training__batch_seed": 2}, {"data__noise_std": 0.1}),
        ({"model__num_hidden": 0}, {"model__hidden_dim": 9}, {"training__track_train_loss": True}),
        ({"training__batch_size": 2}, {"training__batch_size": 7, "training__batch_seed": 1},
         {"data__online": True, "data__noise_std": 0.1}),
        ({"training__optimizer": "Adam", "training__lr": 1e-3}, {"training__criterion": "L1Loss"},
         {"data__d_active": 2, "data__data_seed": 4}),
        ({"model__init": "aligned"}, {"training__batch_size": 5}, {"callbacks_b": [SWITCH]}),
    ],
)  # fmt: skip
def test_each_side_is_that_network_alone(a, b, values):
    """Same data, same curves as dln/train; to rounding, since stacks of one are equal programs."""
    metrics = ["layer_norms", "relative_rank"]
    result = run(comparison(a=a, b=b, **values, metrics=metrics))
    callbacks = {"a": values.pop("callbacks_a", []), "b": values.pop("callbacks_b", [])}
    names = {"step"}
    for side, own in (("a", a), ("b", b)):
        cfg = small(**{**values, **own}, metrics=metrics, callbacks=callbacks[side])
        alone = train(cfg)[0]
        for name, curve in alone.curves.items():
            column = name if name == "step" else f"{name}_{side}"
            names.add(column)
            np.testing.assert_allclose(result.curves[column], curve, rtol=1e-12, err_msg=column)
        for name, value in alone.scalars.items():
            found = result.scalars.pop(f"{name}_{side}")
            assert name.startswith("seconds_") or found == pytest.approx(value, rel=1e-12)
    assert set(result.curves) == names
    assert result.scalars == {}


def test_metrics_of_one_side_replace_the_common_ones():
    cfg = comparison(metrics=["weight_norm"], metrics_a=[], metrics_b=["grad_norm_squared"])
    assert list(run(cfg).curves) == ["step", "test_loss_a", "test_loss_b", "grad_norm_squared_b"]
    cfg.metrics_b = None
    assert list(run(cfg).curves) == ["step", "test_loss_a", "test_loss_b", "weight_norm_b"]


def pair(shapes_a=SHAPES, shapes_b=SHAPES, replicas=3):
    return (
        context(shapes_a, 6, replicas=replicas, seed=1),
        context(shapes_b, 6, replicas=replicas, seed=2),
    )


def columns(name, ctx_a, ctx_b):
    return columns_of(name, comparative_metrics.resolve(name)(ctx_a, ctx_b), len(ctx_a.inputs))


def test_distances_are_those_of_the_definition():
    a, b = pair()
    got = {}
    for name in ALL:
        got |= columns(name, a, b)
    for r in range(3):
        weights = [[W[r].numpy() for W in ctx.weights] for ctx in (a, b)]
        theta_a, theta_b = (np.concatenate([W.ravel() for W in side]) for side in weights)
        E_a, E_b = (np.linalg.multi_dot(side[::-1]) for side in weights)
        cosine = theta_a @ theta_b / np.sqrt((theta_a @ theta_a) * (theta_b @ theta_b))
        expected = {
            "param_distance": np.linalg.norm(theta_a - theta_b),
            "param_cosine_sim": cosine,
            "frobenius_distance": np.linalg.norm(E_a - E_b),
            **{
                f"layer_distance_{i}": np.linalg.norm(A - B)
                for i, (A, B) in enumerate(zip(*weights, strict=True))
            },
        }
        assert {name: value[r].item() for name, value in got.items()} == pytest.approx(
            expected, rel=1e-12
        )


@pytest.mark.parametrize("name", comparative_metrics.names())
def test_a_comparative_metric_of_a_stack_is_the_stack_of_metrics(name):
    a, b = pair()
    whole = columns(name, a, b)
    for r in range(3):
        alone = columns(name, a.replicas(r, r + 1), b.replicas(r, r + 1))
        for column, value in whole.items():
            torch.testing.assert_close(value[r : r + 1], alone[column], rtol=1e-13, atol=0)


def test_the_distance_of_products_takes_networks_of_any_depth():
    a, b = pair(SHAPES, [(3, 4)])
    distance = columns("frobenius_distance", a, b)["frobenius_distance"]
    torch.testing.assert_close(distance, (a.product - b.weights[0]).square().sum((1, 2)).sqrt())


def test_a_zero_network_has_no_direction():
    a, b = pair()
    for W in b.weights:
        W.zero_()
    assert columns("param_cosine_sim", a, b)["param_cosine_sim"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "values",
    [
        {"a": {"training__batch_size": 5}, "b": {"model__hidden_dim": 4}},
        {"training__batch_size": 3, "data__online": True, "b": {"training__batch_size": 2}},
    ],
)
def test_a_comparison_alone_is_that_in_a_mixed_stack(values):
    """Property 10, also permuted: 1e-12 in float64 over 1000 steps below the stability limit."""
    cfg = comparison(
        **values,
        max_steps=1000,
        metrics=["weight_norm"],
        comparative_metrics=["frobenius_distance"],
    )
    n = 30
    replicas = {key: [value(r) for r in range(n)] for key, value in OTHER_VALUES.items()}
    stack = run_stack(cfg, replicas, workdirs(n))
    order = np.random.default_rng(0).permutation(n)
    permuted = {key: [column[r] for r in order] for key, column in replicas.items()}
    shuffled = run_stack(cfg, permuted, workdirs(n))
    for r in (0, 7, 29):
        alone = run_stack(cfg, {k: [v[r]] for k, v in replicas.items()}, workdirs(1))[0]
        for other in (stack[r], shuffled[list(order).index(r)]):
            assert list(other.curves) == list(alone.curves)
            for name, curve in alone.curves.items():
                atol = 1e-12 * abs(curve).max()
                np.testing.assert_allclose(other.curves[name], curve, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_a_replica_value_reaches_its_side_alone(key):
    """As by the field itself; data reach both."""
    section, name = key.split(".")
    cfg = comparison(training__batch_size=5)
    usual = run(cfg).curves
    by_column = run_stack(cfg, {key: [OTHER_VALUES[key](11)]}, workdirs(1))[0].curves
    setattr(getattr(cfg, section), name, OTHER_VALUES[key](11))
    by_field = run(cfg).curves
    changed = {
        side
        for side in "ab"
        if (by_column[f"test_loss_{side}"] != usual[f"test_loss_{side}"]).any()
    }
    assert changed == ({"a", "b"} if section == "data" else {section[-1]})
    for side in "ab":
        np.testing.assert_array_equal(by_column[f"test_loss_{side}"], by_field[f"test_loss_{side}"])


def test_values_of_the_common_sections_have_reached_the_sides_before():
    """The planner hands them over too; a key that may not differ is an error."""
    cfg = comparison(training__batch_size=5)
    seeds = {f"{section}.batch_seed": [7] for section in ("training", "shared.training")}
    result = run_stack(cfg, {**seeds, "training_b.batch_seed": [3]}, workdirs(1))[0]
    expected = run_stack(cfg, {"training_b.batch_seed": [3]}, workdirs(1))[0]
    np.testing.assert_array_equal(result.curves["test_loss_a"], expected.curves["test_loss_a"])
    np.testing.assert_array_equal(result.curves["test_loss_b"], expected.curves["test_loss_b"])
    with pytest.raises(ValueError, match="hidden_dim"):
        run_stack(cfg, {"model_b.hidden_dim": [3]}, workdirs(1))


@pytest.mark.parametrize("side", ["a", "b"])
def test_the_divergence_of_one_side_ends_the_run(side):
    """Both curves end at the same record, before it; stack mates go on unchanged."""
    cfg = comparison(
        num_evaluations=30, training__batch_size=5, metrics=["weight_norm"], comparative_metrics=ALL
    )
    replicas = {
        f"training_{side}.lr": [0.01, 100.0, 0.02],
        "training_a.batch_seed": [0, 1, 2],
        "data.data_seed": [0, 1, 0],
    }
    good, bad, other = run_stack(cfg, replicas, workdirs(3))
    assert [result.status for result in (good, bad, other)] == ["ok", "diverged", "ok"]
    n = len(bad.curves["step"])
    assert 0 < n < 31
    assert all(len(curve) == n and np.isfinite(curve).all() for curve in bad.curves.values())
    assert bad.scalars["diverged_step"] > bad.curves["step"][-1]
    for name in ("test_loss_a", "test_loss_b"):
        assert bad.scalars[f"final_{name}"] == bad.curves[name][-1]
    for r, result in ((0, good), (2, other)):
        assert "diverged_step" not in result.scalars
        alone = run_stack(cfg, {k: [v[r]] for k, v in replicas.items()}, workdirs(1))[0]
        for name, curve in alone.curves.items():
            np.testing.assert_allclose(result.curves[name], curve, rtol=1e-12, atol=1e-13)


def test_progress_is_that_of_the_run():
    seen = []
    run_stack(comparison(max_steps=10, num_evaluations=2), {}, workdirs(1), seen.append)
    assert seen == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(10, 10, 256), (100, 100, 24), (10, 100, 24), (1000, 10, 1)]
)
def test_a_stack_is_half_as_wide_as_that_of_the_larger_network(a, b, expected):
    sides = [{"model__hidden_dim": width} for width in (a, b)]
    assert stack_width(comparison(config, a=sides[0], b=sides[1])) == expected
