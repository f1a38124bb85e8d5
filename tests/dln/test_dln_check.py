"""Planning: what check refuses, with which words; what it costs; what it leaves alone."""

import time
import warnings

import pytest
from dln_cases import config
from omegaconf import OmegaConf

from dln.check import check
from dln.config import DataConfig, ModelConfig, TrainConfig, TrainingConfig
from dln.registry import matrices, metrics, register_matrix, register_metric

TOPK = {"matrix": "power_law_topk", "scale": 1, "alpha": 1}
SWITCH = {"switch_batch_size": {"at_step": 1, "batch_size": None}}

BAD = [
    ({"model__out_dim": 4}, ["model.out_dim=4", "model.in_dim=5"]),
    ({"data__params": {}}, ["data.params.matrix", "power_law_topk"]),
    ({"data__params": {"matrix": "power_lew"}}, ["data.params.matrix", "did you mean 'power_law'"]),
    ({"data__params": {"matrix": "diagonal"}}, ["data.params", "needs the parameter 'scale'"]),
    (
        {"data__params": {"matrix": "diagonal", "scale": 1, "sclae": 2}},
        ["data.params", "no parameter 'sclae'", "did you mean 'scale'"],
    ),
    ({"data__params": {**TOPK, "k": 0}}, ["data.params", "k must be an integer in 1..5, got 0"]),
    ({"data__params": {**TOPK, "k": 6}}, ["data.params", "k must be an integer in 1..5, got 6"]),
    ({"data__params": {"matrix": "diagonal", "scale": "x"}}, ["data.params", "scale", "'x'"]),
    ({"data__params": {"matrix": 3}}, ["data.params"]),
    ({"data__d_active": 6}, ["data.d_active=6", "1..5"]),
    ({"training__optimizer": "SGDD"}, ["training.optimizer: ", "did you mean 'SGD'"]),
    (
        {"training__optimizer_params": {"momentun": 0.9}},
        ["training.optimizer_params", "did you mean 'momentum'"],
    ),
    ({"training__optimizer_params": {"momentum": "x"}}, ["training.optimizer_params", "momentum"]),
    ({"training__optimizer_params": {"lr": 0.1}}, ["training.optimizer_params", "training.lr"]),
    ({"training__criterion": "MSE"}, ["training.criterion: ", "did you mean 'MSELoss'"]),
    (
        {"data__online": True},
        ["training.batch_size=null", "data.online=false", "positive integer"],
    ),
    (
        {"data__online": True, "training__batch_size": 5, "training__track_train_loss": True},
        ["training.track_train_loss=true", "data.online=false"],
    ),
    (
        {"data__online": True, "training__batch_size": 5, "callbacks": ["x", SWITCH][1:]},
        ["callbacks[0]", "batch_size=null", "data.online=false"],
    ),
    ({"callbacks": ["lr_deacy"]}, ["callbacks[0]", "did you mean 'lr_decay'"]),
    ({"callbacks": [SWITCH, "lr_decay"]}, ["callbacks[1]", "needs the parameter 'decay_every'"]),
    (
        {"callbacks": [{"lr_decay": {"decay_every": 0, "factor": 1}}]},
        ["callbacks[0]: decay_every must be an integer >= 1, got 0"],
    ),
    ({"metrics": ["weight_nrom"]}, ["metrics[0]", "did you mean 'weight_norm'", "balance_diffs"]),
    (
        {"metrics": ["weight_norm", {"gradient_stats": {"chunks": 0}}]},
        ["metrics[1]", "chunks must be an integer >= 1, got 0"],
    ),
    (
        {"metrics": [{"name": "relative_rank", "params": {"tool": 1}}]},
        ["metrics[0]", "did you mean 'tol'"],
    ),
    ({"metrics": [{"a": {}, "b": {}}]}, ["metrics[0]", "names no plugin"]),
    ({"metrics": ["hessian_spectrum"]}, ["metrics[0]", "P = 21000", "max_params = 4096",
                                         f"{8 * 21000**2} bytes"]),
    (
        {"metrics": ["gradient_stats", "grad_norm_squared"]},
        ["metrics[1]", "'grad_norm_squared' comes from two metrics", "'gradient_stats'"],
    ),
    ({"metrics": ["layer_norms", "layer_norms"]}, ["metrics[1]", "'layer_norm_0'"]),
    ({"metrics": ["clashing"]}, ["metrics[0]", "'test_loss' comes from two metrics"]),
    ({"metrics": ["misnamed"]}, ["metrics[0]", "'Bad.Name'"]),
    ({"metrics": ["misshapen"]}, ["metrics[0]", "must return tensors [R] or [R, k]"]),
    ({"metrics": ["broken"]}, ["metrics[0]: 'broken' raised NameError: name 'torhc'", "check.py:"]),
    (
        {"data__params": {"matrix": "broken"}},
        ["data.params: 'broken' raised NameError: name 'torhc' is not defined", "check.py:"],
    ),
]  # fmt: skip


@pytest.fixture
def odd_metrics(monkeypatch):
    """Registered metrics that make bad columns, and plugins with a mistake."""
    monkeypatch.setattr(metrics, "_functions", dict(metrics._functions))
    register_metric("clashing")(lambda ctx: {"test_loss": ctx.product[:, 0, 0]})
    register_metric("misnamed")(lambda ctx: {"Bad.Name": ctx.product[:, 0, 0]})
    register_metric("misshapen")(lambda ctx: ctx.product)
    register_metric("broken")(lambda ctx: torhc.linalg.norm(ctx.product))  # noqa: F821
    monkeypatch.setattr(matrices, "_functions", dict(matrices._functions))
    register_matrix("broken")(lambda rows, cols, generator: torhc.eye(rows))  # noqa: F821
    register_metric("by_value")(lambda ctx: ctx.product[:, 0, 0] * float(ctx.product.sum()))


