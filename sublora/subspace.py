"""A network whose trained parameters are theta0 + P w; the coordinates w are what is learned."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sublora.adapters import Network, Slot, split
from sublora.allocation import layer_budgets, parse_allocation, split_ab
from sublora.config import AllocationConfig, SubspaceConfig
from sublora.projectors import make_projector
from sublora.streams import stream


@dataclass(frozen=True)
class Group:
    """Trained tensors that share a projector, and the coordinates it reads."""

    name: str
    slots: tuple[Slot, ...]
    start: int  # of its coordinates in w
    cols: int
    factor: str = ""  # A, B where the allocation tells them apart
    layer: int = 0  # of learned: place of its gate

    @property
    def rows(self) -> int:
        return sum(slot.size for slot in self.slots)


@dataclass(frozen=True)
class Allotment:
    """Which coordinates belong to which tensors."""

    groups: tuple[Group, ...]
    d: int  # coordinates in all
    d_a: int | None = None  # of fixed: the first d_a are those of A
    budgets: tuple[int, ...] | None = None  # of learned: coordinates of each layer, the head last
    layers: tuple[int, ...] = ()  # of learned: their numbers, the head's is -1


def allot(slots: Sequence[Slot], d: int, allocation: AllocationConfig) -> Allotment:
    """Raises ValueError for an allocation that d, or a network without adapters, does not allow."""
    slots, parsed = tuple(slots), parse_allocation(allocation.name)
    if parsed.mode == "uniform":
        d = d or sum(slot.size for slot in slots)
        return Allotment((Group("of all parameters", slots, 0, d),), d)

    def of(factor: str, layers: Sequence[int]) -> tuple[Slot, ...]:
        return tuple(s for s in slots if s.factor == factor and s.layer in layers)

    layers = list(dict.fromkeys(slot.layer for slot in slots))
    if parsed.mode == "fixed":
        d_a, d_b = split_ab(parsed.ratio, d)
        a = Group("A", of("A", layers), 0, d_a, "A")
        return Allotment((a, Group("B", of("B", layers), d_a, d_b, "B")), d, d_a)
    sizes = [sum(slot.size for slot in slots if slot.layer == layer) for layer in layers]
    budgets = layer_budgets(sizes, d, allocation.layer_budget)
    groups = []
    for i, (layer, budget) in enumerate(zip(layers, budgets, strict=True)):
        name = "head" if layer < 0 else f"layer {layer}"
        for factor in "AB":
            start = sum(budgets[:i])
            own = of(factor, [layer])
            groups.append(Group(f"{name} {factor}", own, start, budget, factor, i))
    return Allotment(tuple(groups), d, budgets=tuple(budgets), layers=tuple(layers))


class SubspaceModule(nn.Module):
    """theta = theta0 + P w (Li et al. 2018); called as the network is.

    Parameters are w [d], 0 at first, and of a learned allocation the logits of its gates [layers].
    With gates, of the d_l coordinates of layer l the first gamma_l d_l move B and the others A:
    softly, by m_i = sigmoid((gamma_l d_l - i - 1/2) / (tau d_l)), until `harden`.
    """

    def __init__(
        self,
        network: Network,
        allotment: Allotment,
        cfg: SubspaceConfig,
        gate_init: float,
        seed: int,
    ):
        super().__init__()
        self.net, self.allotment = network.net, allotment
        self.w = nn.Parameter(torch.zeros(allotment.d))
        initial = network.initial()
        self.projectors = nn.ModuleList()
        for i, group in enumerate(allotment.groups):
            theta0 = torch.cat([initial[slot.name].flatten() for slot in group.slots])
            self.register_buffer(f"theta0_{i}", theta0, persistent=False)
            projector = nn.Identity()
            if cfg.d:
                generator = stream(seed, "projector", cfg.projector, group.name)
                size = group.rows, group.cols
                projector = make_projector(
                    cfg.projector, *size, generator, cfg.cache_mb, group.name
                )
            self.projectors.append(projector)
        if allotment.budgets:
            self.gates = nn.Parameter(torch.full((len(allotment.budgets),), gate_init))
            budgets = torch.tensor(allotment.budgets)
            places = torch.cat([torch.arange(d) + 0.5 for d in allotment.budgets])
            self.register_buffer("_budgets", budgets, persistent=False)
            self.register_buffer("_places", places, persistent=False)
            layers = torch.arange(len(budgets)).repeat_interleave(budgets)
            self.register_buffer("_layers", layers, persistent=False)
        self.tau = 1.0
        self.k: Tensor | None = None  # [layers], coordinates of B once hard

    @property
    def n_trained(self) -> int:
        """D, trained parameters."""
        return sum(slot.size for slot in {s for g in self.allotment.groups for s in g.slots})

    @property
    def unmoved(self) -> int:
        """Trained parameters that no coordinate moves."""
        return sum(getattr(projector, "unmoved", 0) for projector in self.projectors)

    def prior_sha256(self) -> str:
        """Of all weights at w = 0, whatever w is: those that a decoder must start from."""
        digest = hashlib.sha256()
        for name, weight in self.net.named_parameters():
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy())
        return digest.hexdigest()

    def gamma(self) -> Tensor:
        """Share of B of each layer's coordinates, [layers], without a gradient."""
        if self.k is not None:
            return self.k / self._budgets
        return torch.sigmoid(self.gates.detach())

    def hard_k(self) -> Tensor:
        """k_l = floor(gamma_l d_l + 1/2) [layers]."""
        if self.k is not None:
            return self.k
        gamma = torch.sigmoid(self.gates.detach().double())
        return (gamma * self._budgets + 0.5).floor().long()

    def harden(self, k: Sequence[int] | None = None) -> None:
        """From now on k_l coordinates of layer l move B, those of hard_k or given ones."""
        self.k = self.hard_k() if k is None else torch.tensor(k, device=self.w.device)

    def mask(self) -> Tensor:
        """m [d]: how much each coordinate moves B rather than A."""
        if self.k is not None:
            return (self._places < self.k[self._layers]).to(self.w.dtype)
        budgets = self._budgets[self._layers]
        edge = (torch.sigmoid(self.gates) * self._budgets)[self._layers]
        return torch.sigmoid((edge - self._places) / (self.tau * budgets))

    def theta(self) -> dict[str, Tensor]:
        """The trained tensors, by their names in the network."""
        of_a = of_b = self.w
        if self.allotment.budgets:
            m = self.mask()
            of_a, of_b = (1 - m) * self.w, m * self.w
        theta = {}
        for i, (group, projector) in enumerate(
            zip(self.allotment.groups, self.projectors, strict=True)
        ):
            source = of_b if group.factor == "B" else of_a
            moved = projector(source[group.start : group.start + group.cols])
            theta |= split(getattr(self, f"theta0_{i}") + moved, group.slots)
        return theta

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, length, outputs] of ids [n, length]."""
        return functional_call(self.net, self.theta(), (ids,))
