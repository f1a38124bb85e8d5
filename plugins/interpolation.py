"""Which leaves of a config read which keys through `${...}`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from plugins.axes import related

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_ANYTHING = "*"  # a key that is itself interpolated: may name any key


Reads = Mapping[str, set[str]]  # leaf -> keys that its interpolations may read


def reads_of(value: Any, key: str = "") -> Reads:
    """What the interpolating leaves of an unresolved value at `key` read; a list is one leaf."""
    reads: dict[str, set[str]] = {}
    for leaf, path, text in _texts(value, key, None):
        reads.setdefault(leaf, set()).update(references(text, path))
    return reads


def dependents(reads: Reads, roots: list[str]) -> list[str]:
    """Leaves that depend on keys in `roots`, also transitively; `roots` are not repeated.

    Relative references and the arguments of resolvers count; a reference whose key is itself
    interpolated may read anything.
    """
    found: list[str] = []
    grown = True
    while grown:
        grown = False
        for leaf, keys in reads.items():
            known = leaf in found or any(related(leaf, root) for root in roots)
            if not known and any(_meets(key, (*roots, *found)) for key in keys):
                found.append(leaf)
                grown = True
    return found


def references(text: str, path: str) -> set[str]:
    """Absolute keys that a string at `path` may read; {"*"} within when it may read any."""
    keys: set[str] = set()
    while match := _INNERMOST.search(text):
        inner = match[1]
        _, colon, arguments = inner.partition(":")
        names = re.split(r"[\s,:\[\]'\"]+", arguments) if colon else [inner]
        for name in names:
            if _ANYTHING in name:
                keys.add(_ANYTHING)
            elif name:
                keys.add(_absolute(name, path))
        text = text[: match.start()] + _ANYTHING + text[match.end() :]
    return keys


def _absolute(name: str, path: str) -> str:
    name = re.sub(r"\[([^\]]*)\]", r".\1", name)
    dots = len(name) - len(name.lstrip("."))
    if dots == 0:
        return name
    parents = path.split(".")[:-dots]
    return ".".join([*parents, name[dots:]])


def _meets(key: str, roots: tuple[str, ...]) -> bool:
    return key == _ANYTHING or any(related(key, root) for root in roots)


def _texts(node: Any, path: str, leaf: str | None) -> Iterator[tuple[str, str, str]]:
    """(leaf, full path, text) of every interpolating string; `leaf` is set inside a list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(value, f"{path}.{key}" if path else str(key), leaf)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _texts(value, f"{path}.{i}", leaf or path)
    elif isinstance(node, str) and "${" in node:
        yield leaf or path, path, node
