import pytest

from plugins.axes import related
from plugins.registry import UnknownName


def combos(planner, overrides, zips=()):
    grid = planner.grid(overrides, zips)
    return grid, [planner.lines(grid, i) for i in range(grid.n_runs)]


def test_the_leftmost_axis_is_the_slowest(planner):
    grid, lines = combos(planner, ["steps=9", "seed=0..2", "model.scale=1,2"])
    assert grid.fixed == ("steps=9",)
    assert lines == [
        ["steps=9", "seed=0", "model.scale=1"],
        ["steps=9", "seed=0", "model.scale=2"],
        ["steps=9", "seed=1", "model.scale=1"],
        ["steps=9", "seed=1", "model.scale=2"],
    ]


def test_a_zip_group_stands_where_its_first_member_stood(planner):
    _, lines = combos(
        planner, ["model.scale=1,2", "seed=0..2", "steps=5,6"], [["steps", "model.scale"]]
    )
    assert [line[:2] for line in lines[::2]] == [
        ["model.scale=1", "steps=5"],
        ["model.scale=2", "steps=6"],
    ]
    assert [line[2] for line in lines] == ["seed=0", "seed=1"] * 2


@pytest.mark.parametrize(
    ("zips", "error", "text"),
    [
        ([["seed", "steps"]], ValueError, "seed has 3 values, steps has 2 values"),
        ([["seed", "model.scale"]], UnknownName, "'model.scale' is not an axis"),
        ([["seed", "sede"]], UnknownName, "did you mean 'seed'"),
        ([["steps", "note"], ["note", "steps"]], ValueError, "zipped twice"),
    ],
)
def test_zips_that_do_not_fit_name_their_members(planner, zips, error, text):
    with pytest.raises(error, match=text):
        planner.grid(["seed=0..3", "steps=1,2", "note=a,b", "model.scale=3"], zips)


def test_an_interval_cannot_be_enumerated(planner):
    with pytest.raises(ValueError, match="interval"):
        planner.grid(["model.scale=interval(0,1)"])


@pytest.mark.parametrize("empty", ["seed=range(0,0)", "seed=range(3,1)"])
def test_an_axis_without_values_is_refused(planner, empty):
    with pytest.raises(ValueError, match=r"seed=.*the axis has no values"):
        planner.grid([empty])


def test_a_fixed_value_around_a_swept_one_is_kept_apart_in_order(planner):
    grid = planner.grid(["params={a:1,b:2}", "params.a=3,4"])
    assert [axis.swept for axis in grid.axes] == [False, True]
    assert grid.n_runs == 2


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("a.b", "a.b", True), ("a", "a.b", True), ("a.b.c", "a.b", True), ("a.b", "a.bc", False)],
)
def test_related_keys_lie_inside_each_other(a, b, expected):
    assert related(a, b) is related(b, a) is expected
