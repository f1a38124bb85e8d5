"""The baseline of benchmarks/framework.py: the toy experiment as one would write it for Hydra."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import II


@dataclass
class Model:
    width: int = 3
    scale: float = 1.0


@dataclass
class Config:
    """The keys of toy/trivial."""

    experiment: str = "toy/trivial"
    objective: Any = None
    device: str = "auto"
    threads: int | None = None
    model: Model = field(default_factory=Model)
    seed: int = 0
    steps: int = 3
    sleep: float = 0.0
    bad_seeds: list[int] = field(default_factory=list)
    diverging_seeds: list[int] = field(default_factory=list)
    label: str = II("model.width")
    params: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    added_later: int = 7


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg: Config) -> None:
    steps = np.arange(cfg.steps)
    loss = (cfg.model.scale * cfg.model.width / (1 + steps + cfg.seed)).astype(np.float32)
    result = {"final_loss": float(loss[-1]), "step": steps.tolist(), "loss": loss.tolist()}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
