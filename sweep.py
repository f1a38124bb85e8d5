"""Run experiments: `python sweep.py -cn=<experiment> [key=value ...] [flags]`."""

import hydra
from omegaconf import DictConfig

from plugins.command_line import main


@hydra.main(config_path="conf", version_base="1.3")
def run(cfg: DictConfig) -> object:
    from plugins.worker import run_job  # not needed to show help or a config

    return run_job(cfg)


if __name__ == "__main__":
    main(run)
