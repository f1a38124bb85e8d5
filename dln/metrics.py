"""Evaluation of a record's metrics. Importing this registers the family's own.

A metric is (ctx, **params) -> Tensor [R], [R, k] for lists, or a dict of them; a bare tensor's
column has the metric's name. Law: metric(stack)[r] == metric(r alone).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dln import gradient_noise, hessian, norms, spectra  # noqa: F401  (they register)
from dln.context import EvalContext
from dln.registry import metrics
from plugins.registry import Registry, split_spec

NamedMetric = tuple[str, Callable[..., Any]]


def resolve_metrics(specs: Sequence[Any], kind: Registry = metrics) -> list[NamedMetric]:
    """(name, metric with its params bound) of each spec; raises UnknownName, ValueError."""
    return [(split_spec(spec)[0], kind.resolve(spec)) for spec in specs]


def columns_of(name: str, value: Any, replicas: int) -> dict[str, Tensor]:
    """What the metric `name` returned, as columns; ValueError unless they are [R] or [R, k]."""
    columns = dict(value) if isinstance(value, dict) else {name: value}
    for column, tensor in columns.items():
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        if not isinstance(tensor, Tensor) or tensor.ndim not in (1, 2) or shape[0] != replicas:
            raise ValueError(
                f"metric {name!r} must return tensors [R] or [R, k] with R = {replicas}, "
                f"got {shape} for {column!r}"
            )
    return columns


def evaluate(
    named: Sequence[NamedMetric], *contexts: EvalContext, seconds: dict[str, float] | None = None
) -> dict[str, Tensor]:
    """All columns of a record in request order; ValueError when two metrics make the same.

    A metric gets one context, a comparative one those of both networks. `seconds` gets what each
    metric took for the stack; what a context keeps for all metrics is the first one's.
    """
    values: dict[str, Tensor] = {}
    owner: dict[str, str] = {}
    for name, metric in named:
        start = time.perf_counter()
        columns = columns_of(name, metric(*contexts), len(contexts[0].inputs))
        add_owner(owner, name, columns)
        values |= columns
        if seconds is not None:
            if contexts[0].inputs.is_cuda:  # its kernels may not have ended
                torch.cuda.synchronize(contexts[0].inputs.device)
            seconds[name] = time.perf_counter() - start
    return values


def add_owner(owner: dict[str, str], name: str, columns: Sequence[str]) -> None:
    """Note that the metric `name` makes `columns`; ValueError when another made one of them."""
    for column in columns:
        if column in owner:
            raise ValueError(
                f"the column {column!r} comes from two metrics, {owner[column]!r} and {name!r}"
            )
        owner[column] = name
