"""The recursion on codes, and the plain transformer: weights, passes, floating point operations.

Jolicoeur-Martineau 2025, "Less is More: Recursive Reasoning with Tiny Networks". Not the paper's:
codes go in as they are (no embedding), so net, latent and answer have their k dimensions; blocks
normalise before, not after, and have a GELU; there is no halting, all rounds are passed; latent and
answer begin at 0.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, rms_norm, scaled_dot_product_attention

BLOCKS = 2  # of the recursion's net
Carry = tuple[Tensor, Tensor]  # answer y, latent u: [B, L, k]


class Block(nn.Module):
    """Causal attention with rotary positions (Su et al. 2021), then an MLP of 4 x width."""

    def __init__(self, width: int, generator: torch.Generator):
        super().__init__()
        self.heads = n_heads(width)
        self.qkv = _weight(3 * width, width, generator)
        self.up = _weight(4 * width, width, generator)
        # Blocks begin as the identity: random maps, passed again and again, would lose z.
        self.out = nn.Parameter(torch.zeros(width, width))
        self.down = nn.Parameter(torch.zeros(width, 4 * width))

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        B, L, width = x.shape
        q, k, v = linear(norm(x), self.qkv).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(
            _rotate(q, rotation), _rotate(k, rotation), v, is_causal=True
        )
        x = x + linear(mixed.transpose(1, 2).reshape(B, L, width), self.out)
        return x + linear(gelu(linear(norm(x), self.up)), self.down)


class Net(nn.Module):
    """[B, L, k] -> [B, L, k], causal; through `width` dimensions where that is not k."""

    def __init__(self, k: int, width: int, n_blocks: int, generator: torch.Generator):
        super().__init__()
        self.head_dim = width // n_heads(width)
        is_wider = width != k
        self.enter = _weight(width, k, generator) if is_wider else None
        self.blocks = nn.ModuleList(Block(width, generator) for _ in range(n_blocks))
        self.leave = _weight(k, width, generator) if is_wider else None

    def forward(self, x: Tensor) -> Tensor:
        rotation = rotation_of(x.shape[1], self.head_dim, x.device)
        if self.enter is not None:
            x = linear(x, self.enter)
        for block in self.blocks:
            x = block(x, rotation)
        return x if self.leave is None else linear(norm(x), self.leave)


class OnePass(nn.Module):
    """The answer is a linear map of net(z)."""

    def __init__(self, k: int, width: int, n_blocks: int, generator: torch.Generator):
        super().__init__()
        self.net = Net(k, width, n_blocks, generator)
        self.head = _weight(k, k, generator)

    def forward(self, z: Tensor, carry: None = None) -> tuple[Tensor, None]:
        return linear(self.net(z), self.head), None


class Recursion(nn.Module):
    """n times u = norm(net(z + y + u)), then y = norm(net(y + u)): a round.

    One call is one supervised step: rounds without gradient, the last with it.
    """

    def __init__(self, k: int, n: int, rounds: int, generator: torch.Generator):
        super().__init__()
        self.n, self.rounds = n, rounds
        self.net = Net(k, k, BLOCKS, generator)
        self.head = _weight(k, k, generator)

    def forward(self, z: Tensor, carry: Carry | None = None) -> tuple[Tensor, Carry]:
        """Predictions [B, L, k], and what the next step starts from, detached."""
        y, u = carry or (torch.zeros_like(z), torch.zeros_like(z))
        with torch.no_grad():
            for _ in range(self.rounds - 1):
                raw, u = self._round(z, y, u)
                y = norm(raw)
        raw, u = self._round(z, y, u)
        # Read before the norm: vectors of one length could not tell the length of a code.
        return linear(raw, self.head), (norm(raw).detach(), u.detach())

    def _round(self, z: Tensor, y: Tensor, u: Tensor) -> Carry:
        """The answer before its norm, and the latent."""
        for _ in range(self.n):
            u = norm(self.net(z + y + u))
        return self.net(y + u), u


def norm(x: Tensor) -> Tensor:
    """x / sqrt(mean x^2), without weights (Zhang & Sennrich 2019)."""
    return rms_norm(x, x.shape[-1:], eps=1e-6)


def n_heads(width: int) -> int:
    """As many as have at least 16 dimensions each, an even number; else 1."""
    fitting = (h for h in range(width // 16, 1, -1) if width % (2 * h) == 0)
    return next(fitting, 1)


def rotation_of(length: int, head_dim: int, device: torch.device) -> Tensor:
    """cos and sin [2, length, head_dim // 2] of position x frequency 10000^(-2i / head_dim)."""
    i = torch.arange(head_dim // 2, device=device, dtype=torch.float32)
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = positions[:, None] * 10000 ** (-2 * i / head_dim)
    return torch.stack([angles.cos(), angles.sin()])


def flops_of(k: int, width: int, n_blocks: int, length: int) -> int:
    """Of a net's products, forward, for one token of `length`: 2 for each of its weights, and
    4 width length of a block's attention."""
    block = 2 * 12 * width**2 + 4 * width * length
    return n_blocks * block + (4 * k * width if width != k else 0)


def n_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Pairs (i, i + half) by their angles; the last dimension of an odd number stays."""
    cos, sin = rotation
    half = x.shape[-1] // 2
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def _weight(rows: int, cols: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, cols, generator=generator) * cols**-0.5)
