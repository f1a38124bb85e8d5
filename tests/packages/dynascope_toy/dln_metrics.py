"""A third-party metric of the dln family that raises while a file says so."""

import os
from pathlib import Path

import torch

from dln.registry import register_metric


@register_metric("fragile_norm")
def fragile_norm(ctx, threshold: float = 0.0):
    """||E||_F; raises when a network of the stack is the one named in $DYNASCOPE_TOY_BAD."""
    norms = torch.linalg.matrix_norm(ctx.product)
    flag = os.environ.get("DYNASCOPE_TOY_BAD")
    if flag and Path(flag).exists() and norms.device.type != "meta":
        bad = float(Path(flag).read_text())
        if torch.any((norms - bad).abs() < 1e-6 * bad):
            raise RuntimeError(f"a network has norm {bad}")
    return norms
