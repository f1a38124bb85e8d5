"""theta = theta0 + P w against dense matrices, the masks of learned gates, what is trained."""

import math

import pytest
import torch
from torch.func import functional_call

from sublora.adapters import make_network
from sublora.config import AllocationConfig, ModelConfig, SubspaceConfig
from sublora.subspace import SubspaceModule, allot

MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block": 8}
NAMES = ["uniform", "fixed_0.3", "learned"]


def make(name="uniform", d=60, seed=0, kind="rdkronqr", model=None, **allocation):
    cfg = ModelConfig(**MODEL | (model or {}))
    network = make_network(cfg, 64, seed)
    allocated = AllocationConfig(name=name, **allocation)
    subspace = SubspaceConfig(d=d, projector=kind)
    allotment = allot(network.slots, d, allocated)
    return SubspaceModule(network, allotment, subspace, allocated.gate_init, seed).eval()


def draw(module, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        module.w.copy_(scale * torch.randn(module.w.shape, generator=generator))
        if module.allotment.budgets:
            module.gates.copy_(torch.randn(module.gates.shape, generator=generator))
    return module


def ids(n=3):
    return torch.randint(64, (n, 8), generator=torch.Generator().manual_seed(0))


def network_weights(module):
    return dict(module.net.named_parameters())


def masks_of(module, tau):
    """m by its formula, coordinate by coordinate, float64."""
    masks = []
    for gate, d in zip(module.gates.tolist(), module.allotment.budgets, strict=True):
        gamma = 1 / (1 + math.exp(-gate))
        masks += [1 / (1 + math.exp(-(gamma * d - i - 0.5) / (tau * d))) for i in range(d)]
    return torch.tensor(masks, dtype=torch.float64)


def dense_theta(module, m):
    """{name: theta} in float64, each tensor by the rows of its group's dense P.

    m [d]: how much of a coordinate moves B; 1 - m moves A; None: all of it what its group holds.
    """
    w, weights, theta = module.w.detach().double(), network_weights(module), {}
    for group, projector in zip(module.allotment.groups, module.projectors, strict=True):
        part = slice(group.start, group.start + group.cols)
        share = 1.0 if m is None else (m if group.factor == "B" else 1 - m)[part]
        moved = projector.to_dense() @ (share * w[part])
        at = 0
        for slot in group.slots:
            size = weights[slot.name].numel()
            own = moved[at : at + size].view(slot.shape)
            theta[slot.name] = weights[slot.name].double() + own
            at += size
        assert at == group.rows
    return theta


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "model"), [*((name, {}) for name in NAMES), ("uniform", {"lora_r": 0})], ids=str
)
def test_at_w_0_it_is_the_untouched_network(name, model):
    module = make(name, model=model)
    untouched = make_network(ModelConfig(**MODEL | model), 64, 0).net.eval()
    assert (module.w == 0).all()
    assert torch.equal(module(ids()), untouched(ids()))


