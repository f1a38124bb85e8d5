"""Schema of the experiment `memdyn/train`: one language model is fine-tuned on N passages."""

import math
from dataclasses import dataclass, field
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of
from plugins.lm.models import Tiny

DTYPES = ("float32", "bfloat16")
LR_SCHEDULES = ("constant", "linear")
MODES = ("continuous", "restart")
KEEP = ("last", "all", None)
METRICS = ("nv", "nv_rel", "nv_contract", "pr", "max_share", "id2nn", "aniso", "cka0")
HEADS = 4  # of the tiny model


@dataclass
class ModelConfig:
    """Which language model. layers, width, vocab and init_range are the tiny one's."""

    source: str = "tiny"  # tiny (random weights), smollm2 (from a package), hf (model.path)
    path: str | None = None  # with hf: a hub id, a local folder or a .gguf file
    revision: str | None = None  # of a hub id
    dtype: str = "float32"  # float32, bfloat16; distances are computed in float32
    layers: int = 4  # blocks, >= 2
    width: int = 128  # a multiple of 4 (heads)
    vocab: int = 1024  # tokens of the byte-level BPE fitted on the corpus, >= 257
    init_range: float = 0.06  # standard deviation of initial weights, > 0

    def __post_init__(self):
        one_of(self, "dtype", DTYPES)
        at_least(self, "layers", 2)
        at_least(self, "width", HEADS)
        at_least(self, "vocab", 257)
        if self.width % HEADS:
            raise ValueError(f"width must be a multiple of {HEADS}, got {self.width}")
        finite(self, "init_range", positive=True)


@dataclass
class DataConfig:
    """2N passages of one corpus: N to train on, N never seen."""

    corpus: str = "state_of_the_union"  # or file, wikitext, or a registered one
    path: str | None = None  # of corpus=file: a .txt, a .jsonl or a folder of them
    variant: str | None = None  # of corpus=wikitext: wikitext-2-raw-v1, wikitext-103-raw-v1
    seed: int = 0  # which passages, and which of them are trained, >= 0
    n_passages: int = 50  # N, of each group, >= 1
    length: int = 128  # tokens of a passage, >= 20

    def __post_init__(self):
        at_least(self, "seed", 0)
        at_least(self, "n_passages", 1)
        at_least(self, "length", 20)


@dataclass
class ScheduleConfig:
    """When to measure."""

    # continuous: one training; restart: per epoch of the list one of its own from the start
    mode: str = "continuous"
    epochs: list[int] = field(default_factory=lambda: [0, 1, 3, 5, 8, 10, 12, 15, 20])  # 0 is added

    def __post_init__(self):
        one_of(self, "mode", MODES)
        if not self.epochs or min(self.epochs) < 0:
            raise ValueError(f"epochs must be a list of integers >= 0, got {self.epochs}")
        self.epochs = sorted({0, *self.epochs})


@dataclass
class CheckpointConfig:
    """What is kept of the weights."""

    # last: the newest, to resume from, until the run ends; all: of every measured epoch, kept with
    # its row; null or none: none. Execution key
    keep: str | None = "last"

    def __post_init__(self):
        one_of(self, "keep", KEEP)


@dataclass
class TrainConfig(BaseConfig):
    """One model, one set of passages."""

    experiment: str = "memdyn/train"
    threads: int | None = 1  # equal rows whatever runs beside; more for large models; execution key
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0  # initial weights of tiny, order of the passages, dropout, >= 0
    lr: float | None = None  # AdamW, > 0; null: 2e-3 for tiny, 5e-5 for a pretrained model
    betas: list[float] | None = None  # of AdamW; null: [.9, .95] for tiny, [.9, .999]
    batch_size: int | None = None  # passages, >= 1; null: 5 for tiny, 4
    weight_decay: float = 0.0  # of AdamW, >= 0
    dropout: float = 0.0  # every dropout of the model, [0, 1)
    lr_schedule: str = "constant"  # constant, linear (to 0); after 10 steps of warm-up
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prompt_fraction: float = 1 / 3  # of a passage's tokens, the prompt of its reproduction, (0, 1)
    k_neighbors: int = 15  # nearest neighbours of a token's state, >= 1
    skip_positions: int = 1  # first states of every passage left out: equal prefixes, >= 0
    position_stride: int = 1  # every so many states of a passage are measured, >= 1
    metrics: list[Any] = field(default_factory=lambda: list(METRICS))  # name or {name: {...}}
    callbacks: list[Any] = field(default_factory=list)  # likewise; called after each epoch
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    threshold: float = 0.6  # accuracy from which a passage is memorized, (0, 1]; execution key
    alpha: float = 0.05  # level of the tests, (0, 1); execution key
    min_effect: float = 0.1  # SDs that a rise or fall must have, > 0; execution key
    micro_batch: int | None = None  # passages at once; null: batch_size; execution key
    eval_batch: int = 100  # passages at once when measuring, >= 1; execution key

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "seed", 0)
        for name in ("batch_size", "micro_batch"):
            if getattr(self, name) is not None:
                at_least(self, name, 1)
        for name in ("k_neighbors", "position_stride", "eval_batch"):
            at_least(self, name, 1)
        at_least(self, "skip_positions", 0)
        if self.lr is not None:
            finite(self, "lr", positive=True)
        finite(self, "weight_decay")
        finite(self, "min_effect", positive=True)
        if self.betas is not None and (
            len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas)
        ):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        one_of(self, "lr_schedule", LR_SCHEDULES)
        for name in ("prompt_fraction", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {self.threshold}")


def prompt_length(cfg: TrainConfig) -> int:
    """P, the tokens of a passage that its reproduction is prompted with."""
    return math.floor(cfg.data.length * cfg.prompt_fraction + 1e-9)  # 1/3 of 21 is 7


def measured_positions(cfg: TrainConfig) -> range:
    """Positions in a passage whose states are measured."""
    return range(cfg.skip_positions, cfg.data.length, cfg.position_stride)


def tiny(model: ModelConfig, length: int, dropout: float) -> Tiny:
    """GPT-2 with four heads; 0.94 million parameters by default."""
    sizes = {"n_layer": model.layers, "n_embd": model.width, "n_head": HEADS}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    config = {
        "n_positions": length,
        "initializer_range": model.init_range,
        "activation_function": "gelu_pytorch_tanh",  # GPT-2's, as one kernel
        **sizes,
        **rates,
    }
    return Tiny("gpt2", config, f"bpe:{model.vocab}")


register_experiment(
    Experiment(
        name="memdyn/train",
        schema=TrainConfig,
        run="memdyn.train:run",
        check="memdyn.check:check",
        execution_keys=frozenset(
            {
                "device",
                "threads",
                "objective",
                "threshold",
                "alpha",
                "min_effect",
                "micro_batch",
                "eval_batch",
                "checkpoint.keep",
            }
        ),
    )
)
