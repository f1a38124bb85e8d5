"""The bound of a decoded model: its losses on units of the training set, and what they prove."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from plugins.lm.ranks import ALONE, World
from sublora.bounds import (
    bound,
    delta_range,
    guess_bits,
    guess_error,
    kl_nats,
    predictable_bound,
    price_bits,
)
from sublora.config import BoundConfig, TrainConfig
from sublora.dataset import Dataset
from sublora.evaluate import Losses, Piece, document_pieces, losses_of
from sublora.streams import stream

ASSUMPTIONS = {
    "document": "documents are independent and of one distribution",
    "sequence": "blocks of tokens are independent and of one distribution",
    "token": "none on the tokens; the risk is that of the training contexts, lengths given",
}


@dataclass(frozen=True)
class Sample:
    """The units that are evaluated: n of m."""

    pieces: Sequence[Piece]
    n: int
    m: int


def draw_sample(cfg: BoundConfig, data: Dataset, block: int) -> Sample:
    """Without replacement, from a stream apart from the training's. ValueError for n > m."""
    m = n_units(cfg.level, data, block)
    check_n(cfg, m, f"data.dir={data.folder}")
    rng = stream(cfg.sample_seed, "sample")
    chosen = np.sort(rng.choice(m, cfg.n, replace=False)) if cfg.n < m else np.arange(m)
    if cfg.level == "sequence":
        places = np.arange(1, block + 1)
        pieces = [
            Piece(
                data.train[i * block : (i + 1) * block + 1].astype(np.int64), places, places * 0 + j
            )
            for j, i in enumerate(chosen.tolist())
        ]
        return Sample(pieces, cfg.n, m)
    if cfg.level == "document":
        documents = (data.document(int(i)) for i in chosen)
        return Sample(list(document_pieces(documents, data.eot, block, cfg.stride)), cfg.n, m)
    documents = (data.document(i) for i in range(data.n_documents))
    return Sample(
        list(_tokens(document_pieces(documents, data.eot, block, cfg.stride), chosen)), cfg.n, m
    )


def check_n(cfg: BoundConfig, m: int, where: str) -> None:
    """ValueError for an n that m units do not allow."""
    if cfg.n > m:
        raise ValueError(f"bound.n={cfg.n} must be in 1..{m}, the {cfg.level}s of {where}")
    if cfg.delta_i == "predictable" and cfg.n < m:
        raise ValueError(f"bound.delta_i=predictable needs all tokens: bound.n={m}, got {cfg.n}")


def _tokens(pieces: Iterable[Piece], chosen: NDArray) -> Iterator[Piece]:
    """Pieces in which the chosen ones of all scored tokens, by their number in order, are units."""
    before = 0
    for piece in pieces:
        first, end = np.searchsorted(chosen, [before, before + len(piece.places)])
        if end > first:
            yield Piece(piece.ids, piece.places[chosen[first:end] - before], np.arange(first, end))
        before += len(piece.places)


def n_units(level: str, data: Dataset, block: int) -> int:
    """m."""
    if level == "sequence":
        return (len(data.train) - 1) // block
    return data.n_documents if level == "document" else int(data.doc_lengths.sum())


def measure(
    model: nn.Module,
    cfg: BoundConfig,
    sample: Sample,
    vocab: int,
    world: World = ALONE,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> Losses:
    return losses_of(
        model,
        sample.pieces,
        sample.n,
        vocab,
        cfg.alphas,
        with_ranges=cfg.delta_i == "predictable",
        world=world,
        on_progress=on_progress,
    )


def certify(
    losses: Losses, cfg: BoundConfig, sample: Sample, n_bits: int, vocab: int
) -> tuple[dict[str, Any], dict[str, list]]:
    """Columns of the row, and the table `alphas`.

    n_bits: L, of the message. Every bound holds with probability 1 - delta, each for itself: that
    in bits, and each of the top-k errors.
    """
    n_configs = math.log2(cfg.n_configs)
    search = n_configs + math.log2(len(cfg.alphas))
    kl = kl_nats(n_bits, search, cfg.price)
    risks = losses.smoothed.mean(1)
    ranges = delta_range(np.array(cfg.alphas), vocab)
    if cfg.delta_i == "predictable":
        squares = losses.square_ranges.mean(1)
        bounds = predictable_bound(risks, kl, sample.m, cfg.delta, ranges, squares)
    else:
        bounds = bound(risks, kl, sample.m, sample.n, cfg.delta, search, ranges)
    best = int(np.argmin(bounds))
    value = float(bounds[best])
    row = {
        "kl_divergence": float(kl),
        "empirical_bpd": float(risks[best]),
        "bound_value": value,
        "complexity": value - float(risks[best]),
        "alpha_best": float(cfg.alphas[best]),
        "bpd_raw": float(losses.raw.mean()),
        "compressed_size_bits": n_bits,
        "price_bits": float(price_bits(n_bits, cfg.price)),
        "search_bits": search,
        "m": sample.m,
        "n": sample.n,
        "vacuous": value >= guess_bits(vocab),
    }
    of_tops = kl_nats(n_bits, n_configs, cfg.price)
    for k, misses in zip(losses.tops, losses.misses, strict=True):
        error = misses.mean()
        proved = bound(error, of_tops, sample.m, sample.n, cfg.delta, n_configs, 1.0)
        row |= {f"err_top{k}": float(error), f"bound_top{k}": float(proved)}
        row[f"vacuous_top{k}"] = bool(proved >= guess_error(k, vocab))
    alphas = {
        "alpha": list(cfg.alphas),
        "risk": risks.tolist(),
        "delta_range": ranges.tolist(),
        "bound": bounds.tolist(),
    }
    return row, alphas


def why_invalid(cfg: TrainConfig, is_same_data: bool) -> str:
    """Why the numbers prove nothing; '' where they do."""
    if cfg.model.source == "hf" and not cfg.bound.prior_independent:
        return "the initial weights may have seen the training set (bound.prior_independent=false)"
    if cfg.bound.price == "paper":
        return "bound.price=paper: the prior over messages sums to more than 1"
    return "" if is_same_data else "the training set is not the one that the model was trained on"