@pytest.mark.parametrize(("values", "words"), BAD)
@pytest.mark.usefixtures("odd_metrics")
def test_bad_input_is_refused_with_its_key(values, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked below)
        check(config(**values), {})
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("make", "field", "value", "message"),
    [
        (ModelConfig, "gamma", -1.0, "gamma must be finite and > 0, got -1.0"),
        (ModelConfig, "gamma", 0.0, "gamma must be finite and > 0, got 0.0"),
        (ModelConfig, "gamma", float("nan"), "gamma must be finite and > 0, got nan"),
        (ModelConfig, "gamma", float("inf"), "gamma must be finite and > 0, got inf"),
        (ModelConfig, "in_dim", 0, "in_dim must be an integer >= 1, got 0"),
        (ModelConfig, "out_dim", 0, "out_dim must be an integer >= 1, got 0"),
        (ModelConfig, "hidden_dim", 0, "hidden_dim must be an integer >= 1, got 0"),
        (ModelConfig, "num_hidden", -1, "num_hidden must be an integer >= 0, got -1"),
        (ModelConfig, "model_seed", -1, "model_seed must be an integer >= 0, got -1"),
        (DataConfig, "train_samples", 0, "train_samples must be an integer >= 1, got 0"),
        (DataConfig, "test_samples", 0, "test_samples must be an integer >= 1, got 0"),
        (DataConfig, "data_seed", -1, "data_seed must be an integer >= 0, got -1"),
        (DataConfig, "noise_std", -0.1, "noise_std must be finite and >= 0, got -0.1"),
        (DataConfig, "d_active", 0, "d_active must be an integer >= 1, got 0"),
        (TrainingConfig, "lr", -1.0, "lr must be finite and >= 0, got -1.0"),
        (TrainingConfig, "batch_size", 0, "batch_size must be an integer >= 1, got 0"),
        (TrainingConfig, "batch_seed", -1, "batch_seed must be an integer >= 0, got -1"),
        (TrainConfig, "max_steps", -1, "max_steps must be an integer >= 0, got -1"),
        (TrainConfig, "num_evaluations", 0, "num_evaluations must be an integer >= 1, got 0"),
        (
            TrainConfig,
            "dtype",
            "float16",
            "dtype must be one of float32, float64, got 'float16'; did you mean 'float64'?",
        ),
        (TrainConfig, "threads", 0, "threads must be >= 1, got 0"),
    ],
)
def test_a_field_refuses_what_it_cannot_be(make, field, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        make(**{field: value})
    assert str(error.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model__num_hidden": 0, "metrics": ["balance_diffs", "trace_covariances"]},
        {"data__online": True, "training__batch_size": 1},
        {"training__batch_size": 501, "callbacks": [SWITCH]},
        {"max_steps": 0},
        {"metrics": [{"hessian_spectrum": {"max_params": 21000}}]},
        {"metrics": ["by_value", "weight_norm"]},
        {"training__criterion": "L1Loss", "metrics": ["gradient_stats"]},
        {"metrics": [], "training__optimizer": "AdamW",
         "training__optimizer_params": {"betas": [0.5, 0.6]}},
    ],
)  # fmt: skip
@pytest.mark.usefixtures("odd_metrics")
def test_good_input_is_accepted_without_a_warning(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(config(**values), {"training.lr": [0.1, 0.2]})


def test_a_switch_after_the_last_update_is_a_warning():
    late = {"switch_batch_size": {"at_step": 100, "batch_size": 5}}
    with pytest.warns(UserWarning, match=r"callbacks\[0\] acts at step 100, but max_steps=100"):
        check(config(max_steps=100, callbacks=[late]), {})


def test_checking_again_costs_little():
    """Once per stack key: below 1 ms a call, also where the first one is dear."""
    cfg = config(metrics=["trace_covariances", "partial_product_metrics"], callbacks=[SWITCH])
    check(cfg, {})
    start = time.thread_time()
    for lr in range(100):
        cfg.training.lr = 1e-4 * lr
        check(cfg, {})
    assert (time.thread_time() - start) / 100 < 1e-3


def test_an_error_is_remembered_with_its_key_only():
    bad = {"gradient_stats": {"chunks": 0}}
    for place in (["weight_norm", bad], [bad]):
        with pytest.raises(ValueError, match=rf"^metrics\[{len(place) - 1}\]: chunks must"):
            check(config(metrics=place), {})


def test_the_schema_is_one_for_omegaconf():
    schema = OmegaConf.structured(TrainConfig)
    edits = {
        "training": {
            "batch_size": 5,
            "optimizer": "AdamW",
            "optimizer_params": {"betas": [0.9, 0.99]},
        },
        "data": {"d_active": 3, "params": {"matrix": "identity"}},
        "metrics": ["weight_norm", {"relative_rank": {"tol": 0.1}}],
        "callbacks": [{"multi_switch_batch_size": {"schedule": {3: None}}}],
        "threads": None,
    }
    cfg = OmegaConf.to_object(OmegaConf.merge(schema, edits))
    assert isinstance(cfg, TrainConfig)
    assert cfg.training == TrainingConfig(
        batch_size=5, optimizer="AdamW", optimizer_params={"betas": [0.9, 0.99]}
    )
    assert cfg.callbacks == edits["callbacks"]
    check(cfg, {})
    assert OmegaConf.to_object(OmegaConf.merge(schema, {"training": {"batch_size": None}}))
