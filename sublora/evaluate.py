"""Losses of a model on units of a data set: documents, blocks, single tokens; all in eval mode."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plugins.lm.ranks import ALONE, World

BATCH_TOKENS = 8192  # of a forward pass, padding included
BATCH_LOGITS = 2**25  # likewise: large vocabularies take fewer tokens
TOPS = (*range(1, 11), 50, 100)


@dataclass(frozen=True)
class Piece:
    """A window of tokens: the model reads ids[:-1], some of ids[1:] are scored."""

    ids: NDArray  # int64 [read + 1]
    places: NDArray  # int64 [scored], of what is scored, in 1..read
    units: NDArray  # int64 [scored], to which unit each counts


@dataclass(frozen=True)
class Losses:
    """Of every unit, means over its scored tokens: bits at alpha 0 and at each alpha; misses."""

    raw: NDArray  # [units] -log2 p
    smoothed: NDArray  # [alphas, units] -log2((1 - alpha) p + alpha / V)
    misses: NDArray  # [tops, units] share of tokens that are not among the k most likely
    tops: tuple[int, ...]  # k
    square_ranges: NDArray | None = None  # [alphas, units] (log2 max p / min p)^2 of the smoothed p


def document_pieces(
    documents: Iterable[NDArray], eot: int, block: int, stride: int
) -> Iterator[Piece]:
    """Documents after an EOT; of longer ones than the block the first block, then windows that
    move by `stride` (at most the block) and score what is new. The closing EOT is not scored."""
    stride = min(stride, block)
    for unit, document in enumerate(documents):
        ids = np.concatenate([[eot], document]).astype(np.int64)
        start, first = 0, 1  # of the window; the first token that is not scored yet
        while first < len(ids):
            end = min(start + block + 1, len(ids))
            places = np.arange(first - start, end - start)
            yield Piece(ids[start:end], places, np.full(len(places), unit))
            first, start = end, min(end + stride, len(ids)) - block - 1


def losses_of(
    model: nn.Module,
    pieces: Iterable[Piece],
    n_units: int,
    vocab: int,
    alphas: Sequence[float],
    *,
    with_ranges: bool = False,
    world: World = ALONE,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> Losses:
    """Outputs from `vocab` on are padding and get no probability. Sums in float64, in an order
    that the units alone decide: two evaluations give the same bits on a CPU. Each rank takes its
    share of the pieces."""
    tops = tuple(k for k in TOPS if k < vocab)
    n_rows = 1 + len(alphas) * (1 + with_ranges) + len(tops)
    sums = torch.zeros(n_rows, n_units, dtype=torch.float64)
    counts = torch.zeros(n_units, dtype=torch.float64)
    device = next(model.parameters()).device
    pieces = sorted(pieces, key=lambda piece: len(piece.ids))[world.rank :: world.size]
    was_training, done = model.training, 0
    model.eval()
    try:
        for batch in _batches(pieces, min(BATCH_TOKENS, BATCH_LOGITS // vocab)):
            values = _scored(model, batch, vocab, alphas, tops, with_ranges, device)
            units = torch.from_numpy(np.concatenate([piece.units for piece in batch]))
            sums.index_add_(1, units, values)
            counts.index_add_(0, units, torch.ones(len(units), dtype=torch.float64))
            done += len(batch)
            on_progress(done / len(pieces))
    finally:
        model.train(was_training)
    # gloo and nccl sum what is on their devices
    sums, counts = (world.sum(x.to(device)).cpu() for x in (sums, counts))
    means = (sums / counts).numpy()
    raw, smoothed, misses, ranges = np.split(means, np.cumsum([1, len(alphas), len(tops)]))
    return Losses(raw[0], smoothed, misses, tops, ranges if with_ranges else None)


def _batches(pieces: Sequence[Piece], n_tokens: int) -> Iterator[Sequence[Piece]]:
    """Neighbours of similar length, at most n_tokens with padding, or a single one."""
    at = 0
    while at < len(pieces):
        end = at + 1
        while end < len(pieces) and (end + 1 - at) * (len(pieces[end].ids) - 1) <= n_tokens:
            end += 1
        yield pieces[at:end]
        at = end


@torch.no_grad()
def _scored(
    model: nn.Module,
    batch: Sequence[Piece],
    vocab: int,
    alphas: Sequence[float],
    tops: Sequence[int],
    with_ranges: bool,
    device: torch.device,
) -> Tensor:
    """[1 + alphas + tops (+ alphas), tokens] float64 on the CPU, of the scored tokens in order."""
    length = max(len(piece.ids) for piece in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.int64)
    scored = torch.zeros(len(batch), length - 1, dtype=torch.bool)
    for row, piece in enumerate(batch):
        ids[row, : len(piece.ids)] = torch.from_numpy(piece.ids)
        scored[row, piece.places - 1] = True
    ids, where = ids.to(device), scored.to(device)
    # Causal: what pads a row at its end changes nothing before.
    logits = model(ids[:, :-1])[where][:, :vocab].float()
    targets = ids[:, 1:][where][:, None]
    log_p = torch.log_softmax(logits, -1)
    own = logits.gather(1, targets)
    # Of equal logits the lower id is the more likely one: a rule, for the ranks to be the same.
    ahead = (logits > own) | ((logits == own) & (torch.arange(vocab, device=device) < targets))
    rank = ahead.sum(1)
    own = log_p.gather(1, targets)[:, 0].double()
    rows = [-own / math.log(2), *_bits(own, alphas, vocab)]
    rows += [(rank >= k).double() for k in tops]
    if with_ranges:
        ends = (log_p.amin(1).double(), log_p.amax(1).double())
        least, most = (_bits(end, alphas, vocab) for end in ends)
        rows += [(a - b).square() for a, b in zip(least, most, strict=True)]
    return torch.stack(rows).cpu()


def _bits(log_p: Tensor, alphas: Sequence[float], vocab: int) -> list[Tensor]:
    """-log2((1 - alpha) p + alpha / V) for each alpha."""
    return [-torch.log2((1 - alpha) * log_p.exp() + alpha / vocab) for alpha in alphas]
