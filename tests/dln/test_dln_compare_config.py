"""Schema of comparisons: who inherits from whom, identity, stacks; the experiments' table."""

from dataclasses import fields
from itertools import permutations

import polars as pl
import pytest
from dln_cases import POWER_LAW
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dln.compare_check import check
from dln.compare_config import CompareConfig, side
from dln.config import DataConfig, ModelConfig, TrainingConfig
from plugins import api
from plugins import plan as planning
from plugins.axes import expand
from plugins.composition import compose as compose_bases
from plugins.experiment import CONF, get_experiment
from plugins.identity import neutral_values, run_id
from plugins.instances import instantiate
from plugins.load import load_sweep
from plugins.overrides import translate_override

EXPERIMENT = get_experiment("dln/compare")
SECTIONS = {"model": ModelConfig, "training": TrainingConfig}
FIELDS = [(section, f.name) for section, schema in SECTIONS.items() for f in fields(schema)]
FOUR = ["layer_norms", "gram_norms", "balance_diffs", "effective_weight_norm"]
DISTANCES = ["param_distance", "layer_distances", "frobenius_distance"]


def resolved(*overrides, name="gph_comparative"):
    """The config of one run, composed by Hydra alone."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"dln/{name}", [translate_override(line) for line in overrides])
    return OmegaConf.to_container(config, resolve=True)


def planned(*overrides):
    """(frame, configs) of a sweep, as the command line plans it."""
    lines = OverridesParser.create().parse_overrides([translate_override(o) for o in overrides])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        bases = compose_bases(
            expand(lines),
            lambda lines: compose("dln/gph_comparative", lines),
            lambda key: False,
            lambda config: CompareConfig,
        )
    return planning.identify(bases, EXPERIMENT)


def of_sides(config, section, name):
    return tuple(config[f"{section}_{s}"][name] for s in "ab")


def another(default):
    """A value of the same type, or for null a number."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, dict):
        return {**default, "x": 1}
    return default + "x" if isinstance(default, str) else (default or 0) + 1


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_every_field_is_inherited_from_the_common_section_and_that_from_shared(section, name):
    """Also fields that a section gets one day."""
    plain = OmegaConf.to_container(OmegaConf.structured(CompareConfig), resolve=True)
    default = plain["shared"][section][name]
    value = another(default)
    for key, expected in [
        (f"shared.{section}", (value, value)),
        (section, (value, value)),
        (f"{section}_a", (value, default)),
        (f"{section}_b", (default, value)),
    ]:
        config = OmegaConf.structured(CompareConfig)
        OmegaConf.update(config, f"{key}.{name}", value)
        assert of_sides(OmegaConf.to_container(config, resolve=True), section, name) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.gamma=2"], (2, 2)),
        (["shared.model.gamma=2"], (2, 2)),
        (["model.gamma=2", "model_b.gamma=3"], (2, 3)),
        (["shared.model.gamma=2", "model.gamma=3"], (3, 3)),
        (["shared.model.gamma=2", "model_a.gamma=3"], (3, 2)),
        (["shared.model.gamma=2", "model.gamma=3", "model_a.gamma=4"], (4, 3)),
        (["model_a.gamma=1", "model.gamma=2"], (1, 2)),
    ],
)
@pytest.mark.parametrize("swept", [False, True])
def test_the_nearest_section_that_is_set_wins_in_any_order(overrides, expected, swept):
    for lines in permutations(overrides):
        if swept:  # the values asked for come second
            lines = [line.replace("=", "=7,") for line in lines]
        frame, configs = planned(*lines)
        row = frame.row(len(frame) - 1, named=True)
        config = configs[row["config_id"]].full(row)
        assert of_sides(config, "model", "gamma") == expected
        assert run_id(config, EXPERIMENT) == row["run_id"]


def test_null_is_a_value_that_is_inherited_and_set():
    shared = "shared.training.batch_size=5"
    inherit = "training_b.batch_size=${training.batch_size}"
    for lines, expected in [
        ([shared], (5, 10)),
        ([shared, inherit], (5, 5)),
        ([shared, "training_b.batch_size=none"], (5, None)),
        ([shared, inherit, "training.batch_size=none"], (None, None)),
    ]:
        assert of_sides(resolved(*lines), "training", "batch_size") == expected


