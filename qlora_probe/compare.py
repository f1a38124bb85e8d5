"""Two adapters on the same prompts: the base and a stored one, or any two that are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.lm.tables import append_rows
from plugins.result import RunResult
from qlora_probe.config import TrainConfig
from qlora_probe.data import Tokens, collate, in_batches
from qlora_probe.line import losses_on_line
from qlora_probe.model import Adapted, adapted, base, with_adapter
from qlora_probe.prompts import prompts
from qlora_probe.responses import responses
from qlora_probe.theory import loss_barrier, measure_forgetting

PHASES = ("base", "tuned")
POINTS = 21  # of the line between two adapters


def compare(
    cfg: TrainConfig,
    workdir: Path,
    tokenizer: Any,
    held_out: Sequence[Tokens],
    device: torch.device,
) -> RunResult:
    """The two adapters of cfg.eval.adapters: the first is phase base of the table generations.

    Where both are adapters, table line has the held-out loss on the straight line from the first to
    the second, and scalar loss_barrier by how much it rises above its ends: within one basin it
    does not. Raises ValueError for an adapter that is not there or not of this config's shape.
    """
    folders = [_folder(name, workdir) for name in cfg.eval.adapters]
    asked = prompts(cfg.eval.suite, cfg.model.source)
    table, lm = {}, base(cfg, device)
    for phase, name, folder in zip(PHASES, cfg.eval.adapters, folders, strict=True):
        with with_adapter(lm.model, folder) as model:
            columns = responses(model, tokenizer, asked, max_new(cfg, device))
        append_rows(table, {"phase": phase, "adapter": name, "step": 0, **columns})
    scalars = {"model_sha256": lm.sha256(), "done_steps": 0, **forgotten(table)}
    tables = {"generations": table}
    if None not in folders:
        at = np.linspace(0, 1, POINTS).tolist()
        with adapted(cfg, tokenizer, device) as tuned:
            batches = [collate(batch) for batch in in_batches(held_out)]
            ends = [_stored(tuned, folder) for folder in folders]
            losses = losses_on_line(tuned, batches, *ends, at)
        tables["line"] = {"at": at, "loss": losses}
        scalars["loss_barrier"] = loss_barrier(at, losses)
    return RunResult(scalars=scalars, tables=tables)


def max_new(cfg: TrainConfig, device: torch.device) -> int:
    """Tokens of a response."""
    return cfg.eval.max_new or (256 if device.type == "cuda" else 64)


def forgotten(table: Mapping[str, Sequence]) -> dict[str, Any]:
    """Scalars over the prompts with a check; none without such, or without a second phase."""
    if not table:
        return {}
    rows = [
        (category, phase, ok)
        for category, phase, ok in zip(
            *(table[name] for name in ("category", "phase", "pass")), strict=True
        )
        if ok is not None
    ]
    before, after = ([row for row in rows if row[1] == phase] for phase in PHASES)
    if not before or not after:
        return {}
    found = measure_forgetting(
        [row[0] for row in before], [row[2] for row in before], [row[2] for row in after]
    )
    return {
        f"forgetting_{name.removeprefix('forgetting_')}": value
        for name, value in asdict(found).items()
    }


def _folder(name: str, workdir: Path) -> Path | None:
    """None for the base. A run's files lie beside those of the other runs of its store."""
    if name == "base":
        return None
    store = workdir.parent.parent
    for folder in (store / "artifacts" / name / "adapter", Path(name).expanduser()):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise ValueError(
        f"eval.adapters: {name!r} is neither base, nor a run of {store} with an adapter, nor a "
        "folder with adapter_config.json"
    )


def _stored(lm: Adapted, folder: Path) -> list[Tensor]:
    """Values of lm.parameters in a stored adapter."""
    from safetensors.torch import load_file

    stored = load_file(folder / "adapter_model.safetensors", device=str(lm.device))
    names = [f"base_model.model.{name}.lora_{AB}.weight" for name in lm.adapters for AB in "AB"]
    shapes = {name: p.shape for name, p in zip(names, lm.parameters, strict=True)}
    if shapes != {name: value.shape for name, value in stored.items()}:
        raise ValueError(f"eval.adapters: {folder} has not the lora.r and lora.targets of this run")
    return [stored[name] for name in names]
