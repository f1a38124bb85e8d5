"""The experiments in conf/: their names, header lines, and the keys that they have."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from plugins.experiment import CONF, families
from plugins.instances import node_at
from plugins.leaves import flatten
from plugins.registry import UnknownName, did_you_mean

# What Hydra says of an experiment's file with a slip, and the slip.
_SLIPS = {
    r"composing config:\s+Key 'FAMILY' not in": "its first line is not `# @package _global_`",
    r"BasicSweeperConf": "it has no `defaults: [/FAMILY/schema/..., /base, _self_]`",
    r"composing config:\s+Key .+ \(\w+\) is incompatible with \(str\)": (
        'an axis in hydra.sweeper.params stands in quotes: "0.75,1"'
    ),
}


def experiment_headers(config_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Config name ("dln/gph") -> lines of its header comment; `config_dirs` hold more."""
    return {
        f"{name}/{path.stem}": _header(path.read_text())
        for name, family in families().items()
        for conf in (family.conf, *config_dirs)
        for path in sorted((conf / name).glob("*.yaml"))
    }


def with_words(headers: Mapping[str, str], words: Sequence[str]) -> dict[str, str]:
    """The experiments in whose name or header all `words` are found, in any case.

    Raises UnknownName where there is none.
    """
    texts = {name: f"{name}\n{header}".lower() for name, header in headers.items()}
    found = {name: headers[name] for name in texts if all(w.lower() in texts[name] for w in words)}
    if found:
        return found
    known = {word for text in texts.values() for word in re.findall(r"\w{3,}", text)}
    lost = [word for word in words if not any(word.lower() in text for text in texts.values())]
    near = get_close_matches(lost[0].lower(), known) if lost else []
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    which = repr(lost[0]) if lost else f"all of {', '.join(map(repr, words))}"
    raise UnknownName(f"no experiment's name or header has {which}{hint}")


def refused(config_name: str | None, error: Exception) -> Exception:
    """Hydra's error; of a key that the experiment does not have one that names the nearest."""
    hint = config_name and _hint(config_name, error)
    return ValueError(hint) if hint else error


def axes_text(config_name: str) -> str:
    """A comment line per axis that an experiment's file has."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        params = compose(config_name, return_hydra_config=True).hydra.sweeper.params
    texts = {key: x if isinstance(x, str) else ",".join(map(str, x)) for key, x in params.items()}
    return "".join(f"# axis: {key}={text}\n" for key, text in texts.items())


def _hint(config_name: str, error: BaseException) -> str | None:
    """What is wrong with a key or its value; what an experiment's file lacks."""
    family = config_name.split("/")[0]
    for pattern, slip in _SLIPS.items():
        if re.search(pattern.replace("FAMILY", family), f"{error}\n{error.__cause__}"):
            return f"the file of {config_name}: {slip.replace('FAMILY', family)}"
    match = re.match(r"Could not override '(.+)'", str(error))
    if match is None:
        value = re.match(r"Error merging override (.+?)=(.*)", str(error))
        if value is None:
            return None
        if "ListConfig" in str(error.__cause__) and value[2][:1] != "[":
            return f"{value[1]} is a list: {value[1]}=[{value[2]}]"
        brackets = f"; an axis has none: {value[1]}={value[2].strip('[]')}"
        hint = brackets if value[2][:1] == "[" and "," in value[2] else ""
        return f"{value[1]}={value[2]}: {str(error.__cause__).splitlines()[0]}{hint}"
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name)
    except HydraException:  # a file of --config-dir
        return None
    if node_at(config, match[1]) is not None:  # there, but not this entry of it
        return None
    known = flatten(OmegaConf.to_container(config, resolve=False))
    return f"no key {match[1]!r} in {config_name}{did_you_mean(match[1], known)}"


def _header(text: str) -> str:
    """The comment below the file's first line, which is Hydra's."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines()[1:])
    return "\n".join(filter(None, (line.removeprefix("#").strip() for line in comment)))
