"""How far the predictions have moved from the base model's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from qlora_probe.data import IGNORED, Tokens, collate, in_batches
from qlora_probe.hooks import looking
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("kl_to_base")
@dataclass
class KLToBase:
    """Mean of KL(p_base || p_tuned), in nats, at each evaluation.

    Over the places where a target token of the held-out sequences is predicted, those of eval_loss:
    the base's own text is not asked for. The base is the model with its adapters off.
    """

    def eval(self, trainer: Trainer) -> None:
        kl = torch.cat([_divergences(trainer.model, b) for b in in_batches(trainer.held_out)])
        trainer.log(kl_to_base=kl.mean().item())
        if trainer.step == trainer.n_steps:
            trainer.scalars["final_kl_to_base"] = kl.mean().item()


@torch.no_grad()
def _divergences(model: nn.Module, sequences: Sequence[Tokens]) -> Tensor:
    """Of each target token, [n] float64."""
    ids, labels = (t.to(next(model.parameters()).device) for t in collate(sequences))
    is_target = labels[:, 1:] != IGNORED
    at = is_target.any(0).nonzero()[:, 0]
    arguments = {"input_ids": ids, "use_cache": False, "logits_to_keep": at}
    with looking(model):
        tuned = model(**arguments).logits
        with model.disable_adapter():
            base = model(**arguments).logits
    # float64: a divergence is of second order in what has changed, the rounding of ln p is not.
    rows = zip(base, tuned, is_target[:, at], strict=True)
    return torch.cat([_divergence(p[where], q[where]) for p, q, where in rows])


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL of softmax(p) and softmax(q), logits [n, V] -> [n]."""
    p, q = (logits.double().log_softmax(-1) for logits in (p, q))
    return kl_div(q, p, reduction="none", log_target=True).sum(-1)
