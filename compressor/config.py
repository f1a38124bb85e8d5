"""Schema of the experiment `compressor/train`: one linear bottleneck on hidden states."""

from dataclasses import dataclass, field
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of
from plugins.lm.models import Tiny, shape_of

SOURCES = ("synthetic", "tiny", "smollm2", "hf")
DTYPES = ("float32", "bfloat16")
STAGES = ("1a", "1b")
SPANS = ("all", "thinking", None)
CENTERS = ("mean", None)
NESTED_WEIGHTS = ("equal", "inverse_pca")
OPTIMIZERS = ("adamw", "sgd")
OBJECTIVES = ("mse", "relative", "cosine")
COMPILE = ("auto", "on", "off")
AMP = ("bf16", "off")
CORPUS = {"1a": "state_of_the_union", "1b": "column_arithmetic"}  # of each stage, by default
METRICS = (
    "mse",
    "rel_error",
    "cos",
    "variance_ratio",
    "pca",
    "oracle",
    "subspace_overlap",
    "orth_defect",
    "idem_defect",
    "mean_only",
    "participation",
)
SYNTHETIC_DIM = 64
REPLICA_KEYS = ("train.seed", "train.lr", "model.d_compressed", "model.ratio")


@dataclass
class LMConfig:
    """Where the states come from."""

    source: str = (
        "tiny"  # synthetic, tiny (pretrained here), smollm2 (from a package), hf (lm.path)
    )
    path: str | None = None  # with hf: a hub id, a local folder or a .gguf file
    revision: str | None = None  # of a hub id
    site: str = "post_norm"  # post_norm, pre_norm (after the last block), block_<l>, l from 1
    dtype: str = "float32"  # float32, bfloat16: of the language model; states are float32
    dim: int | None = None  # D; null: the model's, of synthetic 64
    rows: int = 4096  # of synthetic: N, states, >= 2
    spectrum: Any = "power:1"  # of synthetic: power:a i^-a, geometric:q q^i, or D numbers
    mean: float = 0.0  # of synthetic: norm of the mean state, >= 0

    def __post_init__(self):
        one_of(self, "source", SOURCES)
        one_of(self, "dtype", DTYPES)
        if self.dim is not None:
            at_least(self, "dim", 1)
        at_least(self, "rows", 2)
        finite(self, "mean")


@dataclass
class DataConfig:
    """Token sequences; a state is kept for each of their tokens."""

    corpus: str | None = None  # null: state_of_the_union in stage 1a, column_arithmetic in 1b
    path: str | None = None  # of corpus=file: a .txt, .jsonl or folder; of traces: hub id or file
    variant: str | None = None  # of fineweb_edu: its sample; of traces: the field of the trace
    n_seq: int = 200  # sequences, >= 2
    max_len: int = 128  # most tokens of a sequence, >= 2
    skip_first: int = 1  # first tokens of every sequence left out: attention sinks, >= 0
    heldout: float = 0.2  # share of the sequences that is never trained on, (0, 1)
    seed: int = 0  # which sequences, and which are held out; states of synthetic, >= 0
    span: str | None = None  # all, thinking (inside its markers); null: all in 1a, thinking in 1b

    def __post_init__(self):
        at_least(self, "n_seq", 2)
        at_least(self, "max_len", 2)
        at_least(self, "skip_first", 0)
        at_least(self, "seed", 0)
        one_of(self, "span", SPANS)
        if not 0 < self.heldout < 1:
            raise ValueError(f"heldout must be in (0, 1), got {self.heldout}")


@dataclass
class ModelConfig:
    """xhat = x M with M = W^T W, W [k, D]; no bias."""

    d_compressed: int | None = 16  # k, 1..D; null with ratio
    ratio: float | None = None  # D / k; null with d_compressed
    center: str | None = None  # mean: xhat = mu + (x - mu) M, mu of the train split; null
    init: str = "orthogonal"  # orthogonal, pca, small
    init_scale: float | None = None  # of the initial W, > 0; null: 1, of small 1e-2
    nested: list[int] = field(default_factory=list)  # k1 < .. < k: every prefix of W is trained
    nested_weights: str = "equal"  # of their losses: equal, or inverse_pca (1 / mse_pca(k_j))

    def __post_init__(self):
        if self.d_compressed is not None:
            at_least(self, "d_compressed", 1)
        if self.ratio is not None and not self.ratio >= 1:
            raise ValueError(f"ratio must be a number >= 1, got {self.ratio}")
        one_of(self, "center", CENTERS)
        if self.init_scale is not None:
            finite(self, "init_scale", positive=True)
        one_of(self, "nested_weights", NESTED_WEIGHTS)
        if any(k < 1 for k in self.nested) or sorted(set(self.nested)) != self.nested:
            raise ValueError(f"nested must be increasing integers >= 1, got {self.nested}")


