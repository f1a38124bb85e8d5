"""Reproduction: the same tokens as the plain ways, closed forms, and models that know or do not."""

import math

import numpy as np
import pytest
import torch
from memdyn_models import LENGTH, SIZES, VOCAB, LookUp, random_ids, random_lm

from memdyn.reproduction import (
    FIRST,
    extractable,
    reproduce,
    reproduction_columns,
    teacher_forced,
)
from memdyn.trainer import token_losses

PROMPT = 8
N = 10


@pytest.fixture(params=SIZES)
def model(request):
    return random_lm(request.param)


@pytest.fixture(scope="module")
def half_memorized():
    """(model, ids): a GPT-2 that knows some of its 12 passages and of their ends, but not all."""
    model, ids = random_lm("gpt2"), random_ids(12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        for part in (ids, ids[:, -15:]):
            token_losses(model, part).mean().backward()
        optimizer.step()
    return model, ids


def one_at_a_time(model, ids, prompt):
    """Without a cache; every gap between the two best logits, so that no tie decides."""
    rows, gaps = [], []
    with torch.no_grad():
        for row in ids:
            tokens = row[None, :prompt]
            for _ in range(len(row) - prompt):
                logits = model(input_ids=tokens, use_cache=False).logits[0, -1]
                best = logits.topk(2)
                gaps.append((best.values[0] - best.values[1]).item())
                tokens = torch.cat([tokens, best.indices[None, :1]], 1)
            rows.append(tokens[0, prompt:])
    return torch.stack(rows), min(gaps)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_tokens_are_those_of_one_passage_at_a_time_without_a_cache(model, batch):
    """LENGTH tokens in all, as many as the models have positions. Identical: no gap below 1e-3."""
    ids = random_ids(N)
    expected, gap = one_at_a_time(model, ids, PROMPT)
    assert gap > 1e-3
    assert len(set(expected.flatten().tolist())) > 20  # not one token over and over
    generated = reproduce(model, ids, PROMPT, batch=batch)
    assert generated.dtype == torch.int64
    assert torch.equal(generated, expected)


def test_tokens_are_those_of_generate(model):
    ids = random_ids(N)[:, :PROMPT]
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),  # else a token equal to the padding is left out
        do_sample=False,
        max_new_tokens=LENGTH - PROMPT,
        pad_token_id=0,
    )
    assert torch.equal(reproduce(model, random_ids(N), PROMPT, batch=4), expected[:, PROMPT:])


def test_the_target_is_never_shown(model):
    ids = random_ids(N)
    other = torch.cat([ids[:, :PROMPT], random_ids(N, LENGTH - PROMPT, seed=2)], 1)
    generated = reproduce(model, ids, PROMPT, batch=N)
    assert torch.equal(reproduce(model, other, PROMPT, batch=N), generated)


def test_generation_goes_on_after_the_end_of_text():
    """A model that ends its text early reproduces the rest, and the row says that it did."""
    ids = random_ids(N)
    eos = int(ids[0, PROMPT + 1])
    generated = reproduce(LookUp(ids), ids, PROMPT, batch=4)
    assert torch.equal(generated, ids[:, PROMPT:])
    hit = reproduction_columns(ids, generated, PROMPT, eos)["hit_eos"]
    assert hit.tolist() == (ids[:, PROMPT:] == eos).any(1).tolist()
    assert hit[0]
    assert not hit.all()
    assert not reproduction_columns(ids, generated, PROMPT, None)["hit_eos"].any()


def test_columns_of_known_errors():
    """M = 10: nothing wrong; the third token; all shifted by one; nothing right."""
    target = torch.arange(10).repeat(4, 1)
    ids = torch.cat([torch.full((4, 5), 50), target], 1)
    generated = target.clone()
    generated[1, 2] = 60
    generated[2] = torch.cat([torch.tensor([60]), target[2, :-1]])
    generated[3] = 60
    columns = reproduction_columns(ids, generated, 5, None)
    assert columns["accuracy"].tolist() == [1, 0.9, 0, 0]
    assert columns["prefix_acc_5"].tolist() == [1, 0.8, 0, 0]
    assert columns["prefix_acc_10"].tolist() == [1, 0.9, 0, 0]
    assert columns["prefix_acc_20"] == columns["prefix_acc_50"] == [None] * 4
    assert columns["match_len"].tolist() == [10, 2, 0, 0]
    assert columns["edit_sim"] == pytest.approx([1, 0.9, 0.8, 0])  # shifted: insert one, drop one
    assert not columns["hit_eos"].any()
    assert reproduction_columns(ids, generated, 5, 60)["hit_eos"].tolist() == [False] + [True] * 3


