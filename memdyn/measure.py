"""One measured epoch: what is memorized, how likely it is, and the geometry of hidden states."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memdyn import metrics as metrics  # registers them
from memdyn import registry
from memdyn.config import TrainConfig, measured_positions, prompt_length
from memdyn.data import Passages
from memdyn.records import Records
from memdyn.reproduction import extractable, reproduce, reproduction_columns, teacher_forced
from memdyn.states import LayerStates, Values, recording_states
from memdyn.theory import GROUPS
from plugins.lm.models import LM
from plugins.registry import split_spec

EXTRACTION_PROMPTS = (16, 32, 50)  # tokens


@dataclass
class Seconds:
    """Spent so far."""

    train: float = 0.0
    eval: float = 0.0
    geometry: float = 0.0


class Evaluation:
    """Measures a model on the passages of a run; made while the model is at epoch 0."""

    def __init__(self, cfg: TrainConfig, lm: LM, passages: Passages, eos: int | None):
        self.cfg, self.passages, self.eos = cfg, passages, eos
        self.ids = torch.from_numpy(passages.ids)
        self.positions = list(measured_positions(cfg))
        self.group = torch.arange(2).repeat_interleave(passages.n)
        self.metrics = {split_spec(spec)[0]: registry.metrics.resolve(spec) for spec in cfg.metrics}
        self.nan_states = 0
        self._at_start = self._forced(lm)

    def measure(self, lm: LM, epoch: int, records: Records, seconds: Seconds) -> None:
        """Append the epoch's rows to the tables passages, passage_layers and layers."""
        start = time.perf_counter()
        forced, states = self._forced(lm) if epoch else self._at_start
        scores = self._scores(lm, forced)
        middle = time.perf_counter()
        finite = torch.stack([s.isfinite().all(1).view(len(self.ids), -1) for s in states])
        self.nan_states += int((~finite).sum())
        is_whole = finite.all(2).all(0)
        records.append(
            "passages",
            {
                "epoch": epoch,
                "passage_id": np.arange(len(self.ids)),
                "doc_id": self.passages.doc_id,
                "group": [GROUPS[i] for i in self.group],
                "n_tokens": self.ids.shape[1],
                **scores,
                # the store has a column `status` of its own
                "geometry": ["ok" if ok else "nan_states" for ok in is_whole],
            },
        )
        for layer in range(len(states) - 1):
            self._geometry(states, layer, epoch, records)
        seconds.eval += middle - start
        seconds.geometry += time.perf_counter() - middle

    def _scores(self, lm: LM, forced: dict[str, Sequence]) -> dict[str, Sequence]:
        """Columns of the passages."""
        prompt, batch = prompt_length(self.cfg), self.cfg.eval_batch
        generated = self.ids[:, prompt:].clone()
        # A target whose every token is the likeliest after the true ones is generated as it is.
        is_wrong = torch.from_numpy(forced["tf_accuracy"] < 1)
        generated[is_wrong] = reproduce(lm.model, self.ids[is_wrong], prompt, batch=batch)
        extracted = {
            f"extractable_k{k}": extractable(lm.model, self.ids, k, batch=batch)
            for k in EXTRACTION_PROMPTS
        }
        nulls = [None] * len(self.ids)
        return (
            reproduction_columns(self.ids, generated, prompt, self.eos)
            | {name: nulls if hits is None else hits.tolist() for name, hits in extracted.items()}
            | forced
        )

    def _forced(self, lm: LM) -> tuple[dict[str, Sequence], list[Tensor]]:
        """Likelihoods and states, of the same pass."""
        with recording_states(lm, self.positions) as states:
            forced = teacher_forced(
                lm.model, self.ids, prompt_length(self.cfg), batch=self.cfg.eval_batch
            )
        return forced, [torch.cat(parts) for parts in states]

    def _geometry(self, states: Sequence[Tensor], layer: int, epoch: int, records: Records) -> None:
        X, Y = states[layer], states[layer + 1]
        is_broken = not (X.isfinite().all() and Y.isfinite().all())
        layer_states = LayerStates(
            X.nan_to_num(0, 0, 0),
            Y.nan_to_num(0, 0, 0),
            self._at_start[1][layer + 1],
            torch.arange(len(self.ids), device=X.device).repeat_interleave(len(self.positions)),
            self.group.to(X.device),
            self.cfg.k_neighbors,
        )
        where = {"epoch": epoch, "layer": layer}
        of_passages = {}
        for name, metric in self.metrics.items():
            values = metric(layer_states)
            if not isinstance(values, Values):
                kind = type(values).__name__
                raise TypeError(f"metric {name!r} returned a {kind}, not memdyn.states.Values")
            of_group = values.group * torch.nan if is_broken else values.group
            rows = {"group": list(GROUPS), "metric": name, "value": of_group.tolist()}
            records.append("layers", where | rows)
            if values.passage is not None:
                column = values.passage * torch.nan if is_broken else values.passage
                of_passages[name] = column.tolist()
        records.append(
            "passage_layers", where | {"passage_id": np.arange(len(self.ids))} | of_passages
        )
