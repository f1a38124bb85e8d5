"""Second moments: all that a mean squared error sees of samples whose teacher is linear.

With D = E - A and targets y = A x + z, everything about B samples is in S = X^T X / B and
X^T Z / B. D is what keeps precision: E S - Y^T X / B would cancel as E approaches A.
"""

from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """Of the samples of R replicas."""

    gram: Tensor  # S = X^T X / B, [R, d, d]
    cross: Tensor  # X^T Z / B, [R, d, o], Z the noise of the targets


def moments_of(inputs: Tensor, noise: Tensor) -> Moments:
    """Moments of samples X [*, B, d] with noise Z [*, B, o]."""
    scaled = inputs.mT / inputs.shape[-2]
    return Moments(scaled @ inputs, scaled @ noise)


def output_slope(outputs: Tensor, teacher: Tensor, moments: Moments) -> Tensor:
    """d loss / d outputs at the identity as inputs: [R, d, o].

    outputs = E^T. d loss / dE = (2/o) (D S - Z^T X / B), here transposed.
    """
    a = 2 / outputs.shape[-1]
    return moments.cross.baddbmm(moments.gram, outputs - teacher.mT, beta=-a, alpha=a)


def squared_error(D: Tensor, moments: Moments, noise_power: Tensor) -> Tensor:
    """Mean squared error per output entry [R] of D = E - A [R, o, d].

    (1/o) [tr(D S D^T) - 2 tr(D X^T Z / B) + ||Z||^2 / B]; noise_power = ||Z||^2 / B, [R].
    """
    quadratic = (D @ moments.gram - 2 * moments.cross.mT) * D
    return (quadratic.sum((-2, -1)) + noise_power) / D.shape[-2]