def levenshtein(a, b):
    """The textbook's table."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, previous[j] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def test_edit_similarity_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    ids, generated = (torch.from_numpy(rng.integers(0, 4, (20, M))) for M in (15, 12))
    found = reproduction_columns(ids, generated, 3, None)["edit_sim"]
    pairs = zip(ids[:, 3:].tolist(), generated.tolist(), strict=True)
    assert found == pytest.approx([1 - levenshtein(a, b) / 12 for a, b in pairs])


@pytest.mark.parametrize("batch", [3, N])
def test_likelihood_is_that_of_the_definition(model, batch):
    """From log_softmax of every prefix by itself; 1e-5, float32."""
    ids = random_ids(N)
    expected = np.zeros((N, LENGTH - 1))
    best = np.zeros((N, LENGTH - 1), dtype=int)
    with torch.no_grad():
        for j in range(1, LENGTH):
            logits = model(input_ids=ids[:, :j], use_cache=False).logits[:, -1].double()
            expected[:, j - 1] = -logits.log_softmax(-1)[torch.arange(N), ids[:, j]]
            best[:, j - 1] = logits.argmax(-1)
    columns = teacher_forced(model, ids, PROMPT, batch=batch)
    np.testing.assert_allclose(columns["nll"], expected.mean(1), rtol=1e-5)
    np.testing.assert_allclose(columns["nll_target"], expected[:, PROMPT - 1 :].mean(1), rtol=1e-5)
    np.testing.assert_allclose(columns["ppl"], np.exp(expected.mean(1)), rtol=1e-4)
    right = best[:, PROMPT - 1 :] == ids[:, PROMPT:].numpy()
    np.testing.assert_array_equal(columns["tf_accuracy"], right.mean(1))


def test_logits_are_made_for_one_batch_and_where_a_token_is_chosen():
    model, ids, made = random_lm("gpt2"), random_ids(9), set()
    model.lm_head.register_forward_hook(lambda head, inputs, out: made.add(tuple(out.shape[:2])))
    teacher_forced(model, ids, PROMPT, batch=3)
    assert made == {(3, LENGTH)}
    made.clear()
    reproduce(model, ids, PROMPT, batch=9)
    assert made == {(9, 1)}
    made.clear()
    extractable(model, ids, 14, suffix=10, batch=9)
    assert made == {(9, FIRST)}  # all wrong by then


def test_a_model_without_weights_knows_nothing():
    """Equal logits: ln V nats a token, perplexity V; the likeliest token is token 0."""
    model = random_lm("gpt2")
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    columns = teacher_forced(model, random_ids(N), PROMPT, batch=4)
    assert columns["nll"] == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert columns["nll_target"] == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert columns["ppl"] == pytest.approx(VOCAB, rel=1e-5)


def test_a_model_that_looks_passages_up_knows_everything():
    ids = random_ids(6, length=120)
    model = LookUp(ids)
    columns = reproduction_columns(ids, reproduce(model, ids, 40, batch=4), 40, None)
    for name in ("accuracy", "edit_sim", *(f"prefix_acc_{m}" for m in (5, 10, 20, 50))):
        assert np.all(np.array(columns[name]) == 1)
    assert (columns["match_len"] == 80).all()
    assert (teacher_forced(model, ids, 40, batch=4)["tf_accuracy"] == 1).all()
    for k in (16, 32, 50):
        assert extractable(model, ids, k, batch=4).tolist() == [True] * 6


def test_one_wrong_step_spoils_all_that_looks_back_at_it():
    """Its place alone is wrong with true tokens before; free-running loses the passage there."""
    ids = random_ids(6, length=120)
    wrong = torch.zeros_like(ids, dtype=torch.bool)
    wrong[0, 60] = wrong[1, 100] = wrong[2, 10] = True  # in the target; the suffix; the prompt
    model = LookUp(ids, wrong)
    columns = reproduction_columns(ids, reproduce(model, ids, 40, batch=4), 40, None)
    assert columns["match_len"].tolist() == [20, 60, 80, 80, 80, 80]
    forced = teacher_forced(model, ids, 40, batch=4)["tf_accuracy"]
    assert forced.tolist() == [79 / 80, 79 / 80, 1, 1, 1, 1]
    assert extractable(model, ids, 32, batch=4).tolist() == [True, False, True, True, True, True]


def test_all_reproduced_if_and_only_if_all_likeliest(half_memorized):
    model, ids = half_memorized
    generated = reproduce(model, ids, PROMPT, batch=5)
    accuracy = reproduction_columns(ids, generated, PROMPT, None)["accuracy"]
    forced = teacher_forced(model, ids, PROMPT, batch=5)["tf_accuracy"]
    assert ((accuracy == 1) == (forced == 1)).all()
    assert 0 < (accuracy == 1).sum() < len(ids)


@pytest.mark.parametrize("k", [1, 5, 14])
def test_extractable_is_what_greedy_decoding_gives(half_memorized, k):
    """From the k tokens before the last 10, generated one after another."""
    model, ids = half_memorized
    window = ids[:, -(k + 10) :]
    generated = reproduce(model, window, k, batch=12)
    expected = (generated == ids[:, -10:]).all(1).tolist()
    assert extractable(model, ids, k, suffix=10, batch=5).tolist() == expected
    assert set(expected) == ({False} if k == 1 else {False, True})  # not trained on the last 11


def test_a_passage_that_is_too_short_says_nothing_of_extraction():
    model = LookUp(random_ids(3))
    assert extractable(model, random_ids(3), 14, suffix=10, batch=3).tolist() == [True] * 3
    assert extractable(model, random_ids(3), 15, suffix=10, batch=3) is None