@dataclass
class TrainingConfig:
    """How W follows the gradient."""

    lr: float = 1e-2  # the largest, after the warm-up (.1 of all updates); cosine to 0; 1b: x .3
    batch: int = 256  # tokens of an update, >= 1
    max_epochs: int = 10  # passes over the train split, >= 1
    optimizer: str = "adamw"  # adamw (no weight decay), sgd
    schedule: str = "cosine"  # cosine, or constant: no warm-up, for dynamics
    clip: float | None = 1.0  # largest norm of a gradient, > 0; null: none
    objective: str = "mse"  # mse, relative, cosine
    early_stopping: bool = True
    patience: int = 3  # epochs without a better held-out loss before stopping, >= 1
    min_delta: float = 1e-6  # by which a loss must be better, >= 0
    compile: str = "auto"  # on, off, auto: on a GPU; execution key
    amp: str = "off"  # bf16, off: products of a training step
    init_from: str | None = None  # stage 1b: a run_id of this store, or a best.pt
    seed: int = 0  # initial W, order of the tokens, >= 0

    def __post_init__(self):
        finite(self, "lr", positive=True)
        for name in ("batch", "max_epochs", "patience"):
            at_least(self, name, 1)
        one_of(self, "optimizer", OPTIMIZERS)
        one_of(self, "schedule", ("cosine", "constant"))
        if self.clip is not None:
            finite(self, "clip", positive=True)
        one_of(self, "objective", OBJECTIVES)
        finite(self, "min_delta")
        one_of(self, "compile", COMPILE)
        one_of(self, "amp", AMP)
        at_least(self, "seed", 0)


@dataclass
class EvalConfig:
    """What is measured beside the loss."""

    downstream: bool = False  # the language model's loss with its states replaced
    log_modes: int = 16  # leading eigenvectors whose strength is recorded, >= 1
    every: int | None = None  # updates between records inside an epoch, >= 1; null: its end only

    def __post_init__(self):
        at_least(self, "log_modes", 1)
        if self.every is not None:
            at_least(self, "every", 1)


@dataclass
class TrainConfig(BaseConfig):
    """One compressor on the states of one site of one language model."""

    experiment: str = "compressor/train"
    threads: int | None = 1  # equal rows whatever runs beside; more for large models; execution key
    processes: int = 1  # ranks of this run, gloo or nccl; execution key
    stage: str = "1a"  # 1a: text; 1b: reasoning traces, from a compressor of 1a
    lm: LMConfig = field(default_factory=LMConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    metrics: list[Any] = field(default_factory=lambda: list(METRICS))  # name or {name: {...}}
    callbacks: list[Any] = field(default_factory=list)  # likewise

    def __post_init__(self):
        super().__post_init__()
        one_of(self, "stage", STAGES)
        at_least(self, "processes", 1)


def tiny() -> Tiny:
    """A GPT-2 that reads bytes, trained on the default text; 0.18 million parameters."""
    config = {
        "n_positions": 256,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "activation_function": "gelu_pytorch_tanh",  # GPT-2's, as one kernel
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
    settings = {"steps": 300, "batch": 16, "length": 128, "lr": 1e-2, "seed": 0, "version": 1}
    return Tiny("gpt2", config, "bytes", "compressor.pretrain:pretrain", settings)


def shape(cfg: TrainConfig) -> tuple[int, int | None] | None:
    """D and the number of blocks where they are known without loading the language model."""
    lm = cfg.lm
    if lm.source == "synthetic":
        return lm.dim or SYNTHETIC_DIM, None
    return shape_of(lm.source, lm.path, tiny())


def rank_of(k: int | None, ratio: float | None, dim: int | None) -> int | None:
    """D' of model.d_compressed and model.ratio; None where it takes an unknown D.

    Raises ValueError for both or neither of the two, and for what does not fit D.
    """
    if (k is None) == (ratio is None):
        raise ValueError(
            f"model.d_compressed={k}, model.ratio={ratio}: one of them must be a number, the other "
            "none"
        )
    if dim is None:
        return k
    if ratio is not None:
        if dim % ratio or not dim / ratio == int(dim / ratio):
            raise ValueError(f"model.ratio={ratio:g}: {dim} / {ratio:g} is not an integer")
        return int(dim / ratio)
    if k > dim:
        raise ValueError(f"model.d_compressed={k} must be in 1..{dim}, the states' dimensions")
    return k


register_experiment(
    Experiment(
        name="compressor/train",
        schema=TrainConfig,
        run_stack="compressor.train:run_stack",
        check="compressor.check:check",
        stack_width="compressor.stacking:stack_width",
        replica_keys=frozenset(REPLICA_KEYS),
        execution_keys=frozenset({"device", "threads", "objective", "processes", "train.compile"}),
    )
)
