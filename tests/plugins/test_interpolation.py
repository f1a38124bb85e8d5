import pytest

from plugins.interpolation import dependents, reads_of, references


@pytest.mark.parametrize(
    ("text", "path", "keys"),
    [
        ("${a.b}", "x.y", {"a.b"}),
        ("run-${a}-${b.c}", "x", {"a", "b.c"}),
        ("${.z}", "x.y", {"x.z"}),
        ("${..z}", "w.x.y", {"w.z"}),
        ("${a[0].b}", "x", {"a.0.b"}),
        ("${oc.select:a.b,3}", "x", {"a.b", "3"}),
        ("${f:${a},[b,'c.d']}", "x", {"a", "b", "c.d", "*"}),
        ("${a.${b}}", "x", {"b", "*"}),
        ("plain", "x", set()),
    ],
)
def test_references_of_a_text(text, path, keys):
    assert references(text, path) == keys


def test_dependents_are_transitive_and_a_list_is_one_leaf():
    raw = {
        "lr": 1,
        "model": {"n": 2, "m": "${.n}"},
        "items": [{"w": "${chain}"}],  # against the order of reading: more than one pass
        "chain": "${side.n}",
        "side": {"n": "${model.n}", "k": "${lr}"},
        "whole": "${model}",
        "free": "${other}",
        "any": "${side.${free}}",
    }
    assert set(dependents(reads_of(raw), ["model.n"])) == {
        "model.m",
        "side.n",
        "chain",
        "items",
        "whole",
        "any",
    }
    assert set(dependents(reads_of(raw), ["lr"])) == {"side.k", "any"}
