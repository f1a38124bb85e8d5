"""Which token is scored in which context, and its losses, against slow loops."""

import numpy as np
import pytest
import torch
from sublora_cases import config, module_of, set_random
from torch import nn

from sublora.evaluate import BATCH_TOKENS, TOPS, Piece, document_pieces, losses_of

EOT = 63
ALPHAS = (1e-4, 0.1, 0.5)


def tokens(length, seed=0):
    return np.random.default_rng(seed).integers(EOT, size=length).astype(np.uint16)


# pieces


def contexts(pieces):
    """{(unit, scored token's place in its document): what is read before it} and no token twice."""
    found = {}
    for piece in pieces:
        assert piece.ids.dtype == np.int64
        assert len(piece.places) == len(piece.units) > 0
        for place, unit in zip(piece.places.tolist(), piece.units.tolist(), strict=True):
            earlier = sum(1 for u, _ in found if u == unit)
            assert (unit, earlier) not in found
            found[unit, earlier] = piece.ids[:place].tolist(), int(piece.ids[place])
    return found


def slow_contexts(documents, block, stride):
    """The first `block` tokens after EOT are read from EOT on; then each window ends `stride`
    tokens after the one before, or with the document, and reads `block` tokens."""
    found = {}
    for unit, document in enumerate(documents):
        ids = [EOT, *document.tolist()]
        ends = [block]
        while ends[-1] < len(document):
            ends.append(min(ends[-1] + min(stride, block), len(document)))
        for t in range(1, len(ids)):
            end = next(end for end in ends if end >= t)
            found[unit, t - 1] = ids[max(0, end - block) : t], ids[t]
    return found


@pytest.mark.parametrize("stride", [1, 3, 8, 100])
def test_every_token_is_scored_once_in_the_context_that_the_rule_says(stride):
    block = 8
    documents = [tokens(n, n) for n in (1, 2, 7, 8, 9, 10, 11, 12, 16, 17, 24, 25, 40)]
    pieces = list(document_pieces(documents, EOT, block, stride))
    assert contexts(pieces) == slow_contexts(documents, block, stride)
    assert max(len(piece.ids) for piece in pieces) == block + 1


def test_documents_begin_after_eot_and_their_closing_eot_is_not_scored():
    [piece] = document_pieces([tokens(5)], EOT, 8, 3)
    assert piece.ids.tolist() == [EOT, *tokens(5)]
    assert piece.ids[piece.places].tolist() == tokens(5).tolist()
    assert not (piece.ids[piece.places] == EOT).any()


def test_later_windows_are_full():
    """Never less context than the block has room for."""
    pieces = list(document_pieces([tokens(21)], EOT, 8, 5))
    assert [len(piece.ids) for piece in pieces] == [9, 9, 9, 9]
    assert [len(piece.places) for piece in pieces] == [8, 5, 5, 3]
    assert pieces[-1].ids.tolist() == tokens(21)[-9:].tolist()


# losses


class Rounded(nn.Module):
    """Logits of a network as integers: many are equal."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, ids):
        return self.net(ids).round()


@pytest.fixture(scope="module")
def module(folder):
    made = module_of(config(folder, model={"init_std": 0.3}))
    set_random(made)
    return made


@torch.no_grad()
def slow_losses(model, pieces, n_units, vocab, alphas):
    """One token at a time, in float64: [1 + alphas + tops + alphas, units]."""
    tops = [k for k in TOPS if k < vocab]
    sums = np.zeros((1 + 2 * len(alphas) + len(tops), n_units))
    counts = np.zeros(n_units)
    for piece in pieces:
        for place, unit in zip(piece.places, piece.units, strict=True):
            logits = model(torch.from_numpy(piece.ids[None, :place]))[0, -1, :vocab].double()
            p = torch.softmax(logits, 0).numpy()
            target = piece.ids[place]
            by_rank = sorted(range(vocab), key=lambda i: (-logits[i].item(), i))
            mixed = [(1 - a) * p + a / vocab for a in alphas]
            rows = [-np.log2(p[target]), *(-np.log2(q[target]) for q in mixed)]
            rows += [target not in by_rank[:k] for k in tops]
            rows += [np.log2(q.max() / q.min()) ** 2 for q in mixed]
            sums[:, unit] += rows
            counts[unit] += 1
    return sums / counts


@pytest.mark.parametrize("vocab", [64, 63, 40])
@pytest.mark.parametrize("is_rounded", [False, True])
def test_losses_are_those_of_a_loop_over_tokens(module, is_rounded, vocab):
    """float32 logits: 1e-5. Fewer than the network's 64 outputs: the others are padding."""
    model = Rounded(module) if is_rounded else module
    documents = [tokens(n, n) % (vocab - 1) for n in (1, 5, 16, 17, 40, 3)]
    pieces = list(document_pieces(documents, vocab - 1, 16, 6))
    model.eval()
    expected = slow_losses(model, pieces, 6, vocab, ALPHAS)
    found = losses_of(model, pieces, 6, vocab, ALPHAS, with_ranges=True)
    assert found.tops == tuple(k for k in TOPS if k < vocab)
    rows = [found.raw[None], found.smoothed, found.misses, found.square_ranges]
    np.testing.assert_allclose(np.concatenate(rows), expected, rtol=1e-5, atol=1e-6)


