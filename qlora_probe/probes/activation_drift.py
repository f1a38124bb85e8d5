"""How far hidden states have moved from the base model's."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qlora_probe.activations import block_outputs
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("activation_drift")
@dataclass
class ActivationDrift:
    """Of the output h of each block, h0 with the adapters off, at each evaluation.

    drift: mean of ||h - h0|| / ||h0|| over the tokens of the held-out sequences, prompts included,
    but for the first of each. cka: linear CKA of the same tokens, 1 where h is h0 rotated and
    scaled (Kornblith et al. 2019); with fewer tokens than a state has numbers it is near 1
    whatever the states. The states of all blocks are kept at once, on the CPU.
    """

    def eval(self, trainer: Trainer) -> None:
        model, blocks = trainer.model, trainer.lm.blocks
        tuned = block_outputs(model, blocks, trainer.held_out)
        with model.disable_adapter():
            base = block_outputs(model, blocks, trainer.held_out)
        drift = [_drift(*pair) for pair in zip(tuned, base, strict=True)]
        cka = [linear_cka(*pair) for pair in zip(tuned, base, strict=True)]
        trainer.log(drift=float(np.mean(drift)))
        blocks = list(range(len(blocks)))
        trainer.add_rows("activation_drift", step=trainer.step, block=blocks, drift=drift, cka=cka)


def _drift(h: Tensor, h0: Tensor) -> float:
    return ((h - h0).norm(dim=1) / h0.norm(dim=1)).double().mean().item()


def linear_cka(X: Tensor, Y: Tensor) -> float:
    """||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred columns, 0 .. 1; X, Y [n, *]."""
    X, Y = (Z.double() - Z.double().mean(0) for Z in (X, Y))
    return ((Y.T @ X).norm() ** 2 / ((X.T @ X).norm() * (Y.T @ Y).norm())).item()
