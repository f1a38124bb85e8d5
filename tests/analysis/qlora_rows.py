"""Runs of qlora_probe by formula: their curves, scalars and tables, and stores that hold them."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from plugins.config_files import ConfigFile, write_config
from plugins.result import Curves, RunResult
from plugins.store import SweepWriter

STEPS = 20
EVAL_STEPS = (0, 10, 20)
INITIAL = 8.0
CLIP = 1.5
CATEGORIES = {"math": (4, 3, 1), "code": (2, 2, 2)}  # prompts, passed before, passed after


def result(
    final: float = 4.0, *, seed: int = 0, rank: int = 8, probes: bool = True, **scalars: Any
) -> RunResult:
    """A run whose losses go from 8 to `final`, on a straight line.

    The training loss is larger by .1 (seed + 1). Scalars are added to those by formula.
    """
    curves = Curves()
    for t in range(STEPS + 1):
        loss = INITIAL + (final - INITIAL) * t / STEPS
        values = {} if t == STEPS else {"train_loss": loss + 0.1 * (seed + 1)}
        if t in EVAL_STEPS:
            values["eval_loss"] = loss
        if probes:
            values |= _probes(t)
        curves.log(t, values)
    own = {
        "initial_eval_loss": INITIAL,
        "final_eval_loss": final,
        "reduction": 1 - final / INITIAL,
        "reduction_class": "strong",
        "overfit": False,
        "diverged": False,
        "lora_rank": rank,
        "forgetting_n": 6,
        "forgetting_change": -0.25,
        "forgetting_change_low": -0.5,
        "forgetting_change_high": 0.125,
        "forgetting_verdict": "significant",
        "forgetting_lost": 2,
        "forgetting_gained": 0,
        "forgetting_p": 0.25,
    }
    if probes:
        own |= {"clip_fraction": 0.5, "noise_scale": 100.0, "noise_batch": 16}
        own |= {"final_kl_to_base": 2.0, "first_update_norm": 0.25 * rank}
    tables = {"generations": generations(), **(_tables() if probes else {})}
    return RunResult(scalars=own | scalars, curves=curves.as_dict(), tables=tables)


def diverged(at: int = 5) -> RunResult:
    """Losses as those of `result` until the training loss of update `at` is infinite."""
    whole = result(probes=False)
    curves = {name: values[: at + 1] for name, values in whole.curves.items()}
    curves["train_loss"][at] = math.inf
    curves["eval_loss"][at] = math.nan
    scalars = {"initial_eval_loss": INITIAL, "lora_rank": 8, "diverged": True}
    return RunResult(scalars=scalars, curves=curves, status="diverged")


def generations(tuned: str = "trained") -> dict[str, list]:
    """CATEGORIES, and one prompt without a check, whose answers are hard on a Markdown table."""
    rows: dict[str, list] = {}
    for phase, adapter in (("base", "base"), ("tuned", tuned)):
        for category, (n, *passed) in CATEGORIES.items():
            for i in range(n):
                ok = i < passed[phase == "tuned"]
                _add(rows, phase, adapter, f"{category}_{i}", category, f"{adapter} says {i}", ok)
        hard = "a | b\n*c* <d> \\ $e$\x07" if phase == "tuned" else ""
        _add(rows, phase, adapter, "explain", "explain", hard, None)
    return rows


def _add(rows: dict, phase: str, adapter: str, id: str, category: str, response: str, ok) -> None:
    values = {
        "phase": phase,
        "adapter": adapter,
        "step": 0 if phase == "base" else STEPS,
        "prompt_id": id,
        "category": category,
        "prompt": f"Question {id}?",
        "response": response,
        "n_tokens": 3,
        "ended": True,
        "pass": ok,
        "matched": ok,
        "answer_logprob": None if ok is None else -1.0,
        "margin": None if ok is None else 0.5 if phase == "base" else -0.25,
    }
    for name, value in values.items():
        rows.setdefault(name, []).append(value)


def _probes(t: int) -> dict[str, float]:
    """Points of curves: those of an update at every fifth, those of an evaluation."""
    at_eval = {"kl_to_base": 0.1 * t} if t in EVAL_STEPS else {}
    if t == STEPS or t % 5:
        return at_eval
    values = at_eval | {
        "grad_norm": 3.0 - 0.15 * t,  # 3, 2.25, 1.5, .75
        "noise_g2": 10.0 - t,  # 10, 5, 0, -5
        "noise_s": 100.0 + t,
        "sharpness": 50.0 + t,
        "limit_gd": 55.0,
    }
    if t:
        values |= {"sharpness_preconditioned": 500.0, "limit_adam": 1000.0 - t}
    return values


def _tables() -> dict[str, Mapping[str, Sequence]]:
    at = np.linspace(-0.5, 1.5, 21).round(12)
    phases = {"base": 0.0, "tuned": 0.25}
    kinds = {"q": (4.0, 8.0), "up": (1.0, 1.0)}
    modules = [
        (f"{i}.{kind}_proj", kind, s) for kind, of in kinds.items() for i, s in enumerate(of)
    ]
    T = 3
    query, key = np.tril_indices(T)
    return {
        "landscape": {
            "direction": ["path"] * 21 + ["random"] * 21,
            "at": [*at, *at],
            "loss": [*(8 - 4 * at + 2 * at * (1 - at)), *([4.0] * 21)],
        },
        "line": {"at": [0.0, 0.5, 1.0], "loss": [4.0, 7.0, 5.0]},
        "activation_drift": {
            "step": [10, 10, 20, 20],
            "block": [0, 1, 0, 1],
            "drift": [0.1, 0.2, 0.3, 0.4],
            "cka": [0.9, 0.8, 0.7, 0.6],
        },
        "delta_rank": {
            "step": [0] * 4 + [20] * 4,
            "module": [name for name, *_ in modules] * 2,
            "kind": [kind for _, kind, _ in modules] * 2,
            "stable_rank": [0.0] * 4 + [1.0, 2.0, 3.0, 3.0],
            "effective_rank": [0.0] * 4 + [2.0, 4.0, 5.0, 5.0],
            "norm_ratio": [0.0] * 8,
        },
        "delta_spectrum": {
            "module": [name for name, *_ in modules for _ in range(2)],
            "kind": [kind for _, kind, _ in modules for _ in range(2)],
            "at": [0, 1] * 4,
            "value": [x for *_, s in modules for x in (s, s / 4)],
        },
        "attention_entropy": {
            "phase": [phase for phase in phases for _ in range(4)],
            "block": [0, 0, 1, 1] * 2,
            "head": [0, 1] * 4,
            "entropy": [x + more for more in phases.values() for x in (1.0, 1.1, 1.2, 1.3)],
        },
        "logit_lens": {
            "phase": ["base", "base", "tuned", "tuned"],
            "block": [0, 1] * 2,
            "nll": [9.0, 8.0, 6.0, 4.0],
        },
        "attention_maps": {
            "phase": [phase for phase in phases for _ in query],
            "prompt_id": ["held_$out_0"] * 2 * len(query),
            "block": [1] * 2 * len(query),
            "head": [0] * 2 * len(query),
            "query": [*query, *query],
            "key": [*key, *key],
            "query_token": [("$", "a b", "\n")[i] for i in query] * 2,
            "key_token": [("$", "a b", "\n")[i] for i in key] * 2,
            "weight": [*(1 / (query + 1)), *(key == 0).astype(float)],
        },
    }


def write(store: Path, *cells: tuple[Mapping[str, Any], RunResult | Exception]) -> list[str]:
    """A store with a run per cell, its values of the keys that vary and its outcome; their ids."""
    shared = {"experiment": "qlora_probe/train", "optim": {"clip": CLIP}}
    config = ConfigFile(shared, tuple(cells[0][0]), 1)
    write_config(store, config)
    provenance = dict.fromkeys(("host", "job", "code", "versions"))
    ids = []
    with SweepWriter(store, "plan", provenance | {"experiment": "qlora_probe/train"}) as writer:
        for index, (values, outcome) in enumerate(cells):
            ids.append(f"{index + 10:016x}")
            now = datetime.now(UTC)
            writer.append(index, ids[-1], config.config_id, dict(values), outcome, now, now, 1.0)
    return ids
