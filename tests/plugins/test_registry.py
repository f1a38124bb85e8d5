import pytest

from plugins.registry import Registry, UnknownName, did_you_mean, split_spec


@pytest.fixture
def metrics():
    registry = Registry("fam", "metric", ("ctx",))

    @registry.register("weight_norm")
    def weight_norm(ctx, order: int = 2):
        return ctx, order

    @registry.register("rank")
    def rank(ctx, *, tol: float):
        return ctx, tol

    return registry


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        ("weight_norm", (7, 2)),
        ({"name": "weight_norm"}, (7, 2)),
        ({"name": "weight_norm", "params": {"order": 1}}, (7, 1)),
        ({"name": "weight_norm", "params": None}, (7, 2)),
        ({"weight_norm": {"order": 1}}, (7, 1)),
        ({"weight_norm": None}, (7, 2)),
        ({"rank": {"tol": 0.1}}, (7, 0.1)),
    ],
)
def test_spec_forms_bind_their_params(metrics, spec, result):
    assert metrics.resolve(spec)(7) == result


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("weight_nrom", UnknownName, "fam has no metric 'weight_nrom'; did you mean 'weight_norm'"),
        ({"weight_norm": {"ordr": 1}}, UnknownName, "did you mean 'order'"),
        ({"weight_norm": {"ctx": 1}}, UnknownName, "no parameter 'ctx'"),
        ("rank", ValueError, "'rank' needs the parameter 'tol'"),
        (3, ValueError, "names no plugin"),
        ({"name": "rank", "parms": {}}, ValueError, "names no plugin"),
        ({"a": {}, "b": {}}, ValueError, "names no plugin"),
        ({"rank": 3}, ValueError, "names no plugin"),
    ],
)
def test_wrong_specs_say_what_is_wrong(metrics, spec, error, text):
    with pytest.raises(error, match=text):
        metrics.resolve(spec)


def test_a_taken_name_names_both_places(metrics):
    with pytest.raises(ValueError, match=r"weight_norm.*other_function"):

        @metrics.register("weight_norm")
        def other_function(ctx):
            return ctx


def test_reloading_the_same_function_replaces_it():
    registry = Registry("fam", "metric")

    def define(value):
        @registry.register("one")
        def one():
            return value

    define(1)
    define(2)
    assert registry.resolve("one")() == 2
    assert registry.names() == ["one"]


def test_a_keys_last_part_is_enough_for_a_hint():
    assert "did you mean 'training.lr'? " in did_you_mean("lr", ["training.lr", "model.lrr"])


def test_split_spec_makes_text_keys():
    assert split_spec({"multi": {3: 4}}) == ("multi", {"3": 4})
