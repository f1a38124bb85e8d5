"""Checks across the fields of `compressor/trm` at planning time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from compressor.check import check_states
from compressor.config import rank_of, shape
from compressor.extract import check_site
from compressor.trm_config import RecursionConfig, TrmConfig, states_config


def check(cfg: TrmConfig, replicas: Mapping[str, Sequence]) -> None:
    """ValueError with the full key for what one field's own check cannot see."""
    if cfg.task != "depth":
        if cfg.trm.from_site != RecursionConfig.from_site:
            raise ValueError(f"trm.from_site={cfg.trm.from_site} needs task=depth, got {cfg.task}")
        if cfg.eval.downstream:
            raise ValueError(f"eval.downstream=true needs task=depth, got {cfg.task}")
    if cfg.task == "pairs":
        _check_pairs(cfg)
        return
    if cfg.lm.source == "synthetic":
        raise ValueError(f"task={cfg.task} needs sequences of a text, lm.source is synthetic")
    source = states_config(cfg)
    check_states(source)
    dim, n_blocks = shape(source) or (None, None)
    rank_of(cfg.model.d_compressed, cfg.model.ratio, dim)
    if cfg.task == "depth":
        check_from_site(cfg.trm.from_site, cfg.lm.site, n_blocks)


def check_from_site(from_site: str | None, site: str, n_blocks: int | None) -> None:
    """Raises ValueError unless the input's site comes before the target's."""
    if from_site is None:
        if n_blocks is None:
            return  # of a model on the hub: the run checks
        from_site = middle(n_blocks)
    try:
        check_site(from_site, n_blocks)
    except ValueError as error:
        raise ValueError(str(error).replace("lm.site", "trm.from_site", 1)) from None
    if not _place(from_site, n_blocks) < _place(site, n_blocks):
        raise ValueError(f"trm.from_site={from_site} must come before lm.site={site}")


def middle(n_blocks: int) -> str:
    """The site after half of the blocks."""
    return f"block_{max(1, n_blocks // 2)}"


def _place(site: str, n_blocks: int | None) -> float:
    """In the order of the states; pre_norm is after the last block."""
    last = n_blocks or 10**6
    if site == "post_norm":
        return last + 1
    return last if site == "pre_norm" else int(site.removeprefix("block_"))


def _check_pairs(cfg: TrmConfig) -> None:
    path = cfg.data.path
    if path is None or not Path(path).expanduser().is_file():
        raise ValueError(
            f"task=pairs needs data.path, a .npz file with arrays pre and post [n, L, D]; "
            f"data.path={path} is no file"
        )
    if cfg.train.init_from is not None:
        raise ValueError(
            f"train.init_from={cfg.train.init_from} needs task=depth or next, got pairs"
        )
    rank_of(cfg.model.d_compressed, cfg.model.ratio, None)
