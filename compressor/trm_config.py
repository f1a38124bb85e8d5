"""Schema of the experiment `compressor/trm`: a small recursive transformer on codes."""

from dataclasses import dataclass, field

from compressor.config import DataConfig, LMConfig, ModelConfig, TrainConfig
from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of

TASKS = ("depth", "next", "pairs")
EQUAL = ("training", "evaluation")


@dataclass
class CodesConfig:
    """The code of a state: k numbers, by PCA of the site's train split (or train.init_from)."""

    d_compressed: int | None = 16  # k, 1..D; null with ratio
    ratio: float | None = None  # D / k; null with d_compressed
    center: str | None = None  # mean: PCA about the mean of the train split; null

    def __post_init__(self):
        ModelConfig(d_compressed=self.d_compressed, ratio=self.ratio, center=self.center)


@dataclass
class RecursionConfig:
    """2 (n + 1) rounds n_sup layers are passed in all."""

    n: int = 6  # updates of the latent u before one of the answer y, >= 1
    rounds: int = 3  # of n + 1 updates; the gradient goes through the last, >= 1
    n_sup: int = 8  # times that the answer is held against the target, an update each, >= 1
    ema: float = 0.999  # decay of the average of the weights that is evaluated, [0, 1)
    from_site: str | None = None  # of task=depth, before lm.site; null: block_<half of the blocks>

    def __post_init__(self):
        for name in ("n", "rounds", "n_sup"):
            at_least(self, name, 1)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")


@dataclass
class FitConfig:
    """How the recursion and the nets beside it are trained: as many updates each."""

    lr: float = 2e-2  # AdamW, the largest, after the warm-up (.1 of all updates); cosine to 0
    batch: int = 4  # sequences of an update, >= 1
    max_epochs: int = 1  # passes of the recursion over the train split, >= 1
    clip: float | None = 1.0  # largest norm of a gradient, > 0; null: none
    equal_flops: str = "training"  # what a net of as many operations matches: training, evaluation
    init_from: str | None = None  # the target site's compressor: a run_id of this store, or best.pt
    seed: int = 0  # initial weights, order of the sequences, >= 0

    def __post_init__(self):
        finite(self, "lr", positive=True)
        at_least(self, "batch", 1)
        at_least(self, "max_epochs", 1)
        one_of(self, "equal_flops", EQUAL)
        if self.clip is not None:
            finite(self, "clip", positive=True)
        at_least(self, "seed", 0)


@dataclass
class CostConfig:
    """What is measured beside R^2."""

    downstream: bool = False  # of task=depth: the language model's loss with predicted states


@dataclass
class TrmConfig(BaseConfig):
    """Predicts codes from codes: a recursion, and the baselines that it has to beat.

    task=depth: the codes at trm.from_site of tokens <= t -> the code at lm.site of t.
    task=next: the codes at lm.site of tokens <= t -> that of t + 1.
    task=pairs: `pre` at <= t -> `post` at t, of the .npz file data.path with arrays pre and post
    [n, L, D], and perhaps length [n]: the first positions of each sequence that are states.
    """

    experiment: str = "compressor/trm"
    threads: int | None = 1  # equal rows whatever runs beside; more for large models; execution key
    task: str = "depth"  # depth, next, pairs
    lm: LMConfig = field(default_factory=LMConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: CodesConfig = field(default_factory=CodesConfig)
    trm: RecursionConfig = field(default_factory=RecursionConfig)
    train: FitConfig = field(default_factory=FitConfig)
    eval: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self):
        super().__post_init__()
        one_of(self, "task", TASKS)


def states_config(cfg: TrmConfig) -> TrainConfig:
    """What the states of the same language model and text are made of."""
    model = ModelConfig(center=cfg.model.center)
    return TrainConfig(device=cfg.device, lm=cfg.lm, data=cfg.data, model=model)


register_experiment(
    Experiment(
        name="compressor/trm",
        schema=TrmConfig,
        run="compressor.trm_train:run",
        check="compressor.trm_check:check",
    )
)