EQUAL = [
    [["shared.training.lr=2"], ["training.lr=2"], ["training_a.lr=2", "training_b.lr=2.0"],
     ["shared.training.lr=1", "training_b.lr=2", "training_a.lr=2"]],
    [[], ["model.gamma=1"], ["shared.model.gamma=5", "model.gamma=1.0"],
     ["training_b.batch_size=10"], ["shared.training.batch_size=3", "training_a.batch_size=null"],
     ["shared.model.init=aligned", "model.init=normal"], ["device=cpu", "threads=2"],
     ["metrics_b=null"]],
    [["+shared.training.optimizer_params.momentum=0.5"],
     ["+training_b.optimizer_params={momentum: 0.5}",
      "+training_a.optimizer_params={momentum: 0.5}"]],
]  # fmt: skip


def test_equal_sides_are_one_run_however_typed():
    ids = [{planned(*lines)[0]["run_id"][0] for lines in group} for group in EQUAL]
    assert [len(group) for group in ids] == [1, 1, 1]
    assert len(set.union(*ids)) == 3


@pytest.mark.parametrize(
    "line",
    ["model_a.gamma=2", "model_b.gamma=2", "training_a.batch_seed=1", "training_b.lr=1",
     "metrics=[]", "metrics_b=[]", "comparative_metrics=[]", "callbacks_a=[x]", "data.data_seed=1",
     "dtype=float64", "max_steps=1", "model_b.init=aligned"],
)  # fmt: skip
def test_whatever_changes_a_side_is_another_run(line):
    assert planned(line)[0]["run_id"][0] != planned()[0]["run_id"][0]


def test_a_later_field_of_a_section_renames_no_stored_comparison():
    neutral = neutral_values(CompareConfig)
    for section, schema in SECTIONS.items():
        for name, value in neutral_values(schema).items():
            assert neutral[f"{section}_a.{name}"] == neutral[f"{section}_b.{name}"] == value
    assert neutral["model_a.init"] == "normal"


def test_a_sweep_over_a_common_key_is_the_runs_composed_one_by_one():
    """And stays one stack: only the sides count for stacking, and these may differ inside one."""
    seeds, rates = "shared.training.batch_seed=0..3", "training.lr=1e-4,1e-3"
    frame, _ = planned(seeds, rates, "model_b.gamma=1,1.5")
    expected = [
        run_id(resolved(f"shared.training.batch_seed={s}", f"training.lr={lr}",
                        f"model_b.gamma={g}"), EXPERIMENT)
        for s in range(3) for lr in (1e-4, 1e-3) for g in (1, 1.5)
    ]  # fmt: skip
    assert frame["run_id"].to_list() == expected
    assert frame["stack_key"].n_unique() == 1
    replicas = planning.replicas(frame, EXPERIMENT)
    assert replicas["training_a.lr"] == replicas["training_b.lr"] == [1e-4, 1e-4, 1e-3, 1e-3] * 3
    assert "model_a.gamma" not in replicas


@pytest.mark.parametrize("key", ["model.hidden_dim", "training.batch_size", "training_b.optimizer"])
def test_what_is_no_replica_key_makes_stacks(key):
    frame, _ = planned(f"{key}=SGD,Adam" if "optimizer" in key else f"{key}=20,30")
    assert frame["stack_key"].n_unique() == 2


def test_a_key_inside_an_inherited_mapping_is_refused():
    """OmegaConf would set it in the mapping inherited, and so for both sides."""
    for values in ("0.5", "0.5,0.9"):
        with pytest.raises(ValueError, match=r"training_b\.optimizer_params is inherited"):
            planned(f"+training_b.optimizer_params.momentum={values}")
    frame, configs = planned("+training_b.optimizer_params={momentum: 0.5}")
    sides = of_sides(configs[frame["config_id"][0]].config, "training", "optimizer_params")
    assert sides == ({}, {"momentum": 0.5})


