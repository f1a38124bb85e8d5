"""Projectors: random linear maps P [D, d] from the subspace to the LoRA parameters.

They are part of the prior: their numbers follow from the stream that drew them, in float64 on the
CPU, and are then cast to float32, so they are the same on every device. Forward and adjoint give
the same bits each time, on a GPU too: gathers and sums in a fixed order, no atomic additions.
"""

from sublora.projectors import dense, fastfood, onehot, rdkronqr, sparse  # noqa: F401  registers
from sublora.projectors.make import check_shape, make_projector
from sublora.projectors.projector import Projector

__all__ = ["Projector", "check_shape", "make_projector"]
