"""Plans: validation, duplicates, what is done, stacks and units."""

import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from plugins import plan as planning
from plugins.overrides import translate_override
from plugins.registry import UnknownName


def packed(planner, overrides, *, units, max_stack=None, zips=()):
    _, bases = planner.bases(overrides, zips)
    frame, _ = planning.identify(bases, planner.experiment)
    frame = planning.distinct(frame)
    todo = planning.drop_done(frame, pl.DataFrame(schema={"run_id": pl.String, "attempt": str}))
    widths = planning.widths(todo, bases, planner.experiment, None, max_stack)
    return planning.pack(todo, widths, units)


@pytest.mark.parametrize(
    ("sizes", "limit", "units", "pieces"),
    [
        ([1000] * 3, 256, 8, [8] * 3),
        ([10] * 100, 256, 8, [1] * 100),
        ([5], 256, 8, [5]),
        ([1000] * 3, 32, 8, [32] * 3),
        ([1000, 10], 1000, 1, [1, 1]),
        ([7], 3, 1, [3]),
    ],
)
def test_pieces_fill_the_units_evenly(sizes, limit, units, pieces):
    assert planning.pieces_per_key(sizes, [limit] * len(sizes), units) == pieces


def test_stacks_hold_one_stack_key_each_and_are_near_equal(planner):
    plan = packed(planner, ["model.width=1,2,3", "seed=0..20", "model.scale=1,2"], units=2)
    per_stack = plan.group_by("stack").agg(pl.col("model.width").n_unique(), n=pl.len())
    assert per_stack["model.width"].to_list() == [1] * len(per_stack)
    assert set(per_stack["n"]) == {40}
    assert plan.group_by("unit").len().sort("unit")["len"].to_list() == [80, 40]
    limited = packed(planner, ["model.width=1,2", "seed=0..20"], units=1, max_stack=8)
    assert sorted(limited.group_by("stack").len()["len"]) == [6, 6, 7, 7, 7, 7]


def test_a_zipped_replica_key_leaves_the_other_member_in_the_stack_key(planner):
    plan = packed(
        planner, ["model.scale=1,2,3", "steps=5,5,6"], units=1, zips=[["model.scale", "steps"]]
    )
    assert plan.group_by("stack").agg("steps").sort("stack")["steps"].to_list() == [[5, 5], [6]]


def test_equal_ids_are_one_run(planner):
    assert len(packed(planner, ["threads=1,2", "seed=0..3"], units=1)) == 3


def test_done_runs_are_dropped_and_repeated_ones_know_what_they_replace(planner):
    _, frame, _ = planner(["seed=0..4"])
    ids = frame["run_id"].to_list()
    done = pl.DataFrame({"run_id": ids[:3], "attempt": ["a", "b", "c"]})
    todo = planning.drop_done(frame, done)
    assert todo["run_id"].to_list() == ids[3:]
    assert todo["replaces"].to_list() == [None]
    mask = rerun(frame, "seed=1..3")
    todo = planning.drop_done(frame, done, mask)
    assert todo["replaces"].to_list() == ["b", "c", None]


def rerun(frame, *overrides, configs=None, given=()):
    parsed = OverridesParser.create().parse_overrides([translate_override(o) for o in overrides])
    return planning.rerun_mask(frame, configs or {}, parsed, given)


def test_rerun_matches_every_key_given_and_any_value_of_the_others(planner):
    _, frame, _ = planner(["seed=0..4", "model.scale=1,2", "note=null,x"])
    assert rerun(frame, "seed=1..3").sum() == 8
    assert rerun(frame, "seed=1,3", "model.scale=2").sum() == 4
    assert rerun(frame, "note=none").sum() == 8
    assert rerun(frame, "note=none,x").sum() == 16
    with pytest.raises(UnknownName, match="did you mean 'seed'"):
        rerun(frame, "sed=1")
    with pytest.raises(ValueError, match="no run of the sweep matches"):
        rerun(frame, "seed=99")
    with pytest.raises(ValueError, match="seed=x: seed holds Int64 values"):
        rerun(frame, "seed=x")


def test_rerun_names_fixed_and_composed_keys_lists_and_mappings(planner):
    sweep = ["steps=4", "+params.x=1,2", "bad_seeds=[7],[8,9]", "model={width:1},{width:2}"]
    _, frame, configs = planner(sweep)
    given = ["steps", "params.x", "bad_seeds", "model"]

    def again(*overrides):
        return rerun(frame, *overrides, configs=configs, given=given).sum()

    assert again("steps=4") == 8
    assert again("params.x=1") == 4
    assert again("bad_seeds=[8,9]") == 4
    assert again("bad_seeds=[8,9]", "params.x=2") == 2
    with pytest.raises(ValueError, match="no run of the sweep matches"):
        again("steps=5")
    with pytest.raises(UnknownName, match="'sleep' is no key of the sweep"):
        again("sleep=0")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["model.scale=1,-2"], r"model\.scale must be > 0, got -2\.0"),
        (["model.scale=-2"], r"model\.scale must be > 0, got -2\.0"),
        (["model={scale:-2},{scale:1}"], r"model\.scale must be > 0"),
        (["seed=1,x"], "seed=x: Value 'x' of type 'str' could not be converted to Integer"),
        (["seed=null,1"], "seed"),
        (["model.widht=1,2"], "did you mean 'model.width'"),
        (["params.a=1,2"], r"\+params\.a=\.\.\. adds one"),
        (["threads=0,1"], "threads must be >= 1, got 0"),
        (["model={width:a},{width:2}"], r"model=.*width"),
        (["seed=1", "note=${nothing}"], "nothing"),
    ],
)
def test_bad_values_are_refused_with_their_key(planner, overrides, text):
    with pytest.raises(ValueError, match=text):
        planner(overrides)


def test_joint_values_above_the_limit_name_their_keys(planner):
    with pytest.raises(ValueError, match=r"seed, steps act on the same leaves.*360000"):
        planner(["label=${seed}-${steps}", "seed=0..600", "steps=0..600"])


def test_check_sees_each_stack_key_once_with_its_replicas(planner):
    _, bases = planner.bases(["model.width=1,2", "seed=0..3", "model.scale=0.5,1"])
    frame, _ = planning.identify(bases, planner.experiment)
    seen = []
    planning.check(
        frame, bases, planner.experiment, lambda cfg, reps: seen.append((cfg.model.width, reps))
    )
    assert seen == [
        (w, {"seed": [0, 0, 1, 1, 2, 2], "model.scale": [0.5, 1.0] * 3}) for w in (1, 2)
    ]


def test_columns_are_typed_and_in_command_line_order(planner):
    _, frame, configs = planner(
        ["steps=3,4", "model.width=1,2", "note=a,null", "bad_seeds=[1],[2]", "model.scale=1,2"]
    )
    [config] = configs.values()
    assert config.varying == ("steps", "model.width", "note", "bad_seeds", "model.scale", "label")
    assert config.encoded == ("bad_seeds",)
    assert dict(frame.schema)["model.scale"] == pl.Float64
    assert dict(frame.schema)["steps"] == pl.Int64
    assert frame["label"].to_list()[:1] == ["1"]
    assert "scale" not in config.config["model"]
