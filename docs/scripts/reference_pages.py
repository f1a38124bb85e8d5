"""The pages of the reference, made from docstrings, schemas and the files of conf/.

Docstrings are left to mkdocstrings, which reads sources without importing them; schemas and the
public names of `analysis` are imported, which loads no torch.
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from plain_docstrings import escaped

from plugins.experiment import Experiment, experiments

FAMILIES = ("dln", "memdyn", "qlora_probe", "compressor", "sublora")
MACHINERY = (
    "plugins.api",
    "plugins.load",
    "plugins.merge",
    "plugins.status",
    "plugins.result",
    "plugins.experiment",
    "plugins.registry",
    "plugins.fields",
    "plugins.lm.corpora",
    "plugins.lm.callbacks",
)
THEORIES = ("theory.py", "*_theory.py", "theory/*.py", "bounds.py")


def pages(root: Path) -> dict[str, str]:
    """File name below reference/ -> its text."""
    found = {"api/plugins.md": _modules("Experiments, runs and stores", MACHINERY)}
    found["api/analysis.md"] = _public("Stores and figures", "analysis", "analysis.measured")
    for family in FAMILIES:
        found[f"api/analysis.{family}.md"] = _public(f"Figures of {family}", f"analysis.{family}")
        found[f"api/{family}.md"] = _modules(f"Inside {family}", _own_modules(root, family))
        found[f"experiments/{family}.md"] = experiments_page(root, family)
        found[f"keys/{family}.md"] = keys_page(family)
    return {"index.md": _index(found), **found}


def experiments_page(root: Path, family: str) -> str:
    """Every file of conf/<family>: what it asks, its command, what it sets."""
    parts = [f"# Experiments of {family}", f"Its keys: [all of them](../keys/{family}.md)."]
    for path in sorted((root / "conf" / family).glob("*.yaml")):
        _, *lines = path.read_text().splitlines()  # the first tells Hydra the package
        header = [line.removeprefix("#") for line in lines if line.startswith("#")]
        commands = [line.strip() for line in header if line.startswith("   ")]
        text = " ".join(line.strip() for line in header if not line.startswith("   "))
        settings = [line for line in lines if not line.startswith("#")]
        parts += [
            f"## {path.stem}",
            escaped(text),
            _block("bash", commands),
            _block("yaml", settings),
        ]
    return "\n\n".join(parts) + "\n"


def keys_page(family: str) -> str:
    """Every key of the family's experiments: type, default, and the comment beside it."""
    parts = [f"# Keys of {family}"]
    for experiment in experiments(family):
        parts += [f"## {experiment.name}", _about(experiment)]
        rows = [" | ".join(("", *row, "")).strip() for row in _keys(experiment.schema, "")]
        parts.append("\n".join(["| key | type | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _about(experiment: Experiment) -> str:
    stacked = ", ".join(f"`{key}`" for key in sorted(experiment.replica_keys))
    how = ", ".join(f"`{key}`" for key in sorted(experiment.execution_keys))
    together = f"Runs that differ in these alone train as one stack: {stacked}. " if stacked else ""
    return f"{together}These say how a run is computed, not what, and make no other run: {how}."


def _keys(schema: type, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, comment) of a schema's leaves."""
    sources = _sources(schema)
    for field in fields(schema):
        default = _default(field)
        section = default if isinstance(default, type) else type(default)
        if is_dataclass(section):
            yield from _keys(section, f"{prefix}{field.name}.")
            continue
        annotation, comment = sources[field.name]
        kind = annotation.replace(" | ", " or ").replace("None", "null")
        value = "required" if default == "???" else f"`{json.dumps(default)}`"
        yield f"`{prefix}{field.name}`", f"`{kind}`", value, escaped(comment.replace("|", "\\|"))


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _sources(schema: type) -> dict[str, tuple[str, str]]:
    """Field -> its annotation and its comment, at the end of its line or on the lines before."""
    found: dict[str, tuple[str, str]] = {}
    for owner in reversed(schema.__mro__):
        if owner is object or owner.__module__ == "types":  # made by make_dataclass: as its base
            continue
        text = textwrap.dedent(inspect.getsource(owner))
        lines = text.splitlines()
        for node in ast.parse(text).body[0].body:
            if isinstance(node, ast.AnnAssign):
                tail = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
                comment = tail.partition("#")[2].strip() or _above(lines[: node.lineno - 1])
                found[node.target.id] = (ast.unparse(node.annotation), comment)
    return found


def _above(lines: list[str]) -> str:
    """The comment that these lines end with."""
    comment: list[str] = []
    while lines and (line := lines[-1].strip()).startswith("#"):
        comment.insert(0, line.removeprefix("#").strip())
        lines = lines[:-1]
    return " ".join(comment)


def _own_modules(root: Path, family: str) -> list[str]:
    """A family's registry, schema, theory, and whatever registers a plugin."""
    names = {"registry.py", "config.py"}
    found = {path for pattern in THEORIES for path in (root / family).glob(pattern)}
    for path in (root / family).rglob("*.py"):
        if path.name in names or re.search(r"^@register_", path.read_text(), re.MULTILINE):
            found.add(path)
    modules = (path.relative_to(root).with_suffix("").parts for path in sorted(found))
    return [".".join(part for part in parts if part != "__init__") for parts in modules]


def _modules(title: str, modules: tuple[str, ...] | list[str]) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)]) + "\n"


def _public(title: str, *modules: str) -> str:
    """What the modules hand out, from where it is defined."""
    parts = [f"# {title}"]
    for name in modules:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", None) or _defined(module):
            made = getattr(module, public)
            parts.append(f"::: {made.__module__}.{made.__qualname__}")
            parts[-1] += "\n    options: {show_root_full_path: false}"
    return "\n\n".join(parts) + "\n"


def _defined(module: Any) -> list[str]:
    own = [name for name, made in vars(module).items() if inspect.getmodule(made) is module]
    return [name for name in own if not name.startswith("_")]


def _block(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _index(names: dict[str, str]) -> str:
    lines = ["# Reference", "", "Made from the sources when the site is built."]
    kinds = (
        ("api", "From Python"),
        ("experiments", "Experiments"),
        ("keys", "Keys of a config"),
    )
    for kind, title in kinds:
        lines += ["", f"## {title}", ""]
        own = [name for name in names if name.startswith(f"{kind}/")]
        lines += [f"- [{Path(name).stem if kind != 'api' else name[4:-3]}]({name})" for name in own]
    return "\n".join(lines) + "\n"
