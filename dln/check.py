"""Checks across the fields of a config at planning time: bad input ends before any job starts.

Called once per stack, so what a config's plugins make of it is remembered by their specs.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

import dln.callbacks
import dln.optimizers  # noqa: F401  (both register)
from dln import registry
from dln.config import DataConfig, TrainConfig, TrainingConfig, layer_shapes
from dln.context import EvalContext
from dln.criteria import get_criterion
from dln.data import make_matrix, require_square
from dln.metrics import add_owner, columns_of, resolve_metrics
from plugins.registry import UnknownName
from plugins.result import RunResult

_SCALARS = ("n_params", "final_test_loss", "final_train_loss", "diverged_step")


def check(cfg: TrainConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see.

    Warns of batch seeds where no batches are drawn: their runs would be equal.
    """
    _check_data(cfg)
    _check_training(cfg.training)
    if cfg.data.online:
        _check_online(cfg)
    _check_callbacks(cfg)
    _check_metrics(cfg)
    size = cfg.training.batch_size
    drawn = cfg.data.online or (size is not None and size < cfg.data.train_samples)
    if "training.batch_seed" in replicas and not drawn and not cfg.callbacks:
        warnings.warn(
            f"training.batch_seed has no effect with training.batch_size={size or 'null'}: runs "
            "that differ in it alone are equal",
            stacklevel=2,
        )


def _check_data(cfg: TrainConfig) -> None:
    model, data = cfg.model, cfg.data
    require_square(model.out_dim, model.in_dim)
    with _prefixed(_matrix_key(data)):
        try:
            _remembered(_make_matrix, data.params, model.out_dim, model.in_dim)
        except UnknownName as error:
            if extra := re.search(r"has no parameter '(\w+)'", str(error)):
                raise UnknownName(f"{error}; ~data.params.{extra[1]} removes it") from None
            raise
    if data.d_active is not None and data.d_active > model.in_dim:
        raise ValueError(
            f"data.d_active={data.d_active} is above model.in_dim={model.in_dim}; "
            f"set it to 1..{model.in_dim} or null"
        )


def _matrix_key(data: DataConfig) -> str:
    known = data.params.get("matrix", "") in registry.matrices.names()
    return "data.params" if known or "matrix" not in data.params else "data.params.matrix"


def _check_training(training: TrainingConfig) -> None:
    if "lr" in training.optimizer_params:
        raise ValueError(
            f"training.optimizer_params has lr={training.optimizer_params['lr']}; "
            "the learning rate is training.lr"
        )
    with _prefixed("training.criterion"):
        get_criterion(training.criterion)
    known = training.optimizer in registry.optimizers.names()
    with _prefixed("training.optimizer_params" if known else "training.optimizer"):
        _remembered(_make_optimizer, training.optimizer, training.optimizer_params)


def _check_online(cfg: TrainConfig) -> None:
    if cfg.training.batch_size is None:
        raise ValueError(
            "training.batch_size=null needs data.online=false (fresh samples have no full batch); "
            "set training.batch_size to a positive integer"
        )
    if cfg.training.track_train_loss:
        raise ValueError(
            "training.track_train_loss=true needs data.online=false (there is no train set); "
            "set one of them to false"
        )


def _check_callbacks(cfg: TrainConfig) -> None:
    for i, spec in enumerate(cfg.callbacks):
        with _prefixed(f"callbacks[{i}]"):
            callback = _remembered(_make_callback, spec)
        for step, batch_size in getattr(callback, "schedule", {}).items():
            if batch_size is None and cfg.data.online:
                raise ValueError(
                    f"callbacks[{i}] sets batch_size=null at step {step}, which needs "
                    "data.online=false (fresh samples have no full batch)"
                )
            if step >= cfg.max_steps:
                warnings.warn(
                    f"callbacks[{i}] acts at step {step}, but max_steps={cfg.max_steps}: never",
                    stacklevel=2,
                )


def _check_metrics(cfg: TrainConfig) -> None:
    owner = dict.fromkeys(("step", "test_loss", *_SCALARS), "dln/train itself")
    if cfg.training.track_train_loss:
        owner["train_loss"] = "dln/train itself"
    shapes = tuple(layer_shapes(cfg.model))
    shape = (shapes, cfg.data.test_samples, cfg.training.criterion)
    for i, spec in enumerate(cfg.metrics):
        with _prefixed(f"metrics[{i}]"):
            name, columns = _remembered(_columns, spec, *shape)
            add_owner(owner, name, columns)


def _make_matrix(params: dict, rows: int, cols: int) -> None:
    make_matrix(params, rows, cols, torch.Generator())


def _make_optimizer(name: str, params: dict) -> None:
    make = registry.optimizers.resolve({"name": name, "params": params})
    make([], torch.zeros(1))


def _make_callback(spec: Any) -> Callable:
    return registry.callbacks.resolve(spec)()


def _columns(spec: Any, shapes: tuple, samples: int, criterion: str) -> tuple[str, list[str]]:
    """A metric's name and columns, found by running it on tensors without storage.

    Whatever a metric refuses with a ValueError is bad input. One that cannot run without numbers
    has unknown columns here; two of one name are then an error of the run.
    """
    [(name, metric)] = resolve_metrics([spec])

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(1, *shape, dtype=torch.float64, device="meta")

    weights = [empty(*shape) for shape in shapes]
    (_, d), (o, _) = shapes[0], shapes[-1]
    ctx = EvalContext(weights, empty(samples, d), empty(samples, o), get_criterion(criterion))
    with torch.no_grad():
        try:
            columns = columns_of(name, metric(ctx), 1)
        except (ValueError, TypeError):
            raise
        except Exception:  # of a metric that needs numbers; if it fails with them, so does its run
            return name, []
    RunResult(curves={"step": [], **{column: [] for column in columns}})  # names the store can hold
    return name, list(columns)


class _Frozen:
    """Arguments of a remembered call: equal when their text is, usable as a cache key."""

    def __init__(self, function: Callable, arguments: tuple):
        self.function, self.arguments = function, arguments
        self.key = (function, _registered(), repr(arguments))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.key == other.key


def _registered() -> tuple[int, ...]:
    """Changes when a plugin is registered."""
    kinds = (registry.metrics, registry.callbacks, registry.matrices, registry.optimizers)
    return tuple(len(kind.names()) for kind in kinds)


@lru_cache(maxsize=4096)
def _outcome(call: _Frozen) -> tuple[Any, Exception | None]:
    try:
        return call.function(*call.arguments), None
    except (ValueError, TypeError) as error:
        return None, error


def _remembered(function: Callable, *arguments: Any) -> Any:
    value, error = _outcome(_Frozen(function, arguments))
    if error is not None:
        raise error
    return value


@contextlib.contextmanager
def _prefixed(key: str) -> Iterator[None]:
    """Put the key before the message of a ValueError (its kind is kept) or TypeError."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = type(error) if isinstance(error, ValueError) else ValueError
        raise kind(f"{key}: {error}") from None
