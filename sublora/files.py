"""Files of a run: what it learned, its message, its config, its bound."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from numpy.typing import NDArray

from sublora.config import QuantConfig, TrainConfig

BEST, MESSAGE, CONFIG, METRICS = "best.pt", "message.bin", "config.yaml", "bounds_metrics.pt"
IN_METRICS = ("kl_divergence", "empirical_bpd", "bound_value", "compressed_size_bits")
# What a bound of a stored run must share with it: what the prior and the decoder know.
FIXED = ("seed", "data", "model", "subspace", "allocation")
_FREE = {"subspace": ("cache_mb",), "allocation": ("gate_init", "hard_from")}


@dataclass(frozen=True)
class Best:
    """The coordinates that are kept of a training; the random parts follow from the seed."""

    w: NDArray  # float32 [d]
    levels: NDArray | None  # float32 [codebooks, K], where they were trained with w
    gates: list[int] | None  # k_l
    step: int
    data_sha256: str  # of train.bin
    prior_sha256: str  # of the weights at w = 0
    config: dict[str, Any]  # complete

    def levels_for(self, quant: QuantConfig) -> NDArray | None:
        """The trained ones, if as many are asked for, of the same codebooks and method."""
        keys = ("method", "levels", "codebooks")
        is_same = all(self.config["quant"][key] == getattr(quant, key) for key in keys)
        return self.levels if is_same else None


def write_files(
    workdir: Path, cfg: TrainConfig, best: Best, message: bytes, row: Mapping[str, Any]
) -> list[Path]:
    """best.pt, message.bin, config.yaml and bounds_metrics.pt; returns their paths."""
    paths = [workdir / name for name in (BEST, MESSAGE, CONFIG, METRICS)]
    content = {
        "w": torch.from_numpy(best.w),
        "levels": None if best.levels is None else torch.from_numpy(best.levels),
        "gates": best.gates,
        "seed": cfg.seed,
        "step": best.step,
        "data_sha256": best.data_sha256,
        "prior_sha256": best.prior_sha256,
        "config": best.config,
    }
    torch.save(content, paths[0])
    paths[1].write_bytes(message)
    hashes = {"data_sha256": best.data_sha256, "prior_sha256": best.prior_sha256}
    config = {**hashes, "config": asdict(cfg)}
    paths[2].write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save({name: row[name] for name in IN_METRICS}, paths[3])
    return paths


def load_best(path: Path) -> Best:
    """Raises ValueError for a file that is damaged, or something else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        levels = content["levels"]
        return Best(
            content["w"].numpy(),
            None if levels is None else levels.numpy(),
            content["gates"],
            content["step"],
            content["data_sha256"],
            content["prior_sha256"],
            content["config"],
        )
    except Exception as error:  # torch raises what the damage provokes, of many types
        raise ValueError(f"{path} is no {BEST} of sublora: {error!r:.200}") from error


def find_best(cfg: TrainConfig, store: Path, prior_sha256: str) -> Best:
    """That of eval_from: a run_id of the store, or a file.

    Raises ValueError for one that is not there, damaged, or of another prior.
    """
    given = Path(cfg.eval_from).expanduser()
    paths = [store / "artifacts" / cfg.eval_from / BEST, given]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ValueError(
            f"eval_from={cfg.eval_from}: neither a run of {store} with a {BEST}, nor a file"
        )
    best = load_best(found[0])
    theirs, ours = _fixed(best.config), _fixed(asdict(cfg))
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise ValueError(
                f"eval_from={cfg.eval_from}: its {key} is {theirs.get(key)}, here it is {value}; "
                "what the decoder takes from the config cannot change"
            )
    check_prior(best.prior_sha256, prior_sha256)
    return best


def check_prior(theirs: str, ours: str) -> None:
    """ValueError for a message that was made from other initial weights."""
    if theirs != ours:
        raise ValueError(
            "the initial weights are not those of the run: the files of model.path, or the "
            "generators of numpy, have changed"
        )


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for section in FIXED:
        values = config[section] if isinstance(config[section], Mapping) else {"": config[section]}
        for name, value in values.items():
            if name not in _FREE.get(section, ()):
                found[f"{section}.{name}".rstrip(".")] = value
    return found


def read_config(path: Path) -> tuple[dict[str, Any], str, str]:
    """A run's config, the sha256 of its training set and of its prior, from its config.yaml."""
    try:
        content = yaml.safe_load(path.read_text())
        return content["config"], content["data_sha256"], content["prior_sha256"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no {CONFIG} of a run of sublora: {error!r:.200}") from error
