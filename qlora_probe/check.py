"""Checks across the fields of a config at planning time: bad input ends before any job starts."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from plugins.lm.models import check_quant, check_source
from plugins.registry import check_specs, did_you_mean, split_spec
from qlora_probe import examples, prompts, registry
from qlora_probe import probes as probes  # registers them
from qlora_probe.config import ModelConfig, TrainConfig, lora_shape, tiny

NEEDS_EAGER = ("sharpness", "inner_view")


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see."""
    model, lora = cfg.model, cfg.lora
    check_source(model.source, model.path, model.revision)
    check_quant(cfg.quant)
    if cfg.optim.name.endswith("8bit") and find_spec("bitsandbytes") is None:
        raise ValueError(
            f"optim.name={cfg.optim.name} needs bitsandbytes: pip install bitsandbytes; "
            "or optim.name=adamw"
        )
    if model.source != "tiny" and model.norm != ModelConfig.norm:
        raise ValueError(f"model.norm=null needs model.source=tiny, got {model.source}")
    if lora.alpha is not None and lora.alpha_policy == "proportional":
        raise ValueError(
            f"lora.alpha={lora.alpha}: lora.alpha_policy=proportional takes none (null), "
            f"alpha is lora.c r = {lora_shape(cfg)[1]:g}"
        )
    if model.source == "tiny":
        _check_targets(cfg)
    examples.check_source(cfg.data.source, cfg.data.path)
    if cfg.data.source == "jsonl":
        n = examples.n_with_held_out(cfg.data.n_examples)
        examples.split(examples.load_examples("jsonl", cfg.data.path, n, seed=0))
    if cfg.eval.suite is not None:
        prompts.prompts(cfg.eval.suite, model.source)
    elif cfg.eval.adapters:
        raise ValueError(f"eval.adapters={cfg.eval.adapters} needs an eval.suite of prompts")
    check_specs("callbacks", cfg.callbacks, registry.callbacks)
    names = [split_spec(spec)[0] for spec in cfg.callbacks]
    for spec in cfg.callbacks:
        registry.callbacks.resolve(spec)()
    for name in NEEDS_EAGER:
        if name in names and model.attention != "eager":
            raise ValueError(
                f"callbacks: {name} needs model.attention=eager, got {model.attention}"
            )


def _check_targets(cfg: TrainConfig) -> None:
    """The tiny model's modules are known without loading it."""
    sizes = tiny(cfg.model.norm).config
    d, inner = sizes["hidden_size"], sizes["intermediate_size"]
    kv = d // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    smaller = {
        **dict.fromkeys(("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min(d, inner)),
        **dict.fromkeys(("k_proj", "v_proj"), min(d, kv)),
    }
    r = lora_shape(cfg)[0]
    for name in cfg.lora.targets:
        if name not in smaller:
            raise ValueError(
                f"lora.targets: no linear module {name!r}{did_you_mean(name, smaller)}"
            )
        if r > smaller[name]:
            raise ValueError(f"lora.r={r} is above {smaller[name]}, the smaller side of {name}")