def test_of_equal_logits_the_lower_id_is_the_more_likely_one():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, ids):
            return self.one.expand(*ids.shape, 16)

    documents = [np.array([i]) for i in range(16)]
    found = losses_of(Flat(), document_pieces(documents, 0, 4, 1), 16, 16, (0.3,))
    for k, misses in zip(found.tops, found.misses, strict=True):
        assert misses.tolist() == [float(i >= k) for i in range(16)]
    np.testing.assert_allclose(found.raw, 4, rtol=1e-6)
    np.testing.assert_allclose(found.smoothed, 4, rtol=1e-6)


def test_documents_count_equally_whatever_their_lengths(module):
    """Means over the tokens of a document, from several windows too."""
    documents = [tokens(40, 1), tokens(2, 2)]
    found = losses_of(module, document_pieces(documents, EOT, 16, 6), 2, 64, ())
    for i, document in enumerate(documents):
        [alone] = losses_of(module, document_pieces([document], EOT, 16, 6), 1, 64, ()).raw
        assert found.raw[i] == pytest.approx(alone, rel=1e-6)


def test_losses_do_not_depend_on_the_order_or_the_batches_of_the_pieces(module, monkeypatch):
    pieces = list(document_pieces([tokens(n, n) for n in range(1, 60)], EOT, 16, 6))
    expected = losses_of(module, pieces, 59, 64, ALPHAS)
    assert sum(len(piece.ids) for piece in pieces) < BATCH_TOKENS
    monkeypatch.setattr("sublora.evaluate.BATCH_TOKENS", 40)
    found = losses_of(module, pieces[::-1], 59, 64, ALPHAS)
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-5)
    np.testing.assert_allclose(found.smoothed, expected.smoothed, rtol=1e-5)


def test_two_evaluations_are_identical_where_the_config_has_dropout(folder):
    model = {"dropout": 0.5, "lora_dropout": 0.5, "init_std": 0.3}
    module = module_of(config(folder, model=model))
    set_random(module)
    pieces = list(document_pieces([tokens(n, n) for n in range(1, 60)], EOT, 16, 6))
    module.train()
    torch.manual_seed(0)
    first = losses_of(module, pieces, 59, 64, ALPHAS)
    torch.manual_seed(1)
    second = losses_of(module, pieces, 59, 64, ALPHAS)
    np.testing.assert_array_equal(first.raw, second.raw)
    np.testing.assert_array_equal(first.smoothed, second.smoothed)
    np.testing.assert_array_equal(first.misses, second.misses)
    assert module.training  # as it was


def test_padding_at_the_end_of_a_batch_changes_nothing(module):
    short, long = tokens(3, 1), tokens(16, 2)
    [alone] = losses_of(module, document_pieces([short], EOT, 16, 6), 1, 64, ()).raw
    both = losses_of(module, document_pieces([short, long], EOT, 16, 6), 2, 64, ()).raw
    assert both[0] == pytest.approx(alone, rel=1e-6)


def test_smoothed_losses_stay_within_their_range(module):
    """Of outputs as far apart as float32 has them."""
    from sublora.bounds import delta_range

    wild = Scaled(module, 1e4)
    pieces = [Piece(np.array([EOT, i]), np.array([1]), np.array([i])) for i in range(63)]
    found = losses_of(wild, pieces, 63, 64, ALPHAS, with_ranges=True)
    widest = delta_range(np.array(ALPHAS), 64)
    assert found.raw.max() > 1000
    assert (np.ptp(found.smoothed, axis=1) <= widest + 1e-9).all()
    np.testing.assert_allclose(np.sqrt(found.square_ranges).max(1), widest, rtol=1e-9)


class Scaled(nn.Module):
    def __init__(self, net, by):
        super().__init__()
        self.net, self.by = net, by

    def forward(self, ids):
        return self.net(ids) * self.by


def test_progress_ends_with_1(module):
    fractions = []
    pieces = list(document_pieces([tokens(n, n) for n in range(1, 30)], EOT, 16, 6))
    losses_of(module, pieces, 29, 64, (), on_progress=fractions.append)
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)
