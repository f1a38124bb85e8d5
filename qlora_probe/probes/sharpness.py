"""Curvature of the training loss, against the limits of stable learning rates."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plugins.fields import at_least
from qlora_probe.data import collate
from qlora_probe.hooks import looking
from qlora_probe.lanczos import extreme_eigenvalues, hessian_product, preconditioned
from qlora_probe.optim import BETAS, EPS, moments
from qlora_probe.registry import register_callback
from qlora_probe.theory import adam_limit, gradient_descent_limit
from qlora_probe.trainer import Trainer


@register_callback("sharpness")
@dataclass
class Sharpness:
    """Ends of the spectrum of the Hessian in all adapters' parameters, by Lanczos.

    Loss of the first n training sequences, the same ones each time, dropout off, before the
    update. sharpness is the top, not the eigenvalue of largest modulus: at B = 0 A's block of the
    Hessian is 0 and the gradient alone couples A to B, which gives eigenvalues of both signs and
    like size. sharpness_residual is the top's: an eigenvalue lies this near. Holds `steps` vectors
    of all adapters' parameters, and the graph of the n sequences.

    sharpness_preconditioned is the top of P^-1 H with P = sqrt(vhat) + eps as this update uses it,
    from the stored second moments and the clipped gradient. Not at an update where Adam starts
    from nothing: B = 0 gives A no gradient, and P would be eps. Compare sharpness with limit_gd for
    sgd, sharpness_preconditioned with limit_adam for Adam, both at this update's learning rate.
    """

    every: int = 10  # updates, >= 1
    steps: int = 20  # of Lanczos, two backward passes each, >= 1
    n: int = 8  # sequences, >= 1

    def __post_init__(self):
        for name in ("every", "steps", "n"):
            at_least(self, name, 1)

    def clipped(self, trainer: Trainer) -> None:
        lr = trainer.optimizer.param_groups[0]["lr"]
        with looking(trainer.model):
            loss = trainer.loss_of([collate(trainer.train_tokens[: self.n])])
            product = hessian_product(loss, trainer.parameters)
            n = sum(p.numel() for p in trainer.parameters)
            start = torch.randn(n, generator=torch.Generator().manual_seed(0))
            start = start.to(trainer.lm.device)
            found = extreme_eigenvalues(product, start, self.steps)
            trainer.log(
                sharpness=found.top,
                sharpness_bottom=found.bottom,
                sharpness_residual=found.residual[0],
                limit_gd=gradient_descent_limit(lr),
            )
            if all(trainer.optimizer.state.get(p) for p in trainer.parameters):
                p = torch.cat([_preconditioner(trainer, p) for p in trainer.parameters])
                found = extreme_eigenvalues(preconditioned(product, p), start, self.steps)
                trainer.log(sharpness_preconditioned=found.top, limit_adam=adam_limit(lr, BETAS[0]))


def _preconditioner(trainer: Trainer, parameter: nn.Parameter) -> Tensor:
    """sqrt(vhat) + eps [numel] of the update to come."""
    b2 = BETAS[1]
    _, v = moments(trainer.optimizer, parameter)
    v = b2 * v + (1 - b2) * parameter.grad.square()
    t = int(trainer.optimizer.state[parameter]["step"]) + 1
    return (v / (1 - b2**t)).sqrt().flatten() + EPS
