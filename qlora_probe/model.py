"""The base model in 4 bits, and low-rank adapters on it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from plugins.lm.models import LM, load_lm, load_tokenizer
from plugins.registry import did_you_mean
from qlora_probe.config import TrainConfig, lora_shape, tiny
from qlora_probe.data import IGNORED

TINY_TEMPLATE = "{{ messages[0]['content'] }}="


@dataclass(frozen=True)
class Adapter:
    """The adapter of one linear module: W0 + scale B A."""

    A: nn.Parameter  # [r, in]
    B: nn.Parameter  # [out, r]
    scale: float
    base: nn.Module  # Linear or Linear4bit

    def base_weight(self) -> Tensor:
        """W0 [out, in] as it is computed with, float32."""
        weight = self.base.weight
        if getattr(weight, "quant_state", None) is None:
            return weight.detach().float()
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()


def kind_of(module: str) -> str:
    """q, k, v, o, gate, up or down."""
    return module.rpartition(".")[2].removesuffix("_proj")


@dataclass(frozen=True)
class Adapted:
    """A base model with adapters; only these train."""

    model: Any  # PeftModel; `with model.disable_adapter():` is the base
    tokenizer: Any
    blocks: Sequence[nn.Module]
    adapters: Mapping[str, Adapter]  # by module, "model.layers.0.self_attn.q_proj"

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A and B of every adapter in turn."""
        return [p for adapter in self.adapters.values() for p in (adapter.A, adapter.B)]

    def n_base(self) -> int:
        """Parameters of the base; a 4-bit tensor packs two into one element."""
        base = (p for p in self.model.parameters() if not p.requires_grad)
        return sum(getattr(p, "quant_state", p).shape.numel() for p in base)

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device


def make_tokenizer(cfg: TrainConfig) -> Any:
    model = cfg.model
    tokenizer = load_tokenizer(
        model.source, path=model.path, revision=model.revision, tiny=tiny(model.norm)
    )
    if model.source == "tiny":
        tokenizer.chat_template = TINY_TEMPLATE
    return tokenizer


@contextmanager
def adapted(cfg: TrainConfig, tokenizer: Any, device: torch.device) -> Iterator[Adapted]:
    """The config's model with new adapters, A from cfg.seed, B = 0 (Hu et al. 2022).

    The base is loaded once for the runs of a process; it comes back unchanged. Raises ValueError
    for targets that the model lacks, for a rank above a module's smaller side.
    """
    from peft import LoraConfig, get_peft_model

    lm = base(cfg, device)
    modules = _targets(lm, cfg.lora.targets)
    r, alpha, _ = lora_shape(cfg)
    for name, module in modules.items():
        sides = (module.in_features, module.out_features)
        if r > min(sides):
            raise ValueError(f"lora.r={r} is above the smaller side of {name}, {sides}")
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=cfg.lora.dropout,
        use_rslora=cfg.lora.alpha_policy == "rslora",
        target_modules=list(modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), _no_warning_of_peft():
        torch.manual_seed(cfg.seed)
        with _fresh_base_on_error():
            model = get_peft_model(lm.model, config)
    try:
        yield Adapted(model, tokenizer, lm.blocks, _adapters(model))
    finally:
        model.unload()


@contextmanager
def with_adapter(model: Any, folder: Path | None) -> Iterator[Any]:
    """The model with the adapter that a run has stored, or as it is."""
    if folder is None:
        yield model
        return
    from peft import PeftModel

    try:
        with _no_warning_of_peft(), _fresh_base_on_error():
            tuned = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise ValueError(f"eval.adapters: {folder} does not fit: {reason}") from error
    try:
        yield tuned.eval()
    finally:
        tuned.unload()


def base(cfg: TrainConfig, device: torch.device) -> LM:
    """The model without adapters, in eval mode, none of its weights trainable."""
    model = cfg.model
    dtype = model.compute_dtype or ("bfloat16" if device.type == "cuda" else "float32")
    return _base(
        model.source,
        model.path,
        model.revision,
        model.norm,
        model.attention,
        cfg.quant,
        dtype,
        str(device),
    )


@contextmanager
def _fresh_base_on_error() -> Iterator[None]:
    """peft leaves what it has put into the model so far, which is that of the runs to come."""
    try:
        yield
    except BaseException:
        _base.cache_clear()
        raise


@lru_cache(maxsize=1)  # runs of a unit follow one another
def _base(source, path, revision, norm, attention, quant, dtype, device) -> LM:
    lm = load_lm(
        source,
        path=path,
        revision=revision,
        tiny=tiny(norm),
        dtype=dtype,
        quant=quant,
        device=device,
    )
    if quant and not _is_quantized(lm.model):
        raise ValueError(f"quant={quant}: {type(lm.model).__name__} has no layer to quantize")
    if norm is None:
        remove_norms(lm.model)
    lm.model.set_attn_implementation(attention)
    lm.model.requires_grad_(False)
    # A model's own settings would change greedy responses: Qwen2.5 comes with a repetition penalty.
    lm.model.generation_config = type(lm.model.generation_config)()
    return lm


def remove_norms(model: nn.Module) -> None:
    """Every RMSNorm passes on what it gets; its weight stays, unused."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = lambda hidden: hidden


def token_losses(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    """-ln p of the target tokens [n], float32, in nats: ids, labels [B, T] on any device.

    Logits are made only where a sequence of the batch has a target.
    """
    device = next(model.parameters()).device
    ids, labels = ids.to(device), labels[:, 1:].to(device)
    at = (labels != IGNORED).any(0).nonzero()[:, 0]
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=at).logits
    losses = cross_entropy(logits.flatten(0, 1).float(), labels[:, at].flatten(), reduction="none")
    return losses[labels[:, at].flatten() != IGNORED]


@contextmanager
def _no_warning_of_peft() -> Iterator[None]:
    """peft 0.21 asks a model for an attribute that transformers renames."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        yield


def _is_quantized(model: nn.Module) -> bool:
    from bitsandbytes.nn import Linear4bit

    return any(isinstance(module, Linear4bit) for module in model.modules())


def _targets(lm: LM, names: Sequence[str]) -> dict[str, nn.Module]:
    """The linear modules of the blocks that are called so."""
    inside = {module for block in lm.blocks for module in block.modules()}
    linear = {
        name: module
        for name, module in lm.model.named_modules()
        if module in inside and isinstance(module, nn.Linear)
    }
    known = {name.rpartition(".")[2] for name in linear}
    for name in names:
        if name not in known:
            raise ValueError(f"lora.targets: no linear module {name!r}{did_you_mean(name, known)}")
    return {name: m for name, m in linear.items() if name.rpartition(".")[2] in names}


def _adapters(model: Any) -> dict[str, Adapter]:
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): Adapter(
            layer.lora_A["default"].weight,
            layer.lora_B["default"].weight,
            layer.scaling["default"],
            layer.base_layer,
        )
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
