"""Stacked optimizers: torch.optim's SGD, Adam and AdamW with a learning rate per replica."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dln.model import Factors
from dln.params import require_number
from dln.registry import register_optimizer

# Most samples whose gradient is added to a weight while it is being summed. BLAS sums long inner
# dimensions in blocks and rounds the weight after each: with 500 samples float32 curves of gph end
# 3 % off float64's, with the sum taken first 1e-5.
_FUSED_SAMPLES = 64


class _Optimizer:
    """Learning rates and per-weight states, all with the replicas as leading axis.

    The gradient of weight l is left^T right of its factors.
    """

    def __init__(self, weights: Sequence[Tensor], lr: Tensor):
        self.lr = lr.double()[:, None, None]  # [R, 1, 1]
        self.dtype = weights[0].dtype if weights else torch.float64
        self.states: dict[str, list[Tensor]] = {}
        self.scale_lr(1.0)

    def scale_lr(self, factor: float) -> None:
        """Multiply every learning rate; kept in float64, applied in the weights' dtype."""
        self.lr = self.lr * factor
        self.applied_lr = self.lr.to(self.dtype)

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on."""
        self.lr, self.applied_lr = self.lr[index], self.applied_lr[index]
        self.states = {name: [s[index] for s in state] for name, state in self.states.items()}


@register_optimizer("SGD")
class SGD(_Optimizer):
    """torch.optim.SGD: momentum, dampening, weight_decay, nesterov."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        lr: Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(weights, lr)
        self.momentum = require_number("momentum", momentum, 0)
        self.dampening = require_number("dampening", dampening)
        self.weight_decay = require_number("weight_decay", weight_decay, 0)
        self.nesterov = nesterov
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening 0, got momentum {momentum}, "
                f"dampening {dampening}"
            )

    def step(self, weights: Sequence[Tensor], factors: Factors) -> None:
        """Update the weights in place."""
        plain = not (self.momentum or self.weight_decay)
        if plain and factors[0][0].shape[1] <= _FUSED_SAMPLES:
            for W, (left, right) in zip(weights, factors, strict=True):
                W.baddbmm_((left * self.applied_lr).mT, right, alpha=-1)
            return
        gradients = _gradients(weights, factors, self.weight_decay)
        if self.momentum:
            gradients = self._with_momentum(gradients)
        for W, gradient in zip(weights, gradients, strict=True):
            W.addcmul_(gradient, self.applied_lr, value=-1)

    def _with_momentum(self, gradients: list[Tensor]) -> list[Tensor]:
        buffers = self.states.get("momentum")
        if buffers is None:  # the first buffer is the undamped gradient, as in torch
            buffers = self.states["momentum"] = [gradient.clone() for gradient in gradients]
        else:
            for buffer, gradient in zip(buffers, gradients, strict=True):
                buffer.mul_(self.momentum).add_(gradient, alpha=1 - self.dampening)
        if not self.nesterov:
            return buffers
        return [g.add_(b, alpha=self.momentum) for g, b in zip(gradients, buffers, strict=True)]


@register_optimizer("Adam")
class Adam(_Optimizer):
    """torch.optim.Adam: betas, eps, weight_decay (added to the gradient)."""

    decoupled = False  # whether weight_decay acts on the weights instead

    def __init__(
        self,
        weights: Sequence[Tensor],
        lr: Tensor,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(weights, lr)
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}")
        self.betas = tuple(require_number("betas", beta, 0, 1) for beta in betas)
        self.eps = require_number("eps", eps, 0)
        self.weight_decay = require_number("weight_decay", weight_decay, 0)
        self.n_updates = 0
        self.states = {name: [torch.zeros_like(W) for W in weights] for name in ("m", "v")}

    def step(self, weights: Sequence[Tensor], factors: Factors) -> None:
        """Update the weights in place."""
        self.n_updates += 1
        beta1, beta2 = self.betas
        rate = self.applied_lr / (1 - beta1**self.n_updates)
        root = math.sqrt(1 - beta2**self.n_updates)
        gradients = _gradients(weights, factors, 0.0 if self.decoupled else self.weight_decay)
        states = (self.states["m"], self.states["v"])
        for W, gradient, m, v in zip(weights, gradients, *states, strict=True):
            if self.decoupled and self.weight_decay:
                W.mul_(1 - self.applied_lr * self.weight_decay)
            m.lerp_(gradient, 1 - beta1)
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            W.sub_(m.div(v.sqrt().div_(root).add_(self.eps)).mul_(rate))


@register_optimizer("AdamW")
def adamw(
    weights: Sequence[Tensor],
    lr: Tensor,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Adam:
    """torch.optim.AdamW: as Adam, the decay taken from the weights and not from the gradient."""
    optimizer = Adam(weights, lr, betas, eps, weight_decay)
    optimizer.decoupled = True
    return optimizer


def _gradients(weights: Sequence[Tensor], factors: Factors, weight_decay: float) -> list[Tensor]:
    gradients = [torch.bmm(left.mT, right) for left, right in factors]
    if weight_decay:
        for W, gradient in zip(weights, gradients, strict=True):
            gradient.add_(W, alpha=weight_decay)
    return gradients
