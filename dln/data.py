"""Teachers and data sets: matrices D, rotations A = O^T D O, train and test samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dln.config import DataConfig, ModelConfig
from dln.params import require_int, require_number
from dln.registry import matrices, register_matrix
from dln.streams import Stream, torch_generator


@register_matrix("diagonal")
def diagonal(rows: int, cols: int, generator: torch.Generator, scale: float) -> Tensor:
    """diag(scale * i), i = 1..d, ascending."""
    return torch.diag(require_number("scale", scale) * _modes(rows, cols))


@register_matrix("power_law")
def power_law(
    rows: int, cols: int, generator: torch.Generator, scale: float, alpha: float
) -> Tensor:
    """diag(scale * i^-alpha), i = 1..d."""
    exponent = -require_number("alpha", alpha)
    return torch.diag(require_number("scale", scale) * _modes(rows, cols) ** exponent)


@register_matrix("power_law_topk")
def power_law_topk(
    rows: int, cols: int, generator: torch.Generator, scale: float, alpha: float, k: int
) -> Tensor:
    """diag(scale * i^-alpha for i <= k, else 0), 1 <= k <= d."""
    kept = _modes(rows, cols) <= require_int("k", k, 1, rows)
    return power_law(rows, cols, generator, scale, alpha) * kept


@register_matrix("identity")
def identity(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """The identity: A = O^T O = I."""
    return torch.diag(_modes(rows, cols) ** 0)


def _modes(rows: int, cols: int) -> Tensor:
    require_square(rows, cols)
    return torch.arange(1, rows + 1, dtype=torch.float64)


def require_square(out_dim: int, in_dim: int, section: str = "model") -> None:
    """ValueError naming both unless they are equal: the rotation O^T D O needs a square D."""
    if out_dim != in_dim:
        raise ValueError(
            f"{section}.out_dim={out_dim} differs from {section}.in_dim={in_dim}; "
            "the teacher O^T D O needs them equal"
        )


def make_matrix(
    params: dict, rows: int, cols: int, generator: torch.Generator | None = None
) -> Tensor:
    """D [rows, cols] float64 of `data.params`.

    Raises ValueError for a missing matrix, parameters that it refuses, or a D of another shape.
    """
    if "matrix" not in params:
        raise ValueError(
            f"data.params.matrix is missing; set it to one of {', '.join(matrices.names())}"
        )
    require_square(rows, cols)
    rest = {key: value for key, value in params.items() if key != "matrix"}
    D = matrices.resolve({"name": params["matrix"], "params": rest})(rows, cols, generator)
    if tuple(D.shape) != (rows, cols) or not D.isfinite().all():
        raise ValueError(
            f"matrix {params['matrix']!r} must return finite numbers of shape [{rows}, {cols}], "
            f"got shape {list(D.shape)}"
        )
    return D.double()


@dataclass
class Dataset:
    """What R replicas learn from and are measured on: U <= R sets, float64, rows are samples.

    Replicas of one data seed and noise level have one set.
    """

    which: Tensor  # the set of each replica, [R]
    rotation: Tensor  # O, [U, d, d]
    teacher: Tensor  # A = O^T D O, [U, o, d]
    projector: Tensor | None  # P = O^T diag(1_a, 0) O on the inputs, [U, d, d]; None: identity
    test_inputs: Tensor  # [U, N_test, d]
    test_targets: Tensor  # A x, never noisy, [U, N_test, o]
    train_inputs: Tensor | None  # [U, N, d]; None when online
    train_noise: Tensor | None  # [U, N, o]
    train_targets: Tensor | None  # A x + noise, [U, N, o]

    def keep(self, index: Tensor) -> None:
        """Only the replicas `index` go on."""
        self.which = self.which[index]

    def spread(self, values: Tensor) -> Tensor:
        """Values of the sets [U, ...] as values of the replicas [R, ...]; no copy where U = 1."""
        if len(values) == 1:
            return values.expand(len(self.which), *values.shape[1:])
        return values[self.which]


def make_dataset(
    data: DataConfig,
    model: ModelConfig,
    seeds: Sequence[int],
    noise_stds: Sequence[float],
    device: torch.device | str = "cpu",
) -> Dataset:
    """The data sets of R data seeds and noise levels.

    Test inputs, train inputs, noise and rotation have a stream each: none changes when another's
    size or level does.
    """
    d, o = model.in_dim, model.out_dim
    pairs = list(zip(seeds, noise_stds, strict=True))
    sets = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    which = torch.tensor([sets[pair] for pair in pairs], device=device)
    seeds = [seed for seed, _ in sets]
    D = {
        seed: make_matrix(data.params, o, d, torch_generator("dln/matrix", seed))
        for seed in set(seeds)
    }
    rotation = haar_rotations(seeds, d, device)
    stacked = torch.stack([D[seed] for seed in seeds]).to(device)
    teacher = rotation.mT @ stacked @ rotation
    projector = None
    if data.d_active is not None:
        active = torch.arange(d, device=device) < data.d_active
        projector = rotation.mT @ (active[:, None] * rotation)

    def draw_inputs(name: str, samples: int) -> Tensor:
        return project(draw(name, seeds, samples, d, device), projector)

    test_inputs = draw_inputs("dln/test_x", data.test_samples)
    inputs = noise = targets = None
    if not data.online:
        inputs = draw_inputs("dln/train_x", data.train_samples)
        std = torch.tensor([std for _, std in sets], dtype=torch.float64, device=device)
        if std.any():
            noise = draw("dln/train_noise", seeds, data.train_samples, o, device)
            noise *= std[:, None, None]
        else:
            noise = inputs.new_zeros(len(seeds), data.train_samples, o)
        targets = inputs @ teacher.mT + noise
    test_targets = test_inputs @ teacher.mT
    return Dataset(
        which, rotation, teacher, projector, test_inputs, test_targets, inputs, noise, targets
    )


def haar_rotations(seeds: Sequence[int], d: int, device: torch.device | str = "cpu") -> Tensor:
    """Haar-distributed O [R, d, d]: Q of a Gaussian matrix's QR, columns times sign(diag R).

    Without the signs Q is not uniform (Mezzadri 2007, "How to generate random matrices from the
    classical compact groups").
    """
    Q, R = torch.linalg.qr(draw("dln/rotation", seeds, d, d, device))
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    return Q * torch.where(diagonal < 0, -1.0, 1.0)[:, None, :]


def draw(
    name: str, seeds: Sequence[int], samples: int, dim: int, device: torch.device | str
) -> Tensor:
    """The first `samples` rows of a stream of standard normals: [R, samples, dim] float64."""
    normals = Stream(name, seeds, device).normals(0, samples * dim)
    return normals.reshape(len(seeds), samples, dim)


def project(inputs: Tensor, projector: Tensor | None) -> Tensor:
    """Inputs [*, N, d] times the symmetric projector [*, d, d]."""
    return inputs if projector is None else inputs @ projector
