"""Adam's two moments: their size, and whether the gradient still points where they do."""

from dataclasses import dataclass

import torch

from plugins.fields import at_least
from qlora_probe.optim import BETAS, EPS, moments
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer


@register_callback("adam_moments")
@dataclass
class AdamMoments:
    """Curves over all adapters, after the update: m_norm, sqrt_v_norm (norm of sqrt v), cos_m_g,
    adam_step (mean of |mhat| / (sqrt vhat + eps), the update in units of the learning rate).

    g is the clipped gradient, which m holds a tenth of: gradients that are independent of each
    other have a cosine of sqrt(1 - b1^2) = .44, a first gradient 1. State in 8 bits is
    dequantized. Nothing with sgd.
    """

    every: int = 1  # updates, >= 1

    def __post_init__(self):
        at_least(self, "every", 1)

    def stepped(self, trainer: Trainer) -> None:
        if trainer.cfg.optim.name == "sgd":
            return
        m_m = m_g = g_g = sum_v = steps = 0.0
        for p in trainer.parameters:
            m, v = (moment.double() for moment in moments(trainer.optimizer, p))
            g = p.grad.double()
            m_m += m.square().sum()
            m_g += (m * g).sum()
            g_g += g.square().sum()
            sum_v += v.sum()
            t = int(trainer.optimizer.state[p]["step"])
            m_hat, v_hat = m / (1 - BETAS[0] ** t), v / (1 - BETAS[1] ** t)
            steps += (m_hat.abs() / (v_hat.sqrt() + EPS)).sum()
        values = torch.stack(
            [
                m_m.sqrt(),
                sum_v.sqrt(),
                m_g / (m_m * g_g).sqrt(),
                steps / sum(p.numel() for p in trainer.parameters),
            ]
        )
        names = ("m_norm", "sqrt_v_norm", "cos_m_g", "adam_step")
        trainer.log(**dict(zip(names, values.tolist(), strict=True)))
