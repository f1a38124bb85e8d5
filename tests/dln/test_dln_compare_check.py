"""Planning a comparison: what check refuses, with which words; what it warns of."""

import warnings

import pytest
from compare_cases import comparison
from dln_cases import config

from dln.compare_check import check
from dln.registry import (
    comparative_metrics,
    metrics,
    register_comparative_metric,
    register_metric,
)
from plugins.registry import UnknownName

TO_FULL = {"switch_batch_size": {"at_step": 1, "batch_size": None}}
NARROW = {"model__hidden_dim": 10}
ONLINE = {"data__online": True, "training__batch_size": 5}

BAD = [
    ({"a": {"model__in_dim": 4}}, ["model_a.in_dim=4", "model_b.in_dim=5"]),
    ({"b": {"model__out_dim": 4}}, ["model_a.out_dim=5", "model_b.out_dim=4"]),
    ({"model__out_dim": 4}, ["model_a.out_dim=4", "model_a.in_dim=5"]),
    ({"data__params": {}}, ["data.params.matrix is missing"]),
    ({"data__d_active": 6}, ["data.d_active=6", "model_a.in_dim=5"]),
    *(
        ({"b": NARROW, "comparative_metrics": ["frobenius_distance", name]},
         ["comparative_metrics[1]", f"'{name}'", "equal shapes", "(100, 100)", "(10, 10)",
          "model_a.hidden_dim=100 differs from model_b.hidden_dim=10"])
        for name in ("param_distance", "param_cosine_sim", "layer_distances")
    ),
    ({"a": {"model__num_hidden": 1}, "comparative_metrics": [{"layer_distances": {}}]},
     ["comparative_metrics[0]", "layer_distances",
      "model_a.num_hidden=1 differs from model_b.num_hidden=3"]),
    ({"comparative_metrics": ["param_distanc"]},
     ["comparative_metrics[0]", "no comparative metric", "did you mean 'param_distance'"]),
    ({"comparative_metrics": ["weight_norm"]}, ["comparative_metrics[0]", "'weight_norm'"]),
    ({"comparative_metrics": [{"param_distance": {"p": 1}}]},
     ["comparative_metrics[0]", "no parameter 'p'"]),
    ({"comparative_metrics": ["param_distance", "param_distance"]},
     ["comparative_metrics[1]", "'param_distance' comes from two metrics"]),
    ({"comparative_metrics": ["taken_loss"]},
     ["'test_loss_b' comes from two metrics", "'dln/compare itself'"]),
    ({"comparative_metrics": ["taken_norm"], "metrics_a": ["weight_norm"]},
     ["'weight_norm_a' comes from two metrics", "'weight_norm'", "'taken_norm'"]),
    ({"comparative_metrics": ["misshapen"]},
     ["comparative_metrics[0]", "must return tensors [R] or [R, k]"]),
    ({"metrics": ["weight_nrom"]}, ["metrics[0]: ", "did you mean 'weight_norm'"]),
    ({"metrics": ["param_distance"]}, ["metrics[0]: dln has no metric"]),
    ({"metrics": ["x"], "metrics_a": [], "metrics_b": ["weight_norm", "weight_nrom"]},
     ["metrics_b[1]: ", "did you mean 'weight_norm'"]),
    ({"metrics_a": ["layer_norms", "layer_norms"]}, ["metrics_a[1]: ", "'layer_norm_0_a'"]),
    ({"metrics": ["hessian_spectrum"], "a": NARROW}, ["metrics[0]: ", "P = 21000"]),
    ({"metrics_b": ["overlapping"]}, ["metrics_b[0]: ", "'n_params_b' comes from two metrics"]),
    ({"callbacks_a": ["lr_deacy"]}, ["callbacks_a[0]: ", "did you mean 'lr_decay'"]),
    ({"callbacks_b": [TO_FULL, "lr_decay"]}, ["callbacks_b[1]: ", "parameter 'decay_every'"]),
    ({"b": {"training__optimizer": "SGDD"}}, ["training_b.optimizer: ", "did you mean 'SGD'"]),
    ({"a": {"training__optimizer_params": {"lr": 1}}},
     ["training_a.optimizer_params has lr=1", "training_a.lr"]),
    ({"b": {"training__optimizer_params": {"momentun": 1}}},
     ["training_b.optimizer_params: ", "did you mean 'momentum'"]),
    ({"b": {"training__criterion": "MSE"}}, ["training_b.criterion: ", "did you mean 'MSELoss'"]),
    ({**ONLINE, "b": {"training__batch_size": None}},
     ["training_b.batch_size=null", "data.online=false", "set training_b.batch_size"]),
    ({**ONLINE, "callbacks_b": [TO_FULL]},
     ["callbacks_b[0] sets batch_size=null at step 1", "data.online=false"]),
    ({**ONLINE, "a": {"training__track_train_loss": True}},
     ["training_a.track_train_loss=true", "data.online=false"]),
]  # fmt: skip


