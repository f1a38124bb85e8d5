"""The network with its LoRA adapters, and its trained parameters in their flat order."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plugins.lm.models import load_lm
from sublora.config import ModelConfig
from sublora.gpt import GPT, draw_weights
from sublora.streams import stream

HEAD = -1  # layer of what belongs to no block
TARGETS = ("q_proj", "v_proj", "lm_head")
HF_TARGETS = ("c_attn", *TARGETS)  # of those that a model has; c_attn is GPT-2's
_PADDED = 64  # outputs are a multiple of it: fast matrix products
_LORA_A, _LORA_B = "lora_A.default.weight", "lora_B.default.weight"


@dataclass(frozen=True)
class Slot:
    """One trained tensor."""

    name: str  # in the network
    shape: tuple[int, ...]
    layer: int  # HEAD after the blocks
    factor: str  # A, B; "" without adapters

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Network:
    """A frozen network: net(ids [n, length]) -> logits [n, length, outputs >= vocabulary]."""

    net: nn.Module
    slots: tuple[Slot, ...]  # what is trained, in flat order

    @property
    def size(self) -> int:
        """D, trained parameters."""
        return sum(slot.size for slot in self.slots)

    def initial(self) -> dict[str, Tensor]:
        """theta0, by name."""
        weights = dict(self.net.named_parameters())
        return {slot.name: weights[slot.name].detach() for slot in self.slots}


def make_network(cfg: ModelConfig, vocab_size: int, seed: int) -> Network:
    """The prior: weights and adapters that are drawn from a seed; of source=hf its adapters only.

    Raises ModelUnavailable, ValueError for a model that does not fit the data set or the block.
    """
    if cfg.source == "gpt":
        net, targets = _gpt(cfg, vocab_size), TARGETS
        draw_weights(net, seed, cfg.init_std)
    else:
        net = _hf(cfg, vocab_size)
        targets = tuple(name for name in HF_TARGETS if any(_modules(net, name)))
    if cfg.lora_r:
        net = with_adapters(net, cfg, targets, seed)
    net.requires_grad_(False)
    shapes = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
    return Network(net, flat_order(shapes, bool(cfg.lora_r)))


def slots_of(cfg: ModelConfig, vocab_size: int) -> tuple[Slot, ...]:
    """Those of make_network, without making it."""
    with torch.device("meta"):
        net = _gpt(cfg, vocab_size)
    if not cfg.lora_r:
        shapes = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
        return flat_order(shapes, False)
    shapes = {}
    for name, module in net.named_modules():
        if name.split(".")[-1] in TARGETS:
            prefix = f"base_model.model.{name}"
            shapes[f"{prefix}.{_LORA_A}"] = (cfg.lora_r, module.in_features)
            shapes[f"{prefix}.{_LORA_B}"] = (module.out_features, cfg.lora_r)
    return flat_order(shapes, True)


class Logits(nn.Module):
    """A causal language model of transformers that is called as GPT is."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits


def _hf(cfg: ModelConfig, vocab_size: int) -> Logits:
    lm = load_lm("hf", path=cfg.path)
    known = lm.model.config
    if known.vocab_size < vocab_size:
        raise ValueError(
            f"model.path={cfg.path} has {known.vocab_size} outputs, the data set {vocab_size} ids"
        )
    longest = getattr(known, "max_position_embeddings", cfg.block)  # some have no such limit
    if cfg.block > longest:
        raise ValueError(
            f"model.block={cfg.block}: model.path={cfg.path} reads at most {longest} tokens"
        )
    return Logits(lm.model)


def _modules(net: nn.Module, name: str) -> Iterator[nn.Module]:
    return (module for path, module in net.named_modules() if path.split(".")[-1] == name)


def _gpt(cfg: ModelConfig, vocab_size: int) -> GPT:
    outputs = -(-vocab_size // _PADDED) * _PADDED
    return GPT(outputs, cfg.n_layer, cfg.n_head, cfg.n_embd, cfg.block, cfg.dropout)


def with_adapters(net: nn.Module, cfg: ModelConfig, targets: tuple[str, ...], seed: int):
    """W0 x + (lora_alpha / r) B A x (Hu et al. 2022): A uniform as torch's Linear, B zero."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=cfg.lora_r,
        lora_alpha=cfg.lora_alpha,
        lora_dropout=cfg.lora_dropout,
        target_modules=list(targets),
    )
    net = get_peft_model(net, lora)
    for name, weight in net.named_parameters():
        if name.endswith(_LORA_A):
            bound = weight.shape[1] ** -0.5  # kaiming_uniform(a=sqrt 5) of its fan-in
            draws = stream(seed, "lora", name).uniform(-bound, bound, weight.shape)
            weight.data.copy_(torch.from_numpy(draws))
    return net


def flat_order(shapes: Mapping[str, tuple[int, ...]], is_lora: bool) -> tuple[Slot, ...]:
    """Layers, then the head; inside by the module's name, A before B."""
    slots = []
    for name, shape in shapes.items():
        if is_lora and not name.endswith((_LORA_A, _LORA_B)):
            continue
        factor = ("A" if name.endswith(_LORA_A) else "B") if is_lora else ""
        number = re.search(r"\.(\d+)\.", f".{name}")
        slots.append(Slot(name, shape, int(number[1]) if number else HEAD, factor))
    return tuple(sorted(slots, key=lambda slot: (slot.layer == HEAD, slot.layer, slot.name)))


def split(vector: Tensor, slots: tuple[Slot, ...]) -> Mapping[str, Tensor]:
    """A flat vector as the tensors of its slots, by name."""
    parts = vector.split([slot.size for slot in slots])
    return {slot.name: part.view(slot.shape) for slot, part in zip(slots, parts, strict=True)}
