"""The compressor: a weight-tied linear map, its initial weights, its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor import inits as inits  # registers them
from compressor.config import ModelConfig, TrainConfig
from compressor.registry import matrices
from compressor.trm_config import TrmConfig

BEST = "best.pt"
_SMALL = 1e-2


@dataclass(frozen=True)
class Compressor:
    """z = (x - mu) W^T, xhat = mu + z W."""

    W: Tensor  # [k, D] float32
    mu: Tensor  # [D]; zeros where the states are not centred

    @property
    def k(self) -> int:
        return self.W.shape[0]

    @property
    def dim(self) -> int:
        return self.W.shape[1]

    def compress(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., k]."""
        return (states - self.mu) @ self.W.T

    def decompress(self, codes: Tensor) -> Tensor:
        """[..., k] -> [..., D]."""
        return self.mu + codes @ self.W

    def __call__(self, states: Tensor) -> Tensor:
        """xhat."""
        return self.decompress(self.compress(states))


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a run, and where its states come from."""

    compressor: Compressor
    config: dict[str, Any]  # of its run, complete
    run_id: str
    metrics: dict[str, float]


def save_best(path: Path, best: Best) -> None:
    """Appears complete, by a rename."""
    content = {
        "W": best.compressor.W,
        "mu": best.compressor.mu,
        "config": best.config,
        "run_id": best.run_id,
        "site": best.config["lm"]["site"],
        "metrics": best.metrics,
    }
    aside = path.with_suffix(".tmp")
    torch.save(content, aside)
    aside.rename(path)


def load_best(path: Path | str) -> Best:
    """Raises ValueError for a file that is not there, damaged, or something else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        compressor = Compressor(content["W"], content["mu"])
        return Best(compressor, content["config"], content["run_id"], content["metrics"])
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Exception as error:  # torch raises what the damage provokes, of many types
        raise ValueError(f"{path} is no checkpoint of a compressor: {error!r:.200}") from error


def initial_weights(model: ModelConfig, k: int, basis: Tensor, seed: int) -> Tensor:
    """W [k, D] float32; basis [D, D]: the states' eigenvectors, leading first."""
    generator = torch.Generator().manual_seed(seed)
    W = matrices.resolve(model.init)(k, len(basis), generator, basis)
    return (W * init_scale(model)).float()


def init_scale(model: ModelConfig) -> float:
    return model.init_scale or (_SMALL if model.init == "small" else 1.0)


def find_best(name: str, store: Path) -> tuple[Best, Path]:
    """The checkpoint that train.init_from names: a run_id of the store, a file, or its folder.

    Raises ValueError for one that is not there, or damaged.
    """
    given = Path(name).expanduser()
    for path in (store / "artifacts" / name / BEST, given, given / BEST):
        if path.is_file():
            return load_best(path), path
    raise ValueError(
        f"train.init_from={name}: neither a run of {store} with a {BEST}, nor a file, nor a folder "
        "with one"
    )


def continued(cfg: TrainConfig | TrmConfig, k: int, dim: int, store: Path) -> Compressor:
    """That of cfg.train.init_from; ValueError unless k, D, model.center and lm.site are its own."""
    best, path = find_best(cfg.train.init_from, store)
    config = best.config
    pairs = {
        "model.d_compressed": (best.compressor.k, k),
        "lm.dim": (best.compressor.dim, dim),
        "model.center": (config["model"]["center"], cfg.model.center),
        "lm.site": (config["lm"]["site"], cfg.lm.site),
    }
    for key, (found, expected) in pairs.items():
        if found != expected:
            raise ValueError(f"train.init_from={path}: its {key} is {found}, this run's {expected}")
    return best.compressor
