"""Config files of a store: the fixed part of a plan's configs, written once, read with the rows.

`configs/<config_id>.yaml` holds {version, varying: [keys], encoded: [keys], config: {...}}. The
full config of a row is `config` plus the row's columns named in `varying`.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plugins.atomic import publish_file
from plugins.leaves import set_leaf

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class ConfigFile:
    """The fixed part of some runs' configs (nested, resolved) and the keys that vary among them."""

    config: Mapping[str, Any]
    varying: tuple[str, ...]  # dotted keys, command-line order
    version: int  # Experiment.version
    encoded: tuple[str, ...] = ()  # those of `varying` that are mappings or lists: JSON text

    def full(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The nested config of a row: the fixed part and the row's varying keys."""
        config = copy.deepcopy(dict(self.config))
        for key in self.varying:
            value = row[key]
            if key in self.encoded and value is not None:
                value = json.loads(value)
            set_leaf(config, key, value)
        return config

    @property
    def config_id(self) -> str:
        """16 hex digits of blake2b over the content."""
        text = json.dumps([self.config, self.varying, self.version, self.encoded], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def write_config(store: Path, file: ConfigFile) -> None:
    """Write configs/<config_id>.yaml unless it is there; complete under its name or absent."""
    path = store / "configs" / f"{file.config_id}.yaml"
    if path.exists():
        return
    content = {
        "version": file.version,
        "varying": list(file.varying),
        "encoded": list(file.encoded),
        "config": dict(file.config),
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    publish_file(path, lambda aside: aside.write_text(text))


def read_config(store: Path, config_id: str) -> ConfigFile:
    """Raises FileNotFoundError, or ValueError naming a file whose content is not what its name
    says, as after a disk's error."""
    path = store / "configs" / f"{config_id}.yaml"
    try:
        content = yaml.load(path.read_text(), _Loader)
        file = ConfigFile(
            content["config"],
            tuple(content["varying"]),
            content["version"],
            tuple(content["encoded"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if file.config_id != config_id:
        raise _damaged(path)
    return file


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged. Delete it: the command that computed its runs, given again, writes it "
        "anew and computes nothing twice"
    )


def read_configs(store: Path) -> dict[str, ConfigFile]:
    """All config files of a store by id."""
    paths = sorted((store / "configs").glob("[!.]*.yaml"))
    return {path.stem: read_config(store, path.stem) for path in paths}