@pytest.mark.parametrize("kind", ["rdkronqr", "sparse", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_theta_is_theta0_and_a_dense_matrix_times_w(name, kind):
    """float32 sums of at most 60 terms of size 1: 1e-5."""
    module = draw(make(name, kind=kind))
    module.tau = 0.1
    m = masks_of(module, 0.1) if name == "learned" else None
    theta, expected = module.theta(), dense_theta(module, m)
    assert theta.keys() == expected.keys() == {s.name for s in make().allotment.groups[0].slots}
    for key, value in expected.items():
        torch.testing.assert_close(theta[key].double(), value, rtol=1e-5, atol=1e-5)
        assert (theta[key] != network_weights(module)[key]).any()


@torch.no_grad()
def test_forward_is_the_network_at_theta():
    module = draw(make())
    expected = functional_call(module.net, module.theta(), (ids(),))
    assert torch.equal(module(ids()), expected)
    assert not torch.allclose(module(ids()), make()(ids()), atol=1e-3)


def test_without_a_projector_w_is_what_is_trained():
    """theta - theta0 is w in flat order."""
    module = make(d=0)
    slots = module.allotment.groups[0].slots
    assert len(module.w) == module.n_trained == sum(slot.size for slot in slots)
    draw(module)
    theta, weights = module.theta(), network_weights(module)
    moved = torch.cat([(theta[slot.name] - weights[slot.name]).flatten() for slot in slots])
    torch.testing.assert_close(moved, module.w.detach(), rtol=1e-5, atol=1e-6)
    assert module.unmoved == 0


def test_all_parameters_in_a_subspace():
    module = draw(make(model={"lora_r": 0}, kind="sparse"))
    theta = module.theta()
    assert theta.keys() == network_weights(module).keys()
    torch.testing.assert_close(
        theta["wte.weight"].double(), dense_theta(module, None)["wte.weight"], rtol=1e-5, atol=1e-5
    )
    # The head is the embedding where both move, too.
    net = module.net
    net.wte.weight.data.copy_(theta["wte.weight"])
    for name, weight in theta.items():
        net.get_parameter(name).data.copy_(weight)
    torch.testing.assert_close(module.net(ids()), module(ids()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_adjoint_of_the_gradient_of_theta(name):
    module = draw(make(name), scale=0.3)
    loss = module(ids()).square().mean()
    loss.backward()
    theta = {k: v.detach().requires_grad_() for k, v in module.theta().items()}
    functional_call(module.net, theta, (ids(),)).square().mean().backward()
    expected = torch.zeros_like(module.w)
    m = module.mask().detach() if name == "learned" else None
    gates = 0
    for group, projector in zip(module.allotment.groups, module.projectors, strict=True):
        part = slice(group.start, group.start + group.cols)
        flat = torch.cat([theta[slot.name].grad.flatten() for slot in group.slots])
        back = projector.adjoint(flat)
        share = 1.0 if m is None else (m if group.factor == "B" else 1 - m)[part]
        expected[part] += share * back
        if m is not None:
            sign = 1 if group.factor == "B" else -1
            gates = gates + sign * torch.zeros_like(expected).index_add(
                0, torch.arange(group.start, group.start + group.cols), back
            )
    torch.testing.assert_close(module.w.grad, expected, rtol=1e-4, atol=1e-7)
    if m is not None:  # the chain rule through m, of what w moves
        mask = module.mask()
        (expected_gates,) = torch.autograd.grad(
            mask, module.gates, (gates * module.w.detach()).to(mask.dtype)
        )
        torch.testing.assert_close(module.gates.grad, expected_gates, rtol=1e-4, atol=1e-7)
        assert (module.gates.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_only_w_and_gates_are_trained_and_saved(name):
    module = make(name)
    expected = {"w", "gates"} if name == "learned" else {"w"}
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    assert trained == expected
    saved = {n for n in module.state_dict() if not n.startswith("net.")}
    assert saved == expected  # no projector, no theta0


def test_projectors_follow_from_the_seed_and_are_all_different():
    seeds = [make("learned", seed=seed) for seed in (0, 0, 1)]
    P = [[projector.to_dense() for projector in module.projectors] for module in seeds]
    for first, again, other in zip(*P, strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert len(P[0]) == 6
    for i, one in enumerate(P[0]):
        assert not any(torch.equal(one, two) for two in P[0][:i])


# allotments


def groups_of(module):
    return [
        (g.factor, g.start, g.cols, {s.layer for s in g.slots}) for g in module.allotment.groups
    ]


def test_uniform_is_one_projector_over_all():
    module = make()
    assert groups_of(module) == [("", 0, 60, {0, 1, -1})]
    assert module.projectors[0].shape == (module.n_trained, 60) == (832, 60)


def test_fixed_gives_b_its_share_and_a_the_first_coordinates():
    module = make("fixed_0.3")
    assert groups_of(module) == [("A", 0, 42, {0, 1, -1}), ("B", 42, 18, {0, 1, -1})]
    assert [p.shape for p in module.projectors] == [(320, 42), (512, 18)]
    assert module.allotment.d_a == 42


@pytest.mark.parametrize(
    ("how", "budgets"), [("params", [19, 18, 23]), ("equal", [20, 20, 20])], ids=str
)
def test_learned_gives_every_layer_its_own_coordinates(how, budgets):
    """Layers of 256, 256 and, the head, 320 parameters: 18.46, 18.46, 23.08 of 60."""
    module = make("learned", layer_budget=how)
    a, b = budgets[0], budgets[0] + budgets[1]
    assert groups_of(module) == [
        ("A", 0, budgets[0], {0}), ("B", 0, budgets[0], {0}),
        ("A", a, budgets[1], {1}), ("B", a, budgets[1], {1}),
        ("A", b, budgets[2], {-1}), ("B", b, budgets[2], {-1}),
    ]  # fmt: skip
    assert module.allotment.budgets == tuple(budgets)
    assert module.allotment.layers == (0, 1, -1)


# gates


@pytest.mark.parametrize("tau", [0.25, 0.1, 0.01])
def test_soft_mask(tau):
    module = draw(make("learned"))
    module.tau = tau
    expected = masks_of(module, tau)
    torch.testing.assert_close(module.mask().detach().double(), expected, rtol=1e-4, atol=1e-6)


def test_gates_start_at_the_logit_of_the_config():
    assert (make("learned").gamma() == 0.5).all()
    torch.testing.assert_close(
        make("learned", gate_init=2.0).gamma(), torch.full((3,), 1 / (1 + math.exp(-2)))
    )


@pytest.mark.parametrize(
    ("gate", "k"),
    [(-40.0, [0, 0, 0]), (0.0, [10, 9, 12]), (1.0, [14, 13, 17]), (40.0, [19, 18, 23])],
)
def test_hard_k_rounds_half_up(gate, k):
    """gamma d: 9.5, 9, 11.5 at 0; 13.89, 13.16, 16.81 at 1."""
    module = make("learned", gate_init=gate)
    assert module.hard_k().tolist() == k
    module.harden()
    assert module.k.tolist() == k
    torch.testing.assert_close(module.gamma(), torch.tensor(k) / torch.tensor([19.0, 18.0, 23.0]))
    start = [0, 19, 37]
    expected = torch.zeros(60)
    for s, n in zip(start, k, strict=True):
        expected[s : s + n] = 1
    assert torch.equal(module.mask(), expected)


def test_hard_gates_do_not_move_with_their_logits():
    module = draw(make("learned"))
    module.harden([1, 2, 3])
    before = module.theta()
    with torch.no_grad():
        module.gates += 5
    after = module.theta()
    assert all(torch.equal(before[key], after[key]) for key in before)
    module(ids()).sum().backward()
    assert module.gates.grad is None


def test_first_k_coordinates_move_b_and_the_others_a():
    module = make("learned")
    module.harden([4, 0, 23])
    kinds = {}
    weights = network_weights(module)
    for i in range(60):
        with torch.no_grad():
            module.w.zero_()
            module.w[i] = 1
        theta = module.theta()
        moved = {
            (slot.layer, slot.factor)
            for group in module.allotment.groups
            for slot in group.slots
            if not torch.equal(theta[slot.name], weights[slot.name])
        }
        [kinds[i]] = moved
    expected = [(0, "B")] * 4 + [(0, "A")] * 15 + [(1, "A")] * 18 + [(-1, "B")] * 23
    assert list(kinds.values()) == expected


def test_dropout_is_off_in_eval_and_on_in_training():
    module = draw(make(model={"lora_dropout": 0.5}))
    assert torch.equal(module(ids()), module(ids()))
    module.train()
    assert not torch.equal(module(ids()), module(ids()))
