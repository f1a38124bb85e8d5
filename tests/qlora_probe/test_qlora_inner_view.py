"""The probe inner_view against the model's own loss, and states and weights taken by hand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from qlora_cases import SIZES, finish, small, training
from torch.testing import assert_close

from qlora_probe import hooks
from qlora_probe.model import remove_norms
from qlora_probe.probes.inner_view import InnerView


@dataclass
class Viewed:
    """A training with its probe, and its last state by hand, an entry a sequence."""

    tables: dict
    eval_loss: tuple[float, float]  # first, last
    sequences: list
    outputs: list  # of transformers
    first_lens: list  # [T, V] ln p from the first block


@pytest.fixture(scope="module")
def viewed(llama):
    probe = InnerView(n=2)
    with training(small(llama), [probe]) as trainer:
        trainer.held_out = trainer.held_out[:2]
        short = trainer.held_out[1]
        trainer.held_out[1] = replace(short, ids=short.ids[:13], is_target=short.is_target[:13])
        hooks.call([probe], "train_start", trainer)
        finish(trainer)
        trainer.model.train()
        hooks.call([probe], "train_end", trainer)
        assert trainer.model.training
        trainer.model.eval()
        base = trainer.model.get_base_model()
        with torch.no_grad():
            outputs = [
                trainer.model(s.ids[None], output_attentions=True, output_hidden_states=True)
                for s in trainer.held_out
            ]
            lens = [
                base.lm_head(base.model.norm(out.hidden_states[1]))[0].log_softmax(-1)
                for out in outputs
            ]
        ends = trainer.curves[0]["eval_loss"], trainer.curves[6]["eval_loss"]
        return Viewed(trainer.tables, ends, trainer.held_out, outputs, lens)


def rows(viewed, table, **where):
    """As dicts, of one kind."""
    columns = viewed.tables[table]
    every = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [row for row in every if all(row[name] == value for name, value in where.items())]


def test_the_lens_of_the_last_block_is_the_models_loss(viewed):
    last = {row["phase"]: row["nll"] for row in rows(viewed, "logit_lens", block=1)}
    assert (last["base"], last["tuned"]) == pytest.approx(viewed.eval_loss, rel=1e-6)
    assert last["base"] != last["tuned"]


def test_the_lens_of_the_first_block(viewed):
    """Mean over all targets of all sequences, from transformers' hidden states."""
    losses = [
        -ln_p[t - 1, sequence.ids[t]].item()
        for sequence, ln_p in zip(viewed.sequences, viewed.first_lens, strict=True)
        for t in range(len(sequence.ids))
        if sequence.is_target[t]
    ]
    [row] = rows(viewed, "logit_lens", phase="tuned", block=0)
    assert row["nll"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_entropies_are_those_of_the_weights_but_for_first_queries(viewed):
    found = rows(viewed, "attention_entropy", phase="tuned")
    assert [(row["block"], row["head"]) for row in found] == [
        (block, head) for block in range(2) for head in range(4)
    ]
    lengths = [len(sequence.ids) for sequence in viewed.sequences]
    assert lengths == [16, 13]
    most = np.mean([math.log(q + 1) for T in lengths for q in range(1, T)])
    for row in found:
        entropies = [
            -sum(w * math.log(w) for w in query.tolist() if w > 0)
            for out in viewed.outputs
            for query in out.attentions[row["block"]][0, row["head"]][1:]
        ]
        assert row["entropy"] == pytest.approx(np.mean(entropies), rel=1e-5)
        assert 0 < row["entropy"] < most


def test_a_uniform_attention_has_the_entropy_of_its_keys(llama):
    """Without adapters on q and with q = 0 all scores are 0; the query t sees t + 1 keys."""
    cfg = small(llama, quant=None)
    cfg = replace(cfg, lora=replace(cfg.lora, targets=["v_proj"]))
    with training(cfg) as trainer:
        weights = [block.self_attn.q_proj.weight for block in trainer.lm.blocks]
        kept = [weight.clone() for weight in weights]
        for weight in weights:
            weight.zero_()
        InnerView().train_start(trainer)
        for weight, values in zip(weights, kept, strict=True):  # others read this base, too
            weight.copy_(values)
        lengths = {len(sequence.ids) for sequence in trainer.held_out}
        assert lengths == {16}
        expected = np.mean([math.log(t + 1) for t in range(1, 16)])
        entropies = trainer.tables["attention_entropy"]["entropy"]
        assert entropies == pytest.approx([expected] * 8, rel=1e-6)
        weight = trainer.tables["attention_maps"]["weight"]
        query = trainer.tables["attention_maps"]["query"]
        assert weight == pytest.approx([1 / (q + 1) for q in query], rel=1e-6)


def test_norms_divide_by_the_root_mean_square(viewed):
    """The small Llama's norms have weights of 1."""
    found = rows(viewed, "norms", phase="tuned")
    assert [row["norm"] for row in found] == [
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
        "model.layers.1.input_layernorm",
        "model.layers.1.post_attention_layernorm",
        "model.norm",
    ]
    assert_close([row["rms_out"] for row in found], [1.0] * 5, rtol=1e-4, atol=0)
    for place, states in ((0, 0), (2, 1)):  # what enters a block
        x = torch.cat([out.hidden_states[states][0, 1:] for out in viewed.outputs])
        rms = x.square().mean(1).sqrt().mean().item()
        assert found[place]["rms_in"] == pytest.approx(rms, rel=1e-5)


def test_norms_that_do_nothing(llama):
    cfg = small(llama)
    with training(cfg) as trainer:
        modules = [m for m in trainer.model.modules() if "Norm" in type(m).__name__]
        remove_norms(trainer.model)
        InnerView().train_start(trainer)
        for module in modules:
            del module.forward
        table = trainer.tables["norms"]
    assert table["rms_in"] == table["rms_out"]
    assert len(set(table["rms_in"])) == 5


def test_maps_hold_the_last_blocks_first_head_with_its_tokens(viewed):
    for i, out in enumerate(viewed.outputs):
        found = rows(viewed, "attention_maps", phase="tuned", prompt_id=f"held_out_{i}")
        T = len(viewed.sequences[i].ids)
        assert [(row["query"], row["key"]) for row in found] == [
            (q, k) for q in range(T) for k in range(q + 1)
        ]
        weights = out.attentions[1][0, 0]
        text = bytes(viewed.sequences[i].ids.tolist()).decode()
        for row in found:
            q, k = row["query"], row["key"]
            assert (row["block"], row["head"]) == (1, 0)
            assert row["weight"] == pytest.approx(weights[q, k].item(), rel=1e-5)
            if text[k] != "\0":  # the end, whose token is written another way
                assert row["key_token"] == text[k]
            if text[q] != "\0":
                assert row["query_token"] == text[q]
    assert {row["prompt_id"] for row in rows(viewed, "attention_maps")} == {
        "held_out_0",
        "held_out_1",
    }


def test_maps_are_cut_at_64_tokens(llama):
    with training(small(llama)) as trainer:
        assert SIZES["max_position_embeddings"] >= 80
        long = trainer.held_out[0]
        trainer.held_out = [
            replace(long, ids=long.ids.repeat(5), is_target=long.is_target.repeat(5))
        ]
        InnerView().train_start(trainer)
        table = trainer.tables["attention_maps"]
    assert len(table["key"]) == 64 * 65 // 2
    assert max(table["query"]) == max(table["key"]) == 63


def test_both_phases_look_at_the_same(viewed):
    for name, table in viewed.tables.items():
        n = len(table["phase"]) // 2
        assert table["phase"] == ["base"] * n + ["tuned"] * n, name
        for column in set(table) - {"phase", "entropy", "nll", "rms_in", "rms_out", "weight"}:
            assert table[column][:n] == table[column][n:], (name, column)


def test_refuses():
    with pytest.raises(ValueError, match="n must be an integer >= 1, got 0"):
        InnerView(n=0)
