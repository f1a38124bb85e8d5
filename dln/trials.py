"""What a config's plugins make of it, tried at planning time and remembered by their specs.

Planning checks once per stack: a second trial of the same spec costs microseconds.
"""

import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

import dln.callbacks
import dln.comparative_metrics
import dln.optimizers  # noqa: F401  (all three register)
from dln import registry
from dln.clean_set import CleanSet
from dln.context import EvalContext
from dln.criteria import get_criterion
from dln.data import make_matrix
from dln.metrics import columns_of, resolve_metrics
from plugins.registry import Registry
from plugins.result import RunResult

Shapes = Sequence[tuple[int, int]]  # (n_{l+1}, n_l) of W_0 .. W_{L-1}


def remembered(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, or the ValueError or TypeError that it raised the first time."""
    value, error = _outcome(_Frozen(function, arguments))
    if error is not None:
        raise error
    return value


def matrix(params: dict, rows: int, cols: int) -> None:
    """ValueError for what the teacher refuses, or fails of."""
    try:
        make_matrix(params, rows, cols, torch.Generator())
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise _broken(params["matrix"], error) from None


def optimizer(name: str, params: dict) -> None:
    """ValueError or TypeError for what the optimizer refuses."""
    make = registry.optimizers.resolve({"name": name, "params": params})
    make([], torch.zeros(1))


def callback(spec: Any) -> Callable:
    """The callback of a spec; ValueError for what its factory refuses."""
    return registry.callbacks.resolve(spec)()


def metric_columns(
    spec: Any, shapes: Shapes, samples: int, criterion: str
) -> tuple[str, list[str]]:
    """A metric's name and columns for a network of these shapes."""
    return _columns(spec, registry.metrics, [_without_storage(shapes, samples, criterion)])


def comparative_columns(
    spec: Any, both_shapes: Sequence[Shapes], samples: int, criteria: Sequence[str]
) -> tuple[str, list[str]]:
    """A comparative metric's name and columns for two networks of these shapes."""
    contexts = [
        _without_storage(shapes, samples, criterion)
        for shapes, criterion in zip(both_shapes, criteria, strict=True)
    ]
    return _columns(spec, registry.comparative_metrics, contexts)


def _columns(spec: Any, kind: Registry, contexts: Sequence[EvalContext]) -> tuple[str, list[str]]:
    """Found by running the metric on tensors without storage.

    Whatever a metric refuses with a ValueError is bad input. One that cannot run without numbers
    has unknown columns here; two of one name are then an error of the run.
    """
    [(name, metric)] = resolve_metrics([spec], kind)
    with torch.no_grad():
        try:
            columns = columns_of(name, metric(*contexts), 1)
        except (ValueError, TypeError):
            raise
        except (NameError, AttributeError, ImportError) as error:
            raise _broken(name, error) from None
        except Exception:  # of a metric that needs numbers; if it fails with them, so does its run
            return name, []
    RunResult(curves={"step": [], **{column: [] for column in columns}})  # names the store can hold
    return name, list(columns)


def _broken(name: str, error: Exception) -> ValueError:
    """That a plugin raised something else than a refusal, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ValueError(
        f"{name!r} raised {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
    )


def _without_storage(shapes: Shapes, samples: int, criterion: str) -> EvalContext:
    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(1, *shape, dtype=torch.float64, device="meta")

    weights = [empty(*shape) for shape in shapes]
    (_, d), (o, _) = shapes[0], shapes[-1]
    samples = CleanSet.of(empty(samples, d), empty(o, d))
    return EvalContext(weights, samples, get_criterion(criterion))


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
    kinds = (
        registry.metrics,
        registry.comparative_metrics,
        registry.callbacks,
        registry.matrices,
        registry.optimizers,
    )
    return tuple(len(kind.names()) for kind in kinds)


@lru_cache(maxsize=4096)
def _outcome(call: _Frozen) -> tuple[Any, Exception | None]:
    try:
        return call.function(*call.arguments), None
    except (ValueError, TypeError) as error:
        return None, error