@pytest.mark.parametrize("section", ["shared.model", "model", "model_a", "model_b"])
def test_every_section_checks_its_fields(section):
    config = OmegaConf.structured(CompareConfig)
    OmegaConf.update(config, f"{section}.hidden_dim", 0)
    message = rf"^{section}\.hidden_dim must be an integer >= 1, got 0"
    with pytest.raises(ValueError, match=message):
        instantiate(OmegaConf.to_container(config, resolve=True), CompareConfig)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_steps=-1,2", "^max_steps must be an integer >= 0, got -1"),
        ("num_evaluations=0", "^num_evaluations must be an integer >= 1, got 0"),
        ("dtype=float16", "^dtype must be one of float32, float64, got 'float16'"),
        ("model.gamma=1,-1", "gamma must be finite and > 0, got -1.0"),
        ("training_b.lr=1,-1", "^training_b.lr must be finite and >= 0, got -1.0"),
        ("training_b.lrr=1,2", "no key 'training_b.lrr'.*did you mean 'training_b.lr'"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused(line, message):
    with pytest.raises(ValueError, match=message):
        planned(line)


def test_a_sweep_computes_its_rows_once(tmp_path):
    """Typed through the common section first, by the sides then."""
    base = ["max_steps=4", "num_evaluations=2", "shared.model.hidden_dim=5"]
    lines = [*base, "model.gamma=0.75,1.5", "training_b.batch_seed=0..2"]
    report = api.sweep("gph_comparative", lines, output=tmp_path)
    assert (report.planned, report.ok) == (4, 4)
    frame = load_sweep(tmp_path)
    assert frame.select("model_a.gamma", "model_b.gamma", "training_b.batch_seed").rows() == [
        (g, g, s) for g in (0.75, 1.5) for s in (0, 1)
    ]
    assert frame["step"].to_list() == [[0, 2, 4]] * 4
    lists = [name for name, dtype in frame.schema.items() if dtype == pl.List(pl.Float32)]
    norms = [f"{name}_norm_{i}_b" for name in ("layer", "gram") for i in range(4)]
    assert lists == [
        "test_loss_a", "test_loss_b", *norms, *(f"balance_diff_{i}_b" for i in range(3)),
        "effective_weight_norm_b", "param_distance", *(f"layer_distance_{i}" for i in range(4)),
        "frobenius_distance",
    ]  # fmt: skip
    again = [
        *base,
        "model_a.gamma=0.75,1.5",
        "model_b.gamma=0.75,1.5",
        "training_b.batch_seed=0..2",
    ]
    report = api.sweep(
        "gph_comparative", again, output=tmp_path, zip=[["model_a.gamma", "model_b.gamma"]]
    )
    assert (report.planned, report.done_before, report.ok) == (4, 4, 0)


D10 = {"matrix": "diagonal", "scale": 10}
TABLE = {
    "diagonal_teacher_comparative": {
        "model": {"gamma": 1.5}, "training": {"lr": 5e-4}, "data": {"params": D10},
        "max_steps": 20000, "num_evaluations": 1000, "comparative_metrics": ["param_distance"]},
    "gph_comparative": {
        "b": {"batch_size": 10}, "metrics": FOUR, "metrics_a": [],
        "comparative_metrics": DISTANCES},
    "gph_online_comparative": {
        "a": {"batch_size": 500}, "b": {"batch_size": 10}, "data": {"online": True},
        "metrics": FOUR, "comparative_metrics": DISTANCES},
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_an_experiment_is_that_of_the_table(name):
    cfg, row = instantiate(resolved(name=name), CompareConfig), TABLE[name]
    check(cfg, {})
    for s in "ab":
        own = side(cfg, s)
        assert vars(own.model) == vars(ModelConfig(**row.get("model", {})))
        assert vars(own.training) == vars(
            TrainingConfig(**row.get("training", {}), **row.get(s, {}))
        )
        assert own.metrics == (row.get(f"metrics_{s}", row.get("metrics", [])))
        assert own.callbacks == []
        assert (own.max_steps, own.num_evaluations, own.dtype) == (
            row.get("max_steps", 10000), row.get("num_evaluations", 250), "float32"
        )  # fmt: skip
    assert cfg.data == DataConfig(**{"params": POWER_LAW, **row.get("data", {})})
    assert cfg.comparative_metrics == row["comparative_metrics"]
