"""Rows of dln as load_sweep(..., params="all") returns them."""

from typing import Any

ALIGNED = {
    "model.in_dim": 2,
    "model.out_dim": 2,
    "model.num_hidden": 0,
    "model.hidden_dim": 4,
    "model.gamma": 1.0,
    "model.model_seed": 0,
    "model.init": "aligned",
    "data.train_samples": 100,
    "data.test_samples": 100,
    "data.data_seed": 0,
    "data.online": False,
    "data.noise_std": 0.0,
    "data.d_active": None,
    "data.params.matrix": "diagonal",
    "data.params.scale": 1,
    "data.params.alpha": None,  # of other rows' matrices
    "training.lr": 0.1,
    "training.batch_size": None,
    "training.optimizer": "SGD",
    "training.criterion": "MSELoss",
    "training.batch_seed": 0,
    "metrics": "[]",
    "callbacks": "[]",
    "dtype": "float64",
}


def row(curves: dict[str, list] | None, status: str = "ok", **changes: Any) -> dict[str, Any]:
    """A run with the config ALIGNED but for `changes` (`__` for dots); curves None: it failed."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    bookkeeping = {"run_id": "0123456789abcdef", "experiment": "dln/train", "status": status}
    return ALIGNED | changes | (curves or {"step": None}) | bookkeeping
