"""What theory says of a run: curves where it is exact, reference values elsewhere. No torch.

A config is the nested mapping of a stored run, as `analysis.load_sweep_config(store, run_id)`
returns it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dln.mode_theory import mode_growth, plateau_losses, stability_limit
from dln.noise_theory import aligned_gradient_noise

Config = Mapping[str, Any]


def predicted_curves(config: Config, steps: ArrayLike) -> dict[str, np.ndarray]:
    """Curves of a run from an aligned start, float64 [len(steps)], under their columns' names.

    test_loss, sv_{k}, effective_weight_norm = end_to_end_weight_norm, weight_norm, layer_norm_{l},
    gram_norm_{l}, balance_diff_{l} (0), grad_norm_squared, trace_gradient_covariance: gradient flow
    on the population, t = training.lr * step. steps >= 0, ascending.

    Measured curves are off, relative to a curve's largest value, by 0.3 to 0.8 lr / stability limit
    (Euler's error) and, for N train and N test samples, by up to 4 / sqrt(N) with one or two layers
    and 20 / sqrt(N) with four, the two gradient columns twice as much (gph's teacher, u0 = 0.3 to
    0.1): the samples' covariance mixes the modes, and the error grows with the wait for a mode,
    that is with depth and towards small u0 (30 / sqrt(N) for four layers at 0.01).
    Raises ValueError, naming the key, for a run for which this is no theory.
    """
    _require(config, _ALIGNED_FLOW)
    model, lr = config["model"], config["training"]["lr"]
    L, o, s = model["num_hidden"] + 1, model["out_dim"], _active_singular_values(config)
    c = model["hidden_dim"] ** (-model["gamma"] / 2)
    limit = stability_limit(np.append(s, c**L), n_layers=L, out_dim=o)
    if lr >= limit:
        raise ValueError(f"training.lr={lr} is not below 2 / sharpness = {limit:.6g}: no flow")
    growing = mode_growth(lr * np.asarray(steps, float), s, c**L, n_layers=L, out_dim=o)
    silent = np.full((len(growing), o - len(s)), c**L)  # no input reaches them
    u = -np.sort(-np.concatenate([growing, silent], 1), 1)
    norm = np.sqrt(np.square(u).sum(1))
    layer_norm, gram_norm = (np.sqrt((u ** (p / L)).sum(1)) for p in (2, 4))
    noise = aligned_gradient_noise(growing, s, n_layers=L, out_dim=o)
    return {
        "test_loss": np.square(growing - s).sum(1) / o,
        **{f"sv_{k}": u[:, k] for k in range(o)},
        "effective_weight_norm": norm,
        "end_to_end_weight_norm": norm,
        "weight_norm": math.sqrt(L) * layer_norm,
        **{f"layer_norm_{layer}": layer_norm for layer in range(L)},
        **{f"gram_norm_{layer}": gram_norm for layer in range(L)},
        **{f"balance_diff_{layer}": np.zeros(len(u)) for layer in range(L - 1)},
        **noise._asdict(),
    }


def reference_values(config: Config) -> dict[str, Any]:
    """What holds from any start, normal ones too: `plateau_losses` [k + 1] and `stability_limit`.

    The losses of the saddles with 0, 1, ..., k modes learned, k the modes with a signal (population
    values: a test set of N samples differs by O(sqrt(2/N)); a single layer has no saddles to stop
    at), and the learning rate 2 / sharpness above which no minimum is stable. ValueError for
    another criterion or optimizer.
    """
    _require(config, _PLAIN_GRADIENT)
    o, s = config["model"]["out_dim"], _active_singular_values(config)
    L = config["model"]["num_hidden"] + 1
    return {
        "plateau_losses": plateau_losses(s[s > 0], o),
        "stability_limit": stability_limit(s, n_layers=L, out_dim=o),
    }


def teacher_singular_values(config: Config) -> np.ndarray:
    """The diagonal of D [d], in its order. ValueError for a matrix of a plugin, or below zero."""
    params = dict(config["data"]["params"])
    name = params.pop("matrix")
    if name not in _TEACHERS:
        raise ValueError(f"data.params.matrix={name!r} is none of {', '.join(_TEACHERS)}")
    s = _TEACHERS[name](np.arange(1.0, config["model"]["in_dim"] + 1), **params)
    if (s < 0).any():
        raise ValueError(f"data.params.scale={params['scale']} must be >= 0")
    return s


_TEACHERS: dict[str, Callable[..., np.ndarray]] = {  # as the matrices of these names, i = 1..d
    "diagonal": lambda i, scale: scale * i,
    "power_law": lambda i, scale, alpha: scale * i**-alpha,
    "power_law_topk": lambda i, scale, alpha, k: scale * i**-alpha * (i <= k),
    "identity": lambda i: i**0,
}

_Requirement = tuple[str, Callable[[Any, Config], bool], str]  # key, whether it holds, accepted
_PLAIN_GRADIENT: list[_Requirement] = [
    ("experiment", lambda value, _: value == "dln/train", "dln/train"),
    ("training.criterion", lambda value, _: value == "MSELoss", "MSELoss"),
    ("training.optimizer", lambda value, _: value == "SGD", "SGD"),
    ("training.optimizer_params", lambda value, _: not any(value.values()), "{}"),
]
_ALIGNED_FLOW: list[_Requirement] = [
    *_PLAIN_GRADIENT,
    ("model.init", lambda value, _: value == "aligned", "aligned"),
    ("data.online", lambda value, _: not value, "false"),
    ("data.noise_std", lambda value, _: value == 0, "0"),
    (
        "training.batch_size",
        lambda value, config: value is None or value >= config["data"]["train_samples"],
        "null: the full batch",
    ),
    ("callbacks", lambda value, _: not value, "[]"),
]


def _require(config: Config, requirements: list[_Requirement]) -> None:
    for key, holds, accepted in requirements:
        value: Any = config
        for part in key.split("."):
            if part not in value:
                raise ValueError(f"the config has no {key}")
            value = value[part]
        if not holds(value, config):
            raise ValueError(f"no theory for {key}={value!r}; it needs {accepted}")


def _active_singular_values(config: Config) -> np.ndarray:
    """Of the modes that get a signal: the first data.d_active in D's order."""
    return teacher_singular_values(config)[: config["data"]["d_active"]]
