"""Schema of the experiment `qlora_probe/train`: one short LoRA fine-tuning of a 4-bit model."""

from dataclasses import dataclass, field
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of
from plugins.lm.models import Tiny

QUANTS = ("nf4", "fp4", None)
DTYPES = ("float32", "bfloat16", None)
ATTENTIONS = ("eager", "sdpa")
NORMS = ("rms", None)
OPTIMIZERS = ("adamw8bit", "adamw", "paged_adamw8bit", "sgd")
ALPHA_POLICIES = ("fixed", "proportional", "rslora")
LOSS_ON = ("completion", "all")
SOURCES = ("synthetic", "jsonl", "alpaca")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class ModelConfig:
    """The base model, which stays as it is."""

    source: str = "tiny"  # tiny (pretrained here), smollm2 (from a package), hf (model.path)
    path: str | None = None  # with hf: a hub id, a local folder or a .gguf file
    revision: str | None = None  # of a hub id
    compute_dtype: str | None = None  # float32, bfloat16; null: float32 on a CPU, bfloat16 on CUDA
    attention: str = "eager"  # eager; sdpa is faster but has no second derivatives on a CPU
    norm: str | None = "rms"  # of tiny: rms, or null: without its norms, pretrained that way

    def __post_init__(self):
        one_of(self, "compute_dtype", DTYPES)
        one_of(self, "attention", ATTENTIONS)
        one_of(self, "norm", NORMS)


@dataclass
class OptimConfig:
    """Updates of the adapters."""

    name: str = "adamw8bit"  # adamw8bit, adamw, paged_adamw8bit, sgd
    lr: float = 2e-4  # the largest, after the warm-up; falls to 0 linearly, > 0
    clip: float = 1.0  # largest norm of a gradient, > 0
    # adapters of fewer elements keep a 32-bit state; null: 4096, 1 for tiny
    min_8bit_size: int | None = None

    def __post_init__(self):
        one_of(self, "name", OPTIMIZERS)
        finite(self, "lr", positive=True)
        finite(self, "clip", positive=True)
        if self.min_8bit_size is not None:
            at_least(self, "min_8bit_size", 1)


@dataclass
class LoraConfig:
    """Low-rank adapters: W0 x + scale B (A x)."""

    r: int | None = None  # rank, >= 1; null: 32, 8 for tiny
    alpha: float | None = None  # > 0; null: 32, 8 for tiny; with proportional: c r
    alpha_policy: str = "fixed"  # scale: fixed alpha / r; proportional c; rslora alpha / sqrt(r)
    c: float = 1.0  # scale of proportional, > 0
    dropout: float = 0.05  # of what an adapter reads, [0, 1)
    targets: list[str] = field(default_factory=lambda: list(TARGETS))  # names of linear modules

    def __post_init__(self):
        if self.r is not None:
            at_least(self, "r", 1)
        if self.alpha is not None:
            finite(self, "alpha", positive=True)
        one_of(self, "alpha_policy", ALPHA_POLICIES)
        finite(self, "c", positive=True)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.targets:
            raise ValueError("targets must name at least one linear module, got []")


@dataclass
class LoopConfig:
    """How the examples become updates."""

    batch: int = 4  # sequences at once, >= 1
    accum: int = 4  # such batches in an update, >= 1
    epochs: int = 1  # >= 1
    warmup_ratio: float = 0.03  # of all updates, [0, 1)
    reset_state_at: list[int] = field(default_factory=list)  # updates before which Adam forgets
    save_every: int = 20  # updates from one checkpoint to the next, >= 1; execution key

    def __post_init__(self):
        for name in ("batch", "accum", "epochs", "save_every"):
            at_least(self, name, 1)
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio must be in [0, 1), got {self.warmup_ratio}")
        if any(step < 0 for step in self.reset_state_at):
            raise ValueError(f"reset_state_at must hold integers >= 0, got {self.reset_state_at}")


@dataclass
class DataConfig:
    """Instructions and their answers: n_examples to train on, a ninth as many held out."""

    source: str = "synthetic"  # synthetic (upper-casing, which tiny has never seen), jsonl, alpaca
    path: str | None = None  # with jsonl: lines with instruction, output and maybe input
    n_examples: int = 450  # to train on, >= 1
    max_len: int = 1024  # tokens of a sequence; longer ones are cut, >= 2
    loss_on: str = "completion"  # completion, or all tokens
    packing: bool = False  # examples one after another in sequences of max_len tokens

    def __post_init__(self):
        one_of(self, "source", SOURCES)
        at_least(self, "n_examples", 1)
        at_least(self, "max_len", 2)
        one_of(self, "loss_on", LOSS_ON)


@dataclass
class EvalConfig:
    """What is measured beside the training loss."""

    n: int = 8  # losses on held-out examples between those at the start and the end, >= 0
    suite: str | None = "auto"  # prompts: minimum, forgetting, tiny; auto: by model; null: none
    max_new: int | None = None  # tokens of a response, >= 1; null: 64, 256 on CUDA
    # two of base, a run_id of this store, a folder: compared on the prompts, and nothing is trained
    adapters: list[str] = field(default_factory=list)

    def __post_init__(self):
        at_least(self, "n", 0)
        if self.max_new is not None:
            at_least(self, "max_new", 1)
        if len(self.adapters) not in (0, 2):
            raise ValueError(f"adapters must be two or none, got {self.adapters}")


@dataclass
class TrainConfig(BaseConfig):
    """One base model, one adapter trained on it."""

    experiment: str = "qlora_probe/train"
    threads: int | None = 1  # equal rows whatever runs beside; more for large models; execution key
    seed: int = 0  # adapters' start, order of the examples, dropout, >= 0
    quant: str | None = "nf4"  # nf4, fp4, null: the base model is not quantized
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    callbacks: list[Any] = field(default_factory=list)  # probes: name or {name: {...}}

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "seed", 0)
        one_of(self, "quant", QUANTS)


def lora_shape(cfg: TrainConfig) -> tuple[int, float, float]:
    """Rank r, alpha, and the scale of B A."""
    default = 8 if cfg.model.source == "tiny" else 32
    r = cfg.lora.r or default
    if cfg.lora.alpha_policy == "proportional":
        return r, cfg.lora.c * r, cfg.lora.c
    alpha = cfg.lora.alpha or default
    return r, alpha, alpha / (r if cfg.lora.alpha_policy == "fixed" else r**0.5)


def min_8bit_size(cfg: TrainConfig) -> int:
    """Elements from which a parameter's optimizer state is kept in 8 bits."""
    return cfg.optim.min_8bit_size or (1 if cfg.model.source == "tiny" else 4096)


def tiny(norm: str | None) -> Tiny:
    """A Llama that reads bytes, pretrained on short questions; 115,008 parameters."""
    config = {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        # Without norms nothing else sets the scale of hidden states; at .02 it does not learn.
        "initializer_range": 0.02 if norm else 0.1,
    }
    lr = 5e-3 if norm else 4e-3
    settings = {"steps": 800, "batch": 48, "lr": lr, "seed": 0, "norm": norm, "version": 3}
    return Tiny("llama", config, "bytes", "qlora_probe.pretrain:pretrain", settings)


register_experiment(
    Experiment(
        name="qlora_probe/train",
        schema=TrainConfig,
        run="qlora_probe.train:run",
        check="qlora_probe.check:check",
        execution_keys=frozenset({"device", "threads", "objective", "train.save_every"}),
    )
)
