"""What a prediction of codes is worth, and what the recursion has to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from compressor.trm_data import Task
from compressor.trm_net import flops_of

PENALTIES = tuple(10.0**p for p in range(-7, 3))  # of the inputs' mean square
VALIDATION = 0.2  # of the train sequences, for the choice among them
EQUAL_BLOCKS = 4  # of the plain net of as many operations as the recursion


@dataclass(frozen=True)
class Score:
    """Of one split. R^2 = 1 - SSE / SST pooled over positions and dimensions, SST about the train
    mean; cos: mean over positions of the cosine of whole codes, their mean included."""

    r2: float
    cos: float


def score(task: Task, predictions: Tensor, sequences: slice) -> Score:
    """`predictions` [n, L, k] of these sequences, normalised as the targets are."""
    mask = task.mask[sequences]
    found, true = (x[mask].double() for x in (predictions, task.targets[sequences]))
    r2 = 1 - (found - true).square().sum() / true.square().sum()
    return Score(r2.item(), cosine_similarity(task.codes(found), task.codes(true)).mean().item())


def ridge(task: Task) -> tuple[Tensor, float]:
    """Predictions [n, L, k] from the input code at the same position, and the penalty.

    W = (X^T X / N + alpha I)^-1 X^T Y / N about the train means; alpha by the squared error on the
    last fifth of the train sequences, from a fit on the others, then a fit on all.
    """
    n = task.n_train
    cut = n - max(1, round(VALIDATION * n))
    unit = _flat(task, 0, n)[0].square().mean().item()
    losses = []
    X, Y = _flat(task, cut, n)
    for penalty in PENALTIES:
        W, bias = fit_ridge(*_flat(task, 0, cut), penalty * unit)
        losses.append((X @ W + bias - Y).square().mean().item())
    best = PENALTIES[losses.index(min(losses))]
    W, bias = fit_ridge(*_flat(task, 0, n), best * unit)
    return (task.inputs.double() @ W + bias).float(), best


def fit_ridge(X: Tensor, Y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """W [d, k] and bias [k] of the least mean ||x W + bias - y||^2 + alpha ||W||^2."""
    mean_x, mean_y = X.mean(0), Y.mean(0)
    Xc, Yc = X - mean_x, Y - mean_y
    C = Xc.T @ Xc / len(X) + alpha * torch.eye(X.shape[1], dtype=X.dtype)
    W = torch.linalg.solve(C, Xc.T @ Yc / len(X))
    return W, mean_y - mean_x @ W


def equal_width(k: int, length: int, flops: float) -> int:
    """The even one with which a pass of a net of EQUAL_BLOCKS blocks is nearest to `flops`."""
    return min(
        range(2, 4096, 2),
        key=lambda width: abs(flops_of(k, width, EQUAL_BLOCKS, length) + 2 * k * k - flops),
    )


def _flat(task: Task, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [N, k] float64 of the sequences start..stop - 1."""
    mask = task.mask[start:stop]
    X, Y = task.inputs[start:stop][mask], task.targets[start:stop][mask]
    return X.double(), Y.double()
