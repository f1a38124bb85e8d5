"""Rank and size of what the adapters have learnt, s B A."""

import torch
from torch import Tensor

from qlora_probe.lowrank import effective_rank, product_singular_values, stable_rank
from qlora_probe.model import Adapter, kind_of
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("delta_rank")
class DeltaRank:
    """Table delta_rank, at every held-out loss: of each module's s B A the stable and effective
    rank, and its Frobenius norm over that of W0; 0 as long as B is. Curves stable_rank,
    effective_rank, delta_norm_ratio: their means over modules.

    Table delta_spectrum: the singular values at the end, largest first, `at` 0-based.
    """

    def train_start(self, trainer: Trainer) -> None:
        adapters = trainer.lm.adapters.values()
        self.W0_norms = torch.stack([a.base_weight().double().norm().cpu() for a in adapters])

    def eval(self, trainer: Trainer) -> None:
        modules = trainer.lm.adapters
        spectra = [_singular_values(adapter) for adapter in modules.values()]
        ranks = [
            torch.stack([rank(s) if s.any() else s.new_zeros(()) for s in spectra])
            for rank in (stable_rank, effective_rank)
        ]
        norms = torch.stack([s.norm() for s in spectra]) / self.W0_norms
        trainer.add_rows(
            "delta_rank",
            step=trainer.step,
            module=list(modules),
            kind=[kind_of(name) for name in modules],
            stable_rank=ranks[0].tolist(),
            effective_rank=ranks[1].tolist(),
            norm_ratio=norms.tolist(),
        )
        trainer.log(
            stable_rank=ranks[0].mean().item(),
            effective_rank=ranks[1].mean().item(),
            delta_norm_ratio=norms.mean().item(),
        )

    def train_end(self, trainer: Trainer) -> None:
        for name, adapter in trainer.lm.adapters.items():
            values = _singular_values(adapter).tolist()
            trainer.add_rows(
                "delta_spectrum",
                module=name,
                kind=kind_of(name),
                at=list(range(len(values))),
                value=values,
            )


def _singular_values(adapter: Adapter) -> Tensor:
    """[r] float64, on the CPU; nan where the training has diverged, which has no spectrum."""
    A, B = adapter.A.detach(), adapter.B.detach()
    if not (A.isfinite().all() and B.isfinite().all()):
        return torch.full((len(A),), torch.nan, dtype=torch.float64)
    return product_singular_values(B, A, adapter.scale).cpu()
