"""A decoder-only transformer with separate projections, whose weights follow from a seed."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublora.streams import stream


class GPT(nn.Module):
    """Pre-norm blocks, learned positions, exact GELU, no biases, the head tied to the embedding.

    GPT-2 (Radford et al. 2019) without biases. Called with ids [n, length], length <= block: logits
    [n, length, outputs].
    """

    def __init__(
        self, outputs: int, n_layer: int, n_head: int, n_embd: int, block: int, dropout: float
    ):
        super().__init__()
        self.block = block
        self.wte = nn.Embedding(outputs, n_embd)
        self.wpe = nn.Embedding(block, n_embd)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(n_head, n_embd, dropout) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd, bias=False)
        self.lm_head = nn.Linear(n_embd, outputs, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.drop(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class Block(nn.Module):
    """Attention, then a net of four times the width, each added to what it reads."""

    def __init__(self, n_head: int, n_embd: int, dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, bias=False)
        self.attn = Attention(n_head, n_embd, dropout)
        self.ln_2 = nn.LayerNorm(n_embd, bias=False)
        self.mlp = MLP(n_embd, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    """Causal, by torch's fused kernel."""

    def __init__(self, n_head: int, n_embd: int, dropout: float):
        super().__init__()
        self.n_head, self.p = n_head, dropout
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (
            nn.Linear(n_embd, n_embd, bias=False) for _ in range(4)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            proj(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.drop(self.c_proj(y.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    def __init__(self, n_embd: int, dropout: float):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.c_proj = nn.Linear(4 * n_embd, n_embd, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.c_proj(F.gelu(self.c_fc(x))))


@torch.no_grad()
def draw_weights(net: GPT, seed: int, std: float) -> None:
    """N(0, std^2), of every c_proj N(0, std^2 / (2 n_layer)); norms are 1 (Radford et al. 2019).

    Every matrix has a stream of its own.
    """
    for name, weight in net.named_parameters():
        if weight.ndim == 2:
            scale = std / math.sqrt(2 * len(net.h)) if name.endswith("c_proj.weight") else std
            draws = stream(seed, "weights", name).standard_normal(weight.shape)
            weight.copy_(torch.from_numpy(draws * scale))