@pytest.fixture
def odd_metrics(monkeypatch):
    """Registered metrics that make bad columns."""
    for kind in (metrics, comparative_metrics):
        monkeypatch.setattr(kind, "_functions", dict(kind._functions))
    register_metric("overlapping")(lambda ctx: {"n_params": ctx.product[:, 0, 0]})
    register_comparative_metric("taken_loss")(lambda a, b: {"test_loss_b": a.product[:, 0, 0]})
    register_comparative_metric("taken_norm")(lambda a, b: {"weight_norm_a": a.product[:, 0, 0]})
    register_comparative_metric("misshapen")(lambda a, b: a.product - b.product)


@pytest.mark.parametrize(("values", "words"), BAD)
@pytest.mark.usefixtures("odd_metrics")
def test_bad_input_is_refused_with_its_key(values, words):
    cfg = comparison(config, **values)
    for _ in range(2):  # the second time as remembered
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked below)
            check(cfg, {})
        assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"a": NARROW, "b": {"model__num_hidden": 0}, "metrics": ["layer_norms"],
         "comparative_metrics": ["frobenius_distance"]},
        {**ONLINE, "b": {"training__batch_size": 1}},
        {"metrics": ["hessian_spectrum"], "metrics_a": [], **NARROW},
        {"metrics": ["weight_norm"], "comparative_metrics": comparative_metrics.names(),
         "a": {"training__criterion": "L1Loss"}, "callbacks_a": [TO_FULL]},
        {"model__num_hidden": 0, "b": NARROW, "comparative_metrics": ["param_distance"]},
    ],
)  # fmt: skip
def test_good_input_is_accepted_without_a_warning(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(comparison(config, **values), {"training_a.lr": [0.1, 0.2]})


def warned(cfg, *varying):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(cfg, {key: [0, 1] for key in varying})
    return [str(warning.message) for warning in caught]


def test_a_callback_after_the_last_update_is_a_warning():
    late = {"switch_batch_size": {"at_step": 100, "batch_size": 5}}
    cfg = comparison(config, max_steps=100, callbacks_b=[late])
    assert warned(cfg) == ["callbacks_b[0] acts at step 100, but max_steps=100: never"]


def test_batch_seeds_without_effect_are_a_warning():
    """Not where those of the other side, typed with the same key, change the run."""
    seeds = ["training_a.batch_seed", "training_b.batch_seed"]
    none = comparison(config, b={"training__batch_size": 500})
    texts = [
        f"{section}.batch_seed has no effect with {section}.batch_size={size}: runs that differ in "
        "it alone are equal"
        for section, size in (("training_a", "null"), ("training_b", 500))
    ]
    assert warned(none, *seeds) == texts
    assert warned(none, seeds[1]) == texts[1:]
    assert warned(none, "training_a.lr") == []
    one = comparison(config, b={"training__batch_size": 10})
    assert warned(one, seeds[0]) == texts[:1]
    assert warned(one, seeds[1]) == warned(one, *seeds) == []
    switched = comparison(
        config, callbacks_a=[{"switch_batch_size": {"at_step": 5, "batch_size": 2}}]
    )
    assert warned(switched, seeds[0]) == []


@pytest.mark.usefixtures("odd_metrics")
def test_a_metric_that_was_unknown_is_found_once_it_is_registered():
    cfg = comparison(config, comparative_metrics=["largest_gap"])
    with pytest.raises(UnknownName, match="largest_gap"):
        check(cfg, {})
    register_comparative_metric("largest_gap")(
        lambda a, b: (a.product - b.product).abs().amax((1, 2))
    )
    check(cfg, {})


@pytest.mark.parametrize(
    "argument",
    ["model_b.lrr=1", "model_b.hidden_dim=7", "training_b.batch_size=0", "callbacks=[]"],
)
def test_the_command_line_ends_with_status_two_and_names_the_key(sweep_cli, argument):
    done = sweep_cli("-cn=gph_comparative", argument, "--dry-run")
    assert done.returncode == 2
    assert argument.partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
