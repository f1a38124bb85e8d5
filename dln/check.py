"""Checks across the fields of a config at planning time: bad input ends before any job starts."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dln import registry, trials
from dln.config import DataConfig, ModelConfig, TrainConfig, layer_shapes
from dln.criteria import get_criterion
from dln.data import require_square
from dln.metrics import add_owner
from plugins.registry import UnknownName


@dataclass(frozen=True)
class Keys:
    """What a network's sections are called in the config, and how its columns end."""

    model: str = "model"
    training: str = "training"
    metrics: str = "metrics"
    callbacks: str = "callbacks"
    suffix: str = ""


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see.

    Warns of batch seeds where no batches are drawn: their runs would be equal.
    """
    keys = Keys()
    check_data(cfg.data, cfg.model, keys)
    check_network(cfg, keys, run_columns(cfg))
    if "training.batch_seed" in replicas and not draws_batches(cfg):
        warn_of_equal_runs(cfg, keys)


def check_data(data: DataConfig, model: ModelConfig, keys: Keys) -> None:
    """ValueError unless a teacher can be made for the model."""
    require_square(model.out_dim, model.in_dim, keys.model)
    with prefixed(_matrix_key(data)):
        try:
            trials.remembered(trials.matrix, data.params, model.out_dim, model.in_dim)
        except UnknownName as error:
            if extra := re.search(r"has no parameter '(\w+)'", str(error)):
                raise UnknownName(f"{error}; ~data.params.{extra[1]} removes it") from None
            raise
    if data.d_active is not None and data.d_active > model.in_dim:
        raise ValueError(
            f"data.d_active={data.d_active} is above {keys.model}.in_dim={model.in_dim}; "
            f"set it to 1..{model.in_dim} or null"
        )


def check_network(cfg: TrainConfig, keys: Keys, owner: dict[str, str]) -> None:
    """ValueError for a network that cannot be trained; notes in `owner` which columns it makes."""
    _check_training(cfg, keys)
    if cfg.data.online:
        _check_online(cfg, keys)
    _check_callbacks(cfg, keys)
    _check_metrics(cfg, keys, owner)


def run_columns(cfg: TrainConfig) -> dict[str, str]:
    """Columns that a run has whatever its networks: column -> what makes it."""
    return dict.fromkeys(("step", "diverged_step"), f"{cfg.experiment} itself")


def draws_batches(cfg: TrainConfig) -> bool:
    """Whether the batch seed counts: from the start, or perhaps from a callback on."""
    size = cfg.training.batch_size
    in_part = size is not None and size < cfg.data.train_samples
    return cfg.data.online or in_part or bool(cfg.callbacks)


def warn_of_equal_runs(cfg: TrainConfig, keys: Keys) -> None:
    """Of runs that differ in a batch seed without effect."""
    size = cfg.training.batch_size or "null"
    warnings.warn(
        f"{keys.training}.batch_seed has no effect with {keys.training}.batch_size={size}: runs "
        "that differ in it alone are equal",
        stacklevel=3,
    )


@contextlib.contextmanager
def prefixed(key: str) -> Iterator[None]:
    """Put the key before the message of a ValueError (its kind is kept) or TypeError."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = type(error) if isinstance(error, ValueError) else ValueError
        raise kind(f"{key}: {error}") from None


def _matrix_key(data: DataConfig) -> str:
    known = data.params.get("matrix", "") in registry.matrices.names()
    return "data.params" if known or "matrix" not in data.params else "data.params.matrix"


def _check_training(cfg: TrainConfig, keys: Keys) -> None:
    training = cfg.training
    if "lr" in training.optimizer_params:
        raise ValueError(
            f"{keys.training}.optimizer_params has lr={training.optimizer_params['lr']}; "
            f"the learning rate is {keys.training}.lr"
        )
    with prefixed(f"{keys.training}.criterion"):
        get_criterion(training.criterion)
    known = training.optimizer in registry.optimizers.names()
    with prefixed(f"{keys.training}.{'optimizer_params' if known else 'optimizer'}"):
        trials.remembered(trials.optimizer, training.optimizer, training.optimizer_params)


def _check_online(cfg: TrainConfig, keys: Keys) -> None:
    if cfg.training.batch_size is None:
        raise ValueError(
            f"{keys.training}.batch_size=null needs data.online=false (fresh samples have no full "
            f"batch); set {keys.training}.batch_size to a positive integer"
        )
    if cfg.training.track_train_loss:
        raise ValueError(
            f"{keys.training}.track_train_loss=true needs data.online=false (there is no train "
            "set); set one of them to false"
        )


def _check_callbacks(cfg: TrainConfig, keys: Keys) -> None:
    for i, spec in enumerate(cfg.callbacks):
        key = f"{keys.callbacks}[{i}]"
        with prefixed(key):
            callback = trials.remembered(trials.callback, spec)
        for step, batch_size in getattr(callback, "schedule", {}).items():
            if batch_size is None and cfg.data.online:
                raise ValueError(
                    f"{key} sets batch_size=null at step {step}, which needs "
                    "data.online=false (fresh samples have no full batch)"
                )
            if step >= cfg.max_steps:
                warnings.warn(
                    f"{key} acts at step {step}, but max_steps={cfg.max_steps}: never",
                    stacklevel=2,
                )


def _check_metrics(cfg: TrainConfig, keys: Keys, owner: dict[str, str]) -> None:
    own = ["test_loss", "n_params", "final_test_loss", "final_train_loss"]
    own += ["train_loss"] if cfg.training.track_train_loss else []
    owner |= {f"{column}{keys.suffix}": f"{cfg.experiment} itself" for column in own}
    network = (tuple(layer_shapes(cfg.model)), cfg.data.test_samples, cfg.training.criterion)
    for i, spec in enumerate(cfg.metrics):
        with prefixed(f"{keys.metrics}[{i}]"):
            name, columns = trials.remembered(trials.metric_columns, spec, *network)
            add_owner(owner, name, [f"{column}{keys.suffix}" for column in columns])
