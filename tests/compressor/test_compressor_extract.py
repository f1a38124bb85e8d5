"""Hidden states against transformers' own, one sequence at a time and without padding."""

import numpy as np
import pytest
import torch

from compressor import extract
from compressor.extract import batches, check_site, hidden_states, output_of
from plugins.lm.models import load_lm


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request):
    return load_lm("hf", path=str(request.getfixturevalue(request.param)), section="lm")


def sequences(*lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=length) for length in lengths]


def reference(lm, ids):
    """The sequence alone: hidden_states, whose last entry is after the norm."""
    with torch.no_grad():
        out = lm.model(torch.from_numpy(ids)[None], output_hidden_states=True)
    return [states[0] for states in out.hidden_states]


def norm_of(lm):
    return lm.model.transformer.ln_f if hasattr(lm.model, "transformer") else lm.model.model.norm


LENGTHS = (7, 32, 1, 20, 3)


def test_states_of_every_site_are_those_of_a_sequence_alone(lm):
    ids, n = sequences(*LENGTHS), len(lm.blocks)
    for block in range(1, n):
        found = list(hidden_states(lm, ids, f"block_{block}"))
        for row, states in zip(ids, found, strict=True):
            torch.testing.assert_close(states, reference(lm, row)[block], rtol=1e-5, atol=1e-5)
    found = list(hidden_states(lm, ids, "post_norm"))
    for row, states in zip(ids, found, strict=True):
        torch.testing.assert_close(states, reference(lm, row)[n], rtol=1e-5, atol=1e-5)


def test_after_the_norm_is_the_norm_of_before(lm):
    ids = sequences(*LENGTHS)
    with torch.no_grad():
        for before, after, last in zip(
            hidden_states(lm, ids, "pre_norm"),
            hidden_states(lm, ids, "post_norm"),
            hidden_states(lm, ids, f"block_{len(lm.blocks)}"),
            strict=True,
        ):
            torch.testing.assert_close(norm_of(lm)(before), after, rtol=1e-5, atol=1e-5)
            assert not torch.allclose(before, after, rtol=1e-2)
            assert torch.equal(before, last)


def test_what_a_sequence_is_batched_with_changes_nothing(lm, monkeypatch):
    ids = sequences(*LENGTHS)
    together = list(hidden_states(lm, ids, "post_norm"))
    monkeypatch.setattr(extract, "BATCH_TOKENS", 1)
    assert len(list(batches(ids, torch.device("cpu")))) == len(ids)
    for one, other in zip(together, hidden_states(lm, ids, "post_norm"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("most", [1, 10, 40, 64, 1000])
def test_batches_hold_all_sequences_in_order_within_the_limit(monkeypatch, most):
    monkeypatch.setattr(extract, "BATCH_TOKENS", most)
    ids, found = sequences(*LENGTHS), []
    for tokens, mask in batches(ids, torch.device("cpu")):
        assert tokens.shape == mask.shape
        assert tokens.numel() <= most or len(tokens) == 1
        assert (mask.diff(dim=1) <= 0).all()  # padding is at the end
        found += [row[m.bool()].numpy() for row, m in zip(tokens, mask, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(found, ids, strict=True))


def test_states_that_are_replaced_are_what_the_next_block_reads(lm):
    tokens = torch.from_numpy(sequences(9)[0])[None]
    n_hooks = len(lm.blocks[0]._forward_hooks)
    replacement = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), output_of(lm.blocks[0], lambda states: replacement) as outputs:
        with output_of(lm.blocks[1]) as after:
            lm.model(tokens)
        changed = after[0]
    assert not torch.equal(outputs[0], replacement)
    with torch.no_grad(), output_of(lm.blocks[1]) as after:
        lm.model(tokens)
    assert not torch.allclose(after[0], changed)
    assert len(lm.blocks[0]._forward_hooks) == n_hooks


@pytest.mark.parametrize(
    "site", ["norm", "block", "block_", "block_0", "block_4", "block_-1", "block_1.5", "Post_norm"]
)
def test_unknown_sites_name_the_known_ones(site):
    with pytest.raises(
        ValueError, match=rf"lm\.site={site}: .*post_norm, pre_norm, block_1 \.\. block_3"
    ):
        check_site(site, 3)


def test_blocks_are_bounded_by_the_model_only_where_it_is_known():
    check_site("block_99", None)
    check_site("block_3", 3)
    with pytest.raises(ValueError, match=r"block_1 \.\. block_L"):
        check_site("block_0", None)
