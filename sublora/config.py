"""Schema of the experiment `sublora/train`: one GPT trained in a subspace, and its bound."""

import math
from dataclasses import dataclass, field
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of

SOURCES = ("gpt", "hf")
LEVELS = ("document", "sequence", "token")
PRICES = ("prefix_free", "paper")
RANGES = ("worst", "predictable")
METHODS = ("kmeans", "uniform")
CODERS = ("adaptive", "static")
CODEBOOKS = ("shared", "ab")
BUDGETS = ("params", "equal")
ALPHAS = (1e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass
class SubspaceConfig:
    """theta = theta0 + P w, w [d]."""

    d: int = 1000  # coordinates, >= 0; 0: no projector, all trained parameters themselves
    # rdkronqr, onehot, sparse, dense, fastfood, dense_qr
    projector: str = "rdkronqr"
    cache_mb: float = 512.0  # largest dense P that is kept, MB, >= 0; execution key

    def __post_init__(self):
        at_least(self, "d", 0)
        finite(self, "cache_mb")


@dataclass
class AllocationConfig:
    """How the d coordinates are shared among the factors A and B of the adapters."""

    name: str = "uniform"  # uniform (one projector), fixed_<share of B>, learned
    layer_budget: str = "params"  # of learned: d_l in proportion to the parameters; or equal
    gate_init: float = 0.0  # of learned: logit of the share of B
    hard_from: float = 0.8  # of learned: share of the steps with soft gates, (0, 1)

    def __post_init__(self):
        one_of(self, "layer_budget", BUDGETS)
        if not math.isfinite(self.gate_init):
            raise ValueError(f"gate_init must be finite, got {self.gate_init}")
        if not 0 < self.hard_from < 1:
            raise ValueError(f"hard_from must be in (0, 1), got {self.hard_from}")


@dataclass
class ModelConfig:
    """The network at its random start, and its adapters."""

    source: str = "gpt"  # gpt (made here), hf (model.path)
    path: str | None = None  # with hf: a hub id or a local folder
    n_layer: int = 4  # blocks, >= 1
    n_head: int = 4  # heads of a block; a divisor of n_embd
    n_embd: int = 64  # width
    block: int = 64  # longest context in tokens, >= 2
    dropout: float = 0.0  # [0, 1)
    init_std: float = 0.03  # of the initial weights, > 0; GPT-2's is .02
    lora_r: int = 4  # rank, >= 0; 0: no adapters, all parameters are trained
    lora_alpha: float = 32.0  # scale is lora_alpha / lora_r, > 0
    lora_dropout: float = 0.0  # of what an adapter reads, [0, 1)

    def __post_init__(self):
        one_of(self, "source", SOURCES)
        for name in ("n_layer", "n_head", "n_embd"):
            at_least(self, name, 1)
        at_least(self, "block", 2)
        at_least(self, "lora_r", 0)
        finite(self, "init_std", positive=True)
        finite(self, "lora_alpha", positive=True)
        for name in ("dropout", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


@dataclass
class TrainingConfig:
    """AdamW on w. None of it is in the price: a choice by the validation loss costs nothing, one
    by the bounds of several runs counts in bound.n_configs."""

    lr: float = 0.02  # the largest, after the warm-up, > 0
    min_lr: float = 0.0  # at the end of its cosine, 0..lr
    warmup: int = 100  # updates, >= 0
    steps: int = 600  # updates, >= 1
    batch: int = 16  # windows of block + 1 tokens of an update, or of one of its parts, >= 1
    tokens_per_step: int | None = None  # of an update, whatever the processes; null: batch x block
    amp: str = "off"  # bf16: of the training, not of the evaluation; off

    def __post_init__(self):
        finite(self, "lr", positive=True)
        finite(self, "min_lr")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must be at most lr={self.lr}, got {self.min_lr}")
        at_least(self, "warmup", 0)
        for name in ("steps", "batch"):
            at_least(self, name, 1)
        if self.tokens_per_step is not None:
            at_least(self, "tokens_per_step", 1)
        one_of(self, "amp", ("bf16", "off"))


@dataclass
class QuantConfig:
    """How w becomes bits."""

    method: str = "kmeans"  # kmeans (Lloyd), uniform (equal bins)
    levels: int = 7  # K, >= 2
    qat_steps: int = 300  # updates of levels and w, as coded, after the training, >= 0
    coder: str = "adaptive"  # counts as they come; static: counts in a header
    codebooks: str = "shared"  # shared, or ab: one for the coordinates of A, one for those of B

    def __post_init__(self):
        one_of(self, "method", METHODS)
        at_least(self, "levels", 2)
        at_least(self, "qat_steps", 0)
        one_of(self, "coder", CODERS)
        one_of(self, "codebooks", CODEBOOKS)


@dataclass
class BoundConfig:
    """What is bounded, with probability 1 - delta over the training set."""

    level: str = "document"  # unit: document, sequence (block of tokens), token
    n: int = 10000  # units that are evaluated, 1..m
    delta: float = 0.05  # (0, 1)
    alphas: list[float] = field(default_factory=lambda: list(ALPHAS))  # mixed with 1/V, (0, 1)
    n_configs: int = 1  # runs among which one is chosen, or that must hold together, >= 1
    sample_seed: int = 0  # which n of the m units, >= 0
    stride: int = 100  # of the window over documents longer than block, tokens, >= 1
    price: str = "prefix_free"  # of the code's length; paper: as published, which is no valid one
    delta_i: str = "worst"  # of level=token: worst, or predictable ranges of the losses
    prior_independent: bool = False  # of model.source=hf: its weights never saw this training set

    def __post_init__(self):
        one_of(self, "level", LEVELS)
        one_of(self, "price", PRICES)
        one_of(self, "delta_i", RANGES)
        for name in ("n", "n_configs", "stride"):
            at_least(self, name, 1)
        at_least(self, "sample_seed", 0)
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {self.delta}")
        for alpha in self.alphas:
            if not 0 < alpha < 1:
                raise ValueError(f"alphas must be numbers in (0, 1), got {alpha}")
        if len(set(self.alphas)) < max(1, len(self.alphas)):
            raise ValueError(f"alphas must be at least one number, each once, got {self.alphas}")


@dataclass
class DataConfig:
    """The training set, of `python -m sublora.prepare`."""

    dir: str | None = None  # its folder; null: documents of a Markov chain, made once


@dataclass
class TrainConfig(BaseConfig):
    """One model in one subspace, coded to bits, and the bound of what the bits decode to."""

    experiment: str = "sublora/train"
    threads: int | None = 1  # equal rows whatever runs beside; more for large models; execution key
    processes: int = 1  # ranks of this run, gloo or nccl; execution key
    seed: int = 0  # initial weights, projectors, batches, >= 0
    eval_from: str | None = None  # run_id of this store, or a best.pt: its bound again, untrained
    subspace: SubspaceConfig = field(default_factory=SubspaceConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    bound: BoundConfig = field(default_factory=BoundConfig)
    data: DataConfig = field(default_factory=DataConfig)
    callbacks: list[Any] = field(default_factory=list)  # name or {name: {...}}

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "processes", 1)
        at_least(self, "seed", 0)


register_experiment(
    Experiment(
        name="sublora/train",
        schema=TrainConfig,
        run="sublora.train:run",
        check="sublora.check:check",
        execution_keys=frozenset(
            {"device", "threads", "objective", "processes", "subspace.cache_mb"}
        ),
    )
)
