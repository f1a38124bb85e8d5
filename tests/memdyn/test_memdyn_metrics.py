"""Metrics: closed forms, a slow reference in numpy, and what each does not depend on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from memdyn import metrics as metrics
from memdyn import registry
from memdyn.config import METRICS
from memdyn.states import LayerStates

INVARIANCES = {  # what a metric does not feel when it happens to all states; nv: see below
    "nv": {"rotation", "translation"},
    "nv_rel": {"rotation", "translation", "scale"},
    "nv_contract": {"rotation", "translation", "scale"},
    "pr": {"rotation", "translation", "scale"},
    "max_share": {"rotation", "translation", "scale"},
    "id2nn": {"rotation", "translation", "scale"},
    "aniso": {"rotation", "scale"},
    "cka0": {"rotation", "translation", "scale"},
}
C = 2.5  # a factor of scale
WHOLE = torch.tensor([0, 1])  # one passage in each group


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(name, states):
    return registry.metrics.resolve(name)(states)


def one_set(Y, X=None, Y_initial=None, k=3):
    """The same states in either group."""
    Y, X, Y_initial = (
        torch.cat([Z, Z]) for Z in (Y, Y if X is None else X, Y if Y_initial is None else Y_initial)
    )
    return LayerStates(X, Y, Y_initial, torch.arange(2).repeat_interleave(len(Y) // 2), WHOLE, k)


def number(name, Y, **others):
    """A metric of one set of states."""
    trained, novel = value(name, one_set(torch.as_tensor(Y, dtype=torch.float32), **others)).group
    assert trained.isnan() == novel.isnan()
    assert trained == novel or trained.isnan()
    return trained.item()


@pytest.fixture
def states():
    """Passages of 9, 12, 5 (trained), 7 and 10 (novel) tokens; blocks and times are related."""
    sizes = torch.tensor([9, 12, 5, 7, 10])
    X = points(43, 6) * torch.arange(1, 7)
    Y = X @ points(6, 6, seed=1) + points(43, 6, seed=2) + 1
    Y_initial = Y + 2 * points(43, 6, seed=3)
    passage = torch.arange(5).repeat_interleave(sizes)
    return LayerStates(X, Y, Y_initial, passage, torch.tensor([0, 0, 0, 1, 1]), 4)


def everywhere(states, change):
    return replace(
        states, **{name: change(getattr(states, name)) for name in ("X", "Y", "Y_initial")}
    )


def changes():
    rotation = torch.from_numpy(ortho_group.rvs(6, random_state=0))
    return {
        "rotation": lambda Z: Z @ rotation,
        "translation": lambda Z: Z + 7 * torch.arange(6),
        "scale": lambda Z: C * Z,
    }


def test_every_metric_of_the_family_has_its_invariances():
    assert registry.metrics.names() == sorted(INVARIANCES) == sorted(METRICS)


@pytest.mark.parametrize("change", changes())
@pytest.mark.parametrize("name", INVARIANCES)
def test_metric_feels_what_it_must_and_nothing_else(name, change, states):
    """In float64; 1e-8, as nv has its 1e-10 beside variances of order 1."""
    before = value(name, states)
    after = value(name, everywhere(states, changes()[change]))
    if change in INVARIANCES[name]:
        torch.testing.assert_close(after.group, before.group, rtol=0, atol=1e-8)
        if before.passage is not None:
            torch.testing.assert_close(after.passage, before.passage, rtol=0, atol=1e-8)
    elif name == "nv":
        expected = before.passage - 2 * math.log(C)
        torch.testing.assert_close(after.passage, expected, rtol=0, atol=1e-8)
    else:
        assert (after.group - before.group).abs().min() > 1e-3


def test_scaling_the_outcome_alone_changes_nv_and_nv_contract_alike(states):
    """Y -> cY: both fall by 2 ln c, nv_rel and the rest stay."""
    scaled = replace(states, Y=C * states.Y)
    for name in METRICS:
        shift = 2 * math.log(C) if name in ("nv", "nv_contract") else 0
        expected = value(name, states).group - shift
        torch.testing.assert_close(value(name, scaled).group, expected, rtol=0, atol=1e-8)


def test_metrics_are_those_of_the_definitions(states):
    """Loops in numpy; 1e-9. Passages have unequal sizes, so means of tokens are not of passages."""
    X, Y, Y0 = (Z.numpy() for Z in (states.X, states.Y, states.Y_initial))
    passage, group = states.passage.numpy(), states.group.numpy()
    nearest = [
        [j for j in np.argsort(np.linalg.norm(X - x, axis=1)) if j != i][:4]
        for i, x in enumerate(X)
    ]
    V = {name: np.array([Z[j].var(0).sum() for j in nearest]) for name, Z in (("X", X), ("Y", Y))}
    total = Y.var(0).sum()
    scores = {
        "nv": -np.log(V["Y"] + 1e-10),
        "nv_rel": -np.log(V["Y"] / total),
        "nv_contract": -np.log(V["Y"] / V["X"]),
    }

    def ratio(Z):
        spectrum = np.linalg.svd(Z - Z.mean(0), compute_uv=False) ** 2
        return spectrum.sum() ** 2 / (spectrum**2).sum()

    def dimension(Z):
        r = [np.sort(np.linalg.norm(Z - z, axis=1))[1:3] for z in Z]
        return (len(Z) - 1) / sum(math.log(r2 / r1) for r1, r2 in r)

    def cosine(Z):
        cosines = [
            z @ w / np.linalg.norm(z) / np.linalg.norm(w)
            for i, z in enumerate(Z)
            for j, w in enumerate(Z)
            if i != j
        ]
        return np.mean(cosines)

    def similarity(Z, W):  # of centred Gram matrices: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))
        K, L = ((A - A.mean(0)) @ (A - A.mean(0)).T for A in (Z, W))
        return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())

    of_passages = {
        n: np.array([s[passage == i].mean() for i in range(5)]) for n, s in scores.items()
    }
    expected = {n: [s[group == g].mean() for g in (0, 1)] for n, s in of_passages.items()}
    of_passages["pr"] = np.array([ratio(Y[passage == i]) for i in range(5)])
    parts = [group[passage] == g for g in (0, 1)]
    for name, metric in {"pr": ratio, "id2nn": dimension, "aniso": cosine}.items():
        expected[name] = [metric(Y[part]) for part in parts]
    shares = ((Y - Y.mean(0)) ** 2).sum(1) / (len(Y) * total)
    of_passages["max_share"] = np.array([shares[passage == i].max() for i in range(5)])
    expected["max_share"] = [shares[part].max() for part in parts]
    expected["cka0"] = [similarity(Y0[part], Y[part]) for part in parts]
    for name in METRICS:
        found = value(name, states)
        np.testing.assert_allclose(found.group, expected[name], rtol=1e-9)
        assert (found.passage is None) == (name not in of_passages)
        if found.passage is not None:
            np.testing.assert_allclose(found.passage, of_passages[name], rtol=1e-9)


def corners(offset=0.0):
    """Unit squares at (0, 0) and (10, 10), k = 3: every neighbour is a corner of the same square.

    Y = 3X; each of a corner's three others has V = 9 (2/9 + 2/9) = 4. The groups are the squares.
    """
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    X = torch.cat([square, square + 10])
    passage = torch.arange(2).repeat_interleave(4)
    return LayerStates(X + offset, 3 * X + offset, 3 * X + offset, passage, WHOLE, 3)


@pytest.mark.parametrize(("offset", "tolerance"), [(0, 3e-6), (1000, 1e-3)])
def test_corners_of_two_squares(offset, tolerance):
    expected = {"nv": -1.386294, "nv_rel": 4.732904, "nv_contract": -2.197225}
    states = corners(offset)
    tripled = replace(states, Y=3 * states.Y)
    for name, golden in expected.items():
        found = value(name, states)
        for values in (found.group, found.passage):
            assert values.tolist() == pytest.approx([golden] * 2, abs=tolerance)
    assert value("nv", tripled).group.tolist() == pytest.approx(
        [-1.386294 - 2.197225] * 2, abs=tolerance
    )
    assert value("nv_rel", tripled).group.tolist() == pytest.approx([4.732904] * 2, abs=tolerance)


def test_equal_points_reach_the_cap_of_nv_and_have_no_dimension():
    Y = torch.full((20, 8), 1.7)
    assert number("nv", Y, k=15) == pytest.approx(23.025851, abs=1e-6)
    for name in ("nv_rel", "nv_contract", "pr", "id2nn", "cka0"):
        assert math.isnan(number(name, Y, k=15))
    assert number("aniso", Y, k=15) == pytest.approx(1, abs=1e-6)


def test_a_cross_with_one_long_arm():
    """+-2 e1, +-e2, +-e3: C = diag(8, 2, 2) / 6, pr = 12^2 / 72; three pairs of cosine -1 of 15."""
    Y = torch.diag(torch.tensor([2.0, 1, 1]))
    Y = torch.cat([Y, -Y])
    assert number("pr", Y) == pytest.approx(2, abs=1e-6)
    assert number("aniso", Y) == pytest.approx(-0.2, abs=1e-6)


def test_dimension_of_three_points_on_a_line():
    """0, 1, 3: ratios r2 / r1 of 3, 2 and 3/2."""
    assert number("id2nn", [[0.0], [1], [3]]) == pytest.approx(2 / math.log(9), abs=1e-6)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_dimension_of_a_uniform_cube_is_its_own(d):
    """3,000 points of a d-cube, turned in 12 dimensions; a standard error is d / sqrt(3000)."""
    generator = torch.Generator().manual_seed(d)
    cube = torch.rand(3000, d, generator=generator) @ torch.eye(d, 12)
    turned = cube @ torch.from_numpy(ortho_group.rvs(12, random_state=0)).float()
    assert number("id2nn", turned) == pytest.approx(d, rel=0.12)


def test_equal_tokens_are_left_out_of_the_dimension():
    """The two at 7 have r1 = 0; the m = 3 others have ratios 3, 2 and 3/2 as without them."""
    found = number("id2nn", [[0.0], [1], [3], [7], [7]])
    assert found == pytest.approx(2 / math.log(9), abs=1e-6)


@pytest.mark.parametrize(
    "Y",
    [[[0.0]], [[0.0], [1]], [[0.0], [0], [0]], [[0.0, 0], [0, 1], [1, 0], [1, 1]]],
    ids=["one point", "two", "equal", "a square"],
)
def test_dimension_is_undefined_without_two_neighbours_at_different_distances(Y):
    assert math.isnan(number("id2nn", Y, k=1))


def test_one_token_has_no_covariance_and_no_pair():
    for name in ("pr", "aniso", "cka0"):
        assert math.isnan(number(name, [[1.0, 2]], k=1))


def test_cka_knows_states_that_were_turned_scaled_and_moved():
    """1 to 1e-6 in float32; independent states of n tokens in d dimensions have about d / n."""
    Y = points(400, 8).float()
    turned = 3 * Y @ torch.from_numpy(ortho_group.rvs(8, random_state=1)).float() + 5
    assert number("cka0", turned, Y_initial=Y) == pytest.approx(1, abs=1e-6)
    assert number("cka0", Y, Y_initial=Y) == pytest.approx(1, abs=1e-12)
    assert number("cka0", points(400, 8, seed=1), Y_initial=Y) < 0.06


def test_neighbours_come_from_both_groups():
    """Tokens in pairs of a trained and a novel one: the only neighbour is in the other group."""
    X = torch.arange(4.0).repeat_interleave(2)[:, None] * 10 + torch.tensor([0.0, 1] * 4)[:, None]
    passage = torch.tensor([0, 1] * 4)
    states = LayerStates(X, X, X, passage, WHOLE, 1)
    assert states.neighbours[:, 0].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_one_massive_token_holds_all_of_the_variance():
    """n - 1 tokens at 0 and one at m: shares 1 - 1/n and 1/(n (n - 1)) each."""
    Y = torch.zeros(8, 2)
    Y[2, 0] = 1000.0
    states = LayerStates(Y, Y, Y, torch.arange(4).repeat_interleave(2), torch.arange(4) // 2, 3)
    found = value("max_share", states)
    assert found.passage.tolist() == pytest.approx([1 / 56, 7 / 8, 1 / 56, 1 / 56])
    assert found.group.tolist() == pytest.approx([7 / 8, 1 / 56])
