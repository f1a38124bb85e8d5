"""The default corpus: documents of a Markov chain, whose law and best possible score are known."""

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import entr

from sublora.streams import stream

N_SYMBOLS = 63
EOT = N_SYMBOLS
VOCAB = N_SYMBOLS + 1
END = 1 / 32  # probability that a document ends after a symbol
LONGEST = 64  # symbols
CHAIN_SEED = 0


class Score(NamedTuple):
    """Bits per token."""

    least: float  # of a model that puts nothing on EOT, which is never scored
    true_law: float  # of the law of train.bin, which ends a document with probability END


def transition(seed: int = CHAIN_SEED) -> tuple[np.ndarray, np.ndarray]:
    """(first [63], rows [63, 63]): of the first symbol, and of the next one given each.

    first is Zipf's law, p_k ~ 1/k; every row is Dirichlet(0.05 * 63 * first + 1e-3), of which a few
    symbols hold nearly all.
    """
    first = 1 / np.arange(1, N_SYMBOLS + 1)
    first /= first.sum()
    alpha = 0.05 * N_SYMBOLS * first + 1e-3
    return first, stream(seed, "markov", "chain").dirichlet(alpha, size=N_SYMBOLS)


def documents(n: int, generator: np.random.Generator) -> list[np.ndarray]:
    """n independent documents uint16 [length], without EOT; length = min(Geometric(1/32), 64) >= 1.

    The chain is always that of CHAIN_SEED: another generator gives fresh documents of one law.
    """
    first, rows = transition()
    lengths = np.minimum(generator.geometric(END, size=n), LONGEST)
    ids = np.empty((n, LONGEST), np.uint16)
    ids[:, 0] = _draw(first[None], generator.random(n))
    for t in range(1, LONGEST):
        alive = np.flatnonzero(lengths > t)
        ids[alive, t] = _draw(rows, generator.random(len(alive)), given=ids[alive, t - 1])
    return [row[:length] for row, length in zip(ids, lengths, strict=True)]


def entropy_rate(rows: np.ndarray) -> float:
    """Bits per symbol of the chain far from its start: sum_s pi(s) H(rows[s]), pi = pi rows.

    2.591 for the chain of CHAIN_SEED. Cover & Thomas, Elements of Information Theory, thm 4.2.4.
    """
    system = np.vstack([rows.T - np.eye(len(rows)), np.ones(len(rows))])
    pi = np.linalg.lstsq(system, np.eye(len(rows) + 1)[-1], rcond=None)[0]
    return float(pi @ _bits(rows))


def best_score(first: np.ndarray, rows: np.ndarray, unit: Literal["document", "token"]) -> Score:
    """What a perfect model scores on fresh documents, as the mean over documents or over tokens.

    Symbol x_t, t = 0..length-1, is scored given EOT x_0 .. x_{t-1}; the closing EOT is not. The
    length N is independent of the symbols, so x_t costs at least H_0 = H(first), H_t = sum_s
    (first rows^(t-1))(s) H(rows[s]), whatever is known of N. The mean is sum_t w_t H_t with

        documents, each the mean over its tokens:  w_t = E[1{N > t} / N]
        tokens:                                    w_t = P(N > t) / E[N]

    That is `least`. The true next-token law keeps 1/32 for EOT after each symbol but the last
    possible one, and nothing before the first, as no document is empty: each x_t with t > 0 costs
    it -log2(31/32) = 0.0458 bits more.
    """
    n = np.arange(1, LONGEST + 1)
    law = END * (1 - END) ** (n - 1)  # of N
    law[-1] = (1 - END) ** (LONGEST - 1)
    weights = (law / n if unit == "document" else law / (law @ n))[::-1].cumsum()[::-1]
    costs, pi = [_bits(first)], first
    for _ in range(1, LONGEST):
        costs.append(pi @ _bits(rows))
        pi = pi @ rows
    least = float(weights @ np.array(costs))
    return Score(least, least - float(np.log2(1 - END) * (1 - weights[0])))


def _draw(laws: np.ndarray, uniform: np.ndarray, given: np.ndarray | int = 0) -> np.ndarray:
    """[n] of laws[given] by inversion; never a symbol of probability 0."""
    below = laws.cumsum(1)
    below /= below[:, -1:]
    return (uniform[:, None] >= below[given]).sum(1)


def _bits(laws: np.ndarray) -> np.ndarray:
    """Entropies over the last axis."""
    return entr(laws).sum(-1) / np.log(2)
