"""The projector of a group of LoRA parameters, by the name a config gives it."""

import inspect
from functools import partial

import numpy as np

from sublora.projectors.projector import Projector
from sublora.projectors.rdkronqr import fits
from sublora.registry import matrices

DENSE_QR_ENTRIES = 10**7  # up to this D*d, dense_qr stands in where rdkronqr has no room


def check_shape(kind: str, rows: int, cols: int, group: str) -> None:
    """ValueError when `kind` cannot give the `rows` parameters of `group` `cols` coordinates."""
    if cols > rows:
        raise ValueError(
            f"subspace.d gives group {group} {cols} coordinates, it has {rows} parameters; "
            "lower subspace.d"
        )
    if kind == "rdkronqr" and not fits(rows, cols) and rows * cols > DENSE_QR_ENTRIES:
        raise ValueError(
            f"subspace.projector=rdkronqr cannot give group {group} of {rows} parameters {cols} "
            f"coordinates: floor(sqrt({rows})) < ceil(sqrt({cols})), and dense_qr in its place "
            f"stops at D*d = {DENSE_QR_ENTRIES:,}; lower subspace.d or take onehot"
        )


def make_projector(
    kind: str, rows: int, cols: int, generator: np.random.Generator, cache_mb: float, group: str
) -> Projector:
    """The projector of `group` [rows, cols]; cache_mb (MiB) goes to the kinds that ask for it.

    Raises UnknownName for a kind that no one registered, ValueError as `check_shape`.
    """
    factory = matrices.resolve(kind)
    check_shape(kind, rows, cols, group)
    if "cache_mb" in inspect.signature(factory).parameters:
        factory = partial(factory, cache_mb=cache_mb)
    return factory(rows, cols, generator)
