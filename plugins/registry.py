"""Named plugins of a family: metrics, callbacks, matrices, ... by the name a config gives them."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable)


class UnknownName(ValueError):
    """A config names something that is not there."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about `name`: its nearest matches and everything that is known."""
    known = sorted(set(known))
    close = [key for key in known if key.endswith(f".{name}")]  # "lr" for "training.lr"
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"{hint} (known: {', '.join(known) or 'none'})"


class Registry(Generic[F]):
    """The plugins of one kind in one family.

    `given` names the arguments that the family's loop passes by position; the rest of a
    function's signature are its params, which a config may set.
    """

    def __init__(self, family: str, kind: str, given: tuple[str, ...] = ()):
        self.family, self.kind, self.given = family, kind, given
        self._functions: dict[str, F] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator. Raises ValueError when another function has the name already."""

        def add(function: F) -> F:
            taken = self._functions.get(name)
            if taken is not None and _place(taken) != _place(function):
                raise ValueError(
                    f"{self.family} has a {self.kind} {name!r} already: "
                    f"{_place(taken)} and {_place(function)} both register it"
                )
            self._functions[name] = function
            return function

        return add

    def names(self) -> list[str]:
        return sorted(self._functions)

    def resolve(self, spec: str | Mapping) -> F:
        """The function of `spec` with its params bound.

        `spec` is "name", {"name": name, "params": {...}} or {name: {...params}}.
        Raises UnknownName for an unknown name, ValueError for params that the signature refuses.
        """
        name, params = split_spec(spec)
        if name not in self._functions:
            raise UnknownName(
                f"{self.family} has no {self.kind} {name!r}{did_you_mean(name, self._functions)}"
            )
        function = self._functions[name]
        allowed = dict(list(inspect.signature(function).parameters.items())[len(self.given) :])
        open_ended = any(p.kind is p.VAR_KEYWORD for p in allowed.values())
        for key in params:
            if key not in allowed and not open_ended:
                raise UnknownName(
                    f"{self.kind} {name!r} has no parameter {key!r}{did_you_mean(key, allowed)}"
                )
        for key, parameter in allowed.items():
            variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if parameter.default is parameter.empty and not variadic and key not in params:
                raise ValueError(f"{self.kind} {name!r} needs the parameter {key!r}")
        return partial(function, **params)


def split_spec(spec: str | Mapping) -> tuple[str, dict]:
    """(name, params) of a plugin's spec in a config; ValueError when it is none of the forms."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping):
        if "name" in spec and set(spec) <= {"name", "params"} and isinstance(spec["name"], str):
            name, params = spec["name"], spec.get("params")
        elif len(spec) == 1:
            ((name, params),) = spec.items()
        else:
            name, params = None, None
        params = {} if params is None else params
        if isinstance(name, str) and isinstance(params, Mapping):
            return name, {str(key): value for key, value in params.items()}
    raise ValueError(
        f"{spec!r} names no plugin: write name, {{name: n, params: {{...}}}} or {{n: {{...}}}}"
    )


def _place(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def check_specs(key: str, specs: Sequence[str | Mapping], registry: Registry) -> None:
    """ValueError for a name that stands twice in the list `key`, or that `resolve` refuses."""
    names = [split_spec(spec)[0] for spec in specs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{key} has {', '.join(sorted(twice))} twice")
    for spec in specs:
        registry.resolve(spec)
