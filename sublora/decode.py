"""`python -m sublora.decode message.bin`: the model and its bound, from the bits alone."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from sublora.certify import certify, draw_sample, measure, why_invalid
from sublora.codec import layout_of
from sublora.config import TrainConfig
from sublora.dataset import Dataset, check_meta
from sublora.evaluate import document_pieces, losses_of
from sublora.files import CONFIG, check_prior, read_config
from sublora.markov import EOT, VOCAB, documents
from sublora.message import n_bits_of, unpack
from sublora.model import dataset_of, make_module, set_coordinates
from sublora.streams import stream

_DESCRIPTION = """\
Rebuild the model of a run of sublora from its message.bin and the config.yaml beside it, evaluate
it on the same units of the training set, and print its bound with all digits.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sublora.decode", description=_DESCRIPTION)
    parser.add_argument("message", type=Path, help="message.bin of a run")
    parser.add_argument("--data-dir", help="the training set, where it lies elsewhere now")
    parser.add_argument(
        "--fresh",
        type=int,
        metavar="N",
        help="also the risk on N fresh documents, which the bound is one of: of the corpus markov",
    )
    parser.add_argument("--threads", type=int, help="of the processor (default: the run's)")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: at least 1")
    try:
        given = arguments.message, arguments.data_dir, arguments.threads, arguments.fresh
        print(decode(*given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def decode(
    path: Path,
    data_dir: str | None = None,
    threads: int | None = None,
    n_fresh: int | None = None,
) -> str:
    """What main prints. Raises ValueError for a damaged message, or other initial weights."""
    content = path.read_bytes()
    values, sha256, prior = read_config(path.with_name(CONFIG))
    try:
        schema = OmegaConf.structured(TrainConfig)
        cfg: TrainConfig = OmegaConf.to_object(OmegaConf.merge(schema, values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path.with_name(CONFIG)}: {str(error).splitlines()[0]}") from error
    if data_dir is not None:
        cfg.data = replace(cfg.data, dir=data_dir)
    if threads is not None or cfg.threads is not None:
        torch.set_num_threads(threads or cfg.threads)
    data = dataset_of(cfg)
    if n_fresh is not None:
        _check_fresh(n_fresh, cfg, data)
    module = make_module(cfg, data.vocab_size)
    check_prior(prior, module.prior_sha256())
    layout = layout_of(module.allotment, cfg.quant)
    message = unpack(content, layout)
    if message.gates is not None:
        module.harden(message.gates)
    set_coordinates(module, message.values(layout))
    sample = draw_sample(cfg.bound, data, cfg.model.block)
    losses = measure(module, cfg.bound, sample, data.vocab_size)
    row, _ = certify(losses, cfg.bound, sample, n_bits_of(content), data.vocab_size)
    lines = [f"{name}: {row[name]!r}" for name in ("bound_value", "empirical_bpd", "kl_divergence")]
    lines += [f"{name}: {row[name]}" for name in ("compressed_size_bits", "alpha_best", "m", "n")]
    if n_fresh is not None:
        lines.append(f"fresh_risk: {fresh_risk(module, cfg, n_fresh, row['alpha_best'])!r}")
    why = why_invalid(cfg, data.sha256 == sha256)
    return "\n".join([*lines, f"bound_valid: {not why}" + (f" ({why})" if why else "")])


def _check_fresh(n: int, cfg: TrainConfig, data: Dataset) -> None:
    if n < 1:
        raise ValueError(f"--fresh {n}: a number of documents, at least 1")
    if check_meta(data.folder).get("corpus") != "markov" or cfg.bound.level != "document":
        raise ValueError(
            f"--fresh needs bound.level=document and the corpus markov, whose documents can be "
            f"drawn; here are bound.level={cfg.bound.level} and {data.folder}"
        )


def fresh_risk(model: nn.Module, cfg: TrainConfig, n: int, alpha: float) -> float:
    """Mean loss on n documents of the Markov chain that no run has seen, bits a token."""
    drawn = documents(n, stream(0, "fresh"))
    pieces = document_pieces(drawn, EOT, cfg.model.block, cfg.bound.stride)
    return float(losses_of(model, pieces, n, VOCAB, (alpha,)).smoothed.mean())


if __name__ == "__main__":
    sys.exit(main())
