"""Run ids: spliced from columns, they are the hash of each run's resolved config."""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from plugins.experiment import BaseConfig, Experiment
from plugins.identity import neutral_values, run_id

AXES = [
    "seed=0..4",
    "seed=2",
    "model.scale=1,2.5,1e-3",
    "model.scale=2",
    "model.width=1,2",  # `label` interpolates it
    "model={width:4},{scale:0.5}",  # a mapping, and prefix of the keys above
    "note=null,a,'ä','x y'",
    "note='ß'",
    "added_later=7,8",  # 7 is neutral
    "threads=1,2",  # an execution key
    "bad_seeds=[1],[2,3]",
    "+params.x=1,2",  # composed by Hydra
    "steps=3,4",
    "label=own,other",  # replaces the interpolation
    "sleep=0",
    "steps=${seed},${model.width}",  # values that interpolate other axes
    "note=a_${steps},b",
    "label=l-${note}",
]


@pytest.mark.parametrize("case", range(40))
def test_run_i_of_a_plan_is_what_hydra_composes_for_it(planner, case):
    """Id, and config rebuilt from config file + columns, on random sets of random axes."""
    rng = np.random.default_rng(case)
    chosen, keys = [], set()
    for i in rng.permutation(len(AXES))[: rng.integers(1, 6)]:
        key = AXES[i].partition("=")[0]
        if key not in keys:
            keys.add(key)
            chosen.append(AXES[i])
    zips = [["seed", "note"]] if {"seed=0..4", "note=null,a,'ä','x y'"} <= set(chosen) else []
    grid, frame, configs = planner(chosen, zips)
    assert len(frame) == grid.n_runs
    for i in rng.choice(len(frame), min(6, len(frame)), replace=False):
        row = frame.row(int(i), named=True)
        expected = planner.resolved(planner.lines(grid, row["index"]))
        assert row["run_id"] == run_id(expected, planner.experiment), chosen
        rebuilt = configs[row["config_id"]].full(row)
        assert rebuilt == expected, chosen


def test_the_text_is_sorted_canonical_json_with_the_version_last(planner):
    config = planner.resolved(["note='ä'", "seed=3", "threads=2"])
    text = (
        '{"bad_seeds":[],"diverging_seeds":[],"experiment":"toy/trivial","label":"3",'
        '"model.scale":1.0,"model.width":3,"note":"ä","seed":3,"sleep":0.0,"steps":3,"version":1}'
    )
    expected = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    assert run_id(config, planner.experiment) == expected


def test_numbers_are_typed_by_the_schema(planner):
    _, frame, _ = planner(["model.scale=1,1.0,2"])
    assert frame["run_id"].n_unique() == 2


def test_execution_keys_and_neutral_values_do_not_count(planner):
    _, frame, _ = planner(["threads=1,2", "added_later=7"])
    _, plain, _ = planner([])
    assert set(frame["run_id"]) == set(plain["run_id"])


def test_a_raised_version_is_another_run(planner):
    config = planner.resolved([])
    newer = Experiment("toy/trivial", planner.experiment.schema, run="a:b", version=2)
    assert run_id(config, newer) != run_id(config, planner.experiment)


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf]])
def test_values_that_are_not_finite_are_refused(planner, value):
    config = planner.resolved([]) | {"note": value}
    with pytest.raises(ValueError, match=r"note=.*finite"):
        run_id(config, planner.experiment)


def test_a_swept_value_that_is_not_finite_is_refused(planner):
    with pytest.raises(ValueError, match=r"model.scale=inf"):
        planner(["model.scale=1,inf"])


def test_neutral_values_are_found_in_nested_schemas():
    @dataclass
    class Inner:
        depth: int = field(default=2, metadata={"neutral": 2})

    @dataclass
    class Outer(BaseConfig):
        inner: Inner = field(default_factory=Inner)

    Outer.__annotations__["inner"] = Inner
    assert neutral_values(Outer) == {"inner.depth": 2}
