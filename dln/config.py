"""Schema of the experiment `dln/train`: one deep linear network learns a linear teacher."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from plugins.experiment import BaseConfig, Experiment, register_experiment
from plugins.fields import at_least, finite, one_of

DTYPES = ("float32", "float64")
INITS = ("normal", "aligned")
REPLICA_KEYS = (  # what may differ between the networks of a stack
    "model.model_seed",
    "model.gamma",
    "training.lr",
    "training.batch_seed",
    "data.data_seed",
    "data.noise_std",
)


@dataclass
class ModelConfig:
    """f(x) = W_{L-1} ... W_0 x with L = num_hidden + 1, no bias."""

    in_dim: int = 5  # d, >= 1
    out_dim: int = 5  # o, >= 1; the teachers need o = d
    num_hidden: int = 3  # hidden layers, >= 0; 0 is a single matrix
    hidden_dim: int = 100  # width h of every hidden layer, >= 1
    gamma: float = 1.0  # every weight starts as N(0, h^-gamma); finite, > 0
    model_seed: int = 0  # initial weights, >= 0
    # normal; aligned: balanced and in the teacher's modes, all singular values h^(-gamma/2)
    init: str = field(default="normal", metadata={"neutral": "normal"})

    def __post_init__(self):
        for name in ("in_dim", "out_dim", "hidden_dim"):
            at_least(self, name, 1)
        for name in ("num_hidden", "model_seed"):
            at_least(self, name, 0)
        finite(self, "gamma", positive=True)
        one_of(self, "init", INITS)
        if self.init == "aligned" and self.num_hidden and self.hidden_dim < self.in_dim:
            raise ValueError(
                f"init=aligned needs hidden_dim >= in_dim, got {self.hidden_dim} and {self.in_dim}"
            )


@dataclass
class DataConfig:
    """x ~ N(0, I_d), y = A x with the teacher A = O^T D O, O a random rotation."""

    train_samples: int = 500  # samples, >= 1; ignored when online
    test_samples: int = 500  # samples, >= 1
    data_seed: int = 0  # rotation, test and train set, >= 0
    online: bool = False  # every batch is a fresh draw
    noise_std: float = 0.0  # standard deviation of the train targets' noise, >= 0
    d_active: int | None = None  # only the first d_active modes get signal, 1..d; null: all
    params: dict[str, Any] = field(default_factory=dict)  # matrix: name of D, and its parameters

    def __post_init__(self):
        for name in ("train_samples", "test_samples"):
            at_least(self, name, 1)
        at_least(self, "data_seed", 0)
        finite(self, "noise_std")
        if self.d_active is not None:
            at_least(self, "d_active", 1)


@dataclass
class TrainingConfig:
    """How the weights follow the gradient."""

    lr: float = 1e-4  # learning rate per step, finite, >= 0
    batch_size: int | None = None  # samples per step, >= 1; null: the whole train set
    optimizer: str = "SGD"  # SGD, Adam, AdamW
    optimizer_params: dict[str, Any] = field(default_factory=dict)  # as torch.optim's, without lr
    criterion: str = "MSELoss"  # MSELoss, L1Loss, SmoothL1Loss, HuberLoss; mean over entries
    batch_seed: int = 0  # batch order, or fresh batches when online, >= 0
    track_train_loss: bool = False  # also record the loss on the whole noisy train set

    def __post_init__(self):
        finite(self, "lr")
        if self.batch_size is not None:
            at_least(self, "batch_size", 1)
        at_least(self, "batch_seed", 0)


@dataclass
class TrainConfig(BaseConfig):
    """One network, one teacher."""

    experiment: str = "dln/train"
    threads: int | None = 1  # small products do not gain from more; execution key
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    max_steps: int = 10000  # updates, >= 0; 0 records the initial network only
    num_evaluations: int = 250  # records on an even grid besides the last one, >= 1
    metrics: list[Any] = field(default_factory=list)  # name or {name: {param: value}}
    callbacks: list[Any] = field(default_factory=list)  # likewise; run in this order
    dtype: str = "float32"  # float32, float64: of training; metrics are computed in float64

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "max_steps", 0)
        at_least(self, "num_evaluations", 1)
        one_of(self, "dtype", DTYPES)


def layer_shapes(model: ModelConfig) -> list[tuple[int, int]]:
    """(n_{l+1}, n_l) of W_0 .. W_{L-1}."""
    sizes = [model.in_dim, *[model.hidden_dim] * model.num_hidden, model.out_dim]
    return [(rows, cols) for cols, rows in pairwise(sizes)]


def n_params(model: ModelConfig) -> int:
    """Number of weights P."""
    return sum(rows * cols for rows, cols in layer_shapes(model))


register_experiment(
    Experiment(
        name="dln/train",
        schema=TrainConfig,
        run_stack="dln.train:run_stack",
        check="dln.check:check",
        stack_width="dln.stacking:stack_width",
        replica_keys=frozenset(REPLICA_KEYS),
        version=2,  # 1 drew large online batches sample by sample
    )
)
