"""A stack of networks in training: weights, batches, optimizer and callbacks of R replicas."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import dln.callbacks
import dln.optimizers  # noqa: F401  (both register)
from dln import registry
from dln.clean_set import CleanSet
from dln.config import TrainConfig
from dln.context import EvalContext
from dln.criteria import Criterion, get_criterion
from dln.data import Dataset
from dln.loader import Batch, TrainSetLoader
from dln.metrics import evaluate, resolve_metrics
from dln.model import Factors, gradient_factors, init_weights
from dln.moments import Moments, moments_of, output_slope, squared_error
from dln.online import OnlineLoader


class Trainer:
    """What callbacks see. `columns` holds every replica key's R values.

    weights: W_l [R, n_{l+1}, n_l] of the replicas still in training.
    """

    def __init__(self, cfg: TrainConfig, columns: Mapping[str, Sequence], dataset: Dataset):
        self.cfg, self.dataset = cfg, dataset
        self.dtype = getattr(torch, cfg.dtype)
        self.criterion = get_criterion(cfg.training.criterion)
        self.weights = init_weights(
            cfg.model,
            columns["model.model_seed"],
            columns["model.gamma"],
            dataset.spread(dataset.rotation),
            dtype=self.dtype,
        )
        lr = torch.tensor(columns["training.lr"], dtype=torch.float64, device=dataset.which.device)
        spec = {"name": cfg.training.optimizer, "params": cfg.training.optimizer_params}
        self.optimizer = registry.optimizers.resolve(spec)(self.weights, lr)
        self.loader = _make_loader(cfg, columns, dataset, self.dtype)
        self._metrics = resolve_metrics(cfg.metrics)
        callbacks = [registry.callbacks.resolve(spec) for spec in cfg.callbacks]
        self._callbacks = [factory() for factory in callbacks]
        copies = 1 if len(dataset.teacher) == 1 else len(dataset.which)  # as `spread` makes
        self._test_set = CleanSet.of(dataset.test_inputs, dataset.teacher, copies)
        self._losses = {
            "test_loss": _SetLoss(
                self.criterion, dataset, dataset.test_inputs, dataset.test_targets, noise=None
            )
        }
        if cfg.training.track_train_loss:
            self._losses["train_loss"] = _SetLoss(
                self.criterion,
                dataset,
                dataset.train_inputs,
                dataset.train_targets,
                noise=dataset.train_noise,
            )
        self._spread()

    def set_batch_size(self, batch_size: int | None) -> None:
        """Batches of another size from the next one drawn on; None is the full batch."""
        self.loader.set_batch_size(batch_size)

    def scale_lr(self, factor: float) -> None:
        """Multiply every replica's learning rate from the next update on."""
        self.optimizer.scale_lr(factor)

    def call_back(self, step: int) -> None:
        """Let the callbacks act before the update `step`."""
        for callback in self._callbacks:
            callback(step, self)

    def update(self) -> None:
        """Draw a batch and move the weights."""
        self.optimizer.step(self.weights, self.gradient(self.loader.next_batch()))

    def gradient(self, batch: Batch | Moments) -> Factors:
        """The gradient of the batch's loss, as factors of each layer."""
        if isinstance(batch, Moments):
            return gradient_factors(
                self.weights, self._identity, lambda f: output_slope(f, self._teacher, batch)
            )
        return gradient_factors(
            self.weights, batch.inputs, lambda f: self.criterion.gradient(f, batch.targets)
        )

    def context(self) -> EvalContext:
        """What metrics see now, in float64."""
        weights = [W.double() for W in self.weights]
        return EvalContext(weights, self._samples, self.criterion)

    def losses(self, ctx: EvalContext) -> dict[str, Tensor]:
        """test_loss, and train_loss where it is tracked: [R] float64."""
        return {name: loss(ctx.product) for name, loss in self._losses.items()}

    def measure(self, ctx: EvalContext, seconds: dict[str, float]) -> dict[str, Tensor]:
        """The columns of the metrics; `seconds` gets what each of them took."""
        return evaluate(self._metrics, ctx, seconds=seconds)

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on; the data set has been told before."""
        self.weights = [W[index] for W in self.weights]
        self.loader.keep(index)
        self.optimizer.keep(index)
        self._spread()

    def _spread(self) -> None:
        """What each replica needs of its data set."""
        data = self.dataset
        self._samples = self._test_set.map(data.spread)
        self._teacher = data.spread(data.teacher).to(self.dtype)
        d = data.teacher.shape[-1]
        self._identity = torch.eye(d, dtype=self.dtype, device=data.which.device).repeat(
            len(data.which), 1, 1
        )


def make_columns(
    cfg: TrainConfig, keys: Sequence[str], replicas: Mapping[str, Sequence], n: int
) -> dict[str, list]:
    """The n values of every replica key: given ones, or n times cfg's own."""
    if unknown := set(replicas) - set(keys):
        raise ValueError(f"{sorted(unknown)} may not differ inside a stack of {cfg.experiment}")
    columns = {}
    for key in keys:
        section, name = key.split(".")
        values = replicas.get(key)
        columns[key] = [getattr(getattr(cfg, section), name)] * n if values is None else [*values]
        if len(columns[key]) != n:
            raise ValueError(f"{key} has {len(columns[key])} values for {n} runs")
    return columns


def resolve_device(device: str) -> torch.device:
    """`auto` is cuda when present, else cpu."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


class _SetLoss:
    """The loss of R networks E on a whole set; of a mean squared error by the set's moments."""

    def __init__(
        self,
        criterion: Criterion,
        dataset: Dataset,
        inputs: Tensor,
        targets: Tensor,
        *,
        noise: Tensor | None,
    ):
        self._criterion, self._dataset = criterion, dataset
        self._inputs, self._targets = inputs, targets
        noise = torch.zeros_like(targets) if noise is None else noise
        self._moments = moments_of(inputs, noise)
        self._noise_power = noise.square().sum((-2, -1)) / noise.shape[-2]

    def __call__(self, product: Tensor) -> Tensor:
        spread = self._dataset.spread
        if self._criterion.name == "MSELoss":
            moments = Moments(*map(spread, self._moments))
            D = product - spread(self._dataset.teacher)
            return squared_error(D, moments, spread(self._noise_power))
        return self._criterion(spread(self._inputs) @ product.mT, spread(self._targets))


def _make_loader(
    cfg: TrainConfig, columns: Mapping[str, Sequence], dataset: Dataset, dtype: torch.dtype
) -> TrainSetLoader | OnlineLoader:
    size, seeds, steps = cfg.training.batch_size, columns["training.batch_seed"], cfg.max_steps
    by_moments = cfg.training.criterion == "MSELoss"
    if cfg.data.online:
        return OnlineLoader(
            dataset,
            columns["data.noise_std"],
            size,
            seeds,
            steps,
            dtype=dtype,
            by_moments=by_moments,
        )
    return TrainSetLoader(dataset, size, seeds, steps, dtype=dtype, by_moments=by_moments)
