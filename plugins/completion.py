"""Shell completion: experiments and our flags; keys and their values are Hydra's."""

from collections.abc import Sequence

from plugins.overrides import COMPLETED_FLAGS, complete_name
from plugins.registry import UnknownName

_NAME_FLAGS = ("-cn", "--config-name")
_SWEPT = (",", "..", "(")  # in a value that Hydra would not compose as it stands


def candidates(line: str, experiments: Sequence[str]) -> list[str]:
    """Words that may end the command line `line`, if its last word is an experiment's or a flag."""
    *before, word = _arguments(line)
    flag, equals, start = word.partition("=")
    if equals and flag in _NAME_FLAGS:
        return [f"{flag}={name}" for name in _names(experiments) if name.startswith(start)]
    if before[-1:] and before[-1] in _NAME_FLAGS:
        return [name for name in _names(experiments) if name.startswith(word)]
    if word.startswith("-") or not (before or word):
        return [flag for flag in COMPLETED_FLAGS if flag.startswith(word)]
    return []


def hydra_line(line: str, experiments: Sequence[str]) -> tuple[str | None, str]:
    """The experiment that a command line names, None if there is none; the line as Hydra reads it.

    Left out are flags, which Hydra would refuse, and axes, which it would not compose.
    """
    *before, word = _arguments(line)
    name = None
    for flag, argument in zip(["", *before], before, strict=False):
        given, equals, value = argument.partition("=")
        if given in _NAME_FLAGS and equals:
            name = value
        elif flag in _NAME_FLAGS:
            name = argument
    try:
        name = complete_name(name, experiments) if name else None
    except UnknownName:
        name = None
    kept = [a for a in before if "=" in a and a[0] != "-" and not any(s in a for s in _SWEPT)]
    return name, " ".join(["python sweep.py", *kept, word])


def _arguments(line: str) -> list[str]:
    """What follows `python sweep.py`; the last word is empty after a space."""
    words = line.split()
    program = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
    return words[program + 1 :] + ([""] if line[-1:].isspace() or not words[program + 1 :] else [])


def _names(experiments: Sequence[str]) -> list[str]:
    """Whole names, and the short ones that are not ambiguous."""
    short = [name.split("/")[-1] for name in experiments]
    return [*experiments, *(name for name in short if short.count(name) == 1)]
