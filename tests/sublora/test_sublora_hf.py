"""A causal language model of transformers as the network: its adapters, its bound, its decoder."""

import pytest
import torch
from sublora_cases import config, file, module_of, run, set_random
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from sublora.adapters import HEAD
from sublora.decode import main
from sublora.files import load_best

SIZES = {"vocab_size": 64, "bos_token_id": 63, "eos_token_id": 63}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return save(tmp_path_factory.mktemp("gpt2"), gpt2_of())


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    made = LlamaConfig(**SIZES, **sizes, **heads, max_position_embeddings=32)
    return save(tmp_path_factory.mktemp("llama"), LlamaForCausalLM(made))


def gpt2_of():
    return GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def save(folder, model):
    model.save_pretrained(folder)
    return folder


def config_of(folder, path, **changes):
    changes["model"] = {"source": "hf", "path": str(path)} | changes.get("model", {})
    return config(folder, **changes)


@pytest.mark.parametrize(
    ("name", "targets", "size"),
    [  # c_attn 16 -> 48, lm_head 16 -> 64; q_proj 16 -> 16, v_proj 16 -> 8 of one head of two
        ("gpt2", {"c_attn", "lm_head"}, 4 * (2 * (16 + 48) + 16 + 64)),
        ("llama", {"q_proj", "v_proj", "lm_head"}, 4 * (2 * (32 + 24) + 16 + 64)),
    ],
)
def test_adapters_are_on_the_targets_of_the_architecture(folder, request, name, targets, size):
    module = module_of(config_of(folder, request.getfixturevalue(name)))
    [group] = module.allotment.groups
    assert {slot.name.split(".")[-4] for slot in group.slots} == targets
    assert {slot.layer for slot in group.slots} == {0, 1, HEAD}
    assert module.n_trained == size


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_at_w_zero_it_is_the_model_of_the_folder_and_elsewhere_it_is_not(folder, request, name):
    from transformers import AutoModelForCausalLM

    path = request.getfixturevalue(name)
    module = module_of(config_of(folder, path)).eval()
    ids = torch.arange(20)[None] % 63
    expected = AutoModelForCausalLM.from_pretrained(path)(ids).logits
    torch.testing.assert_close(module(ids), expected)
    set_random(module)
    assert (module(ids) - expected).abs().max() > 0.1


@pytest.mark.parametrize("independent", [False, True])
def test_run_decodes_and_holds_only_for_weights_that_never_saw_the_data(
    folder, gpt2, tmp_path, capsys, independent
):
    cfg = config_of(folder, gpt2, bound={"prior_independent": independent})
    cfg.allocation.name = "learned"
    result = run(cfg, tmp_path)
    row = result.scalars
    assert row["bound_valid"] == independent
    assert ("initial weights" in row.get("bound_invalid_reason", "")) == (not independent)
    capsys.readouterr()
    assert main([str(file(result, "message.bin"))]) == 0
    assert f"bound_value: {row['bound_value']!r}\n" in capsys.readouterr().out


def test_message_and_best_pt_are_refused_once_the_weights_have_changed(folder, tmp_path, capsys):
    path = save(tmp_path / "model", gpt2_of())
    cfg = config_of(folder, path, train={"steps": 2})
    result = run(cfg, tmp_path)
    assert load_best(file(result, "best.pt")).prior_sha256 == module_of(cfg).prior_sha256()
    save(path, gpt2_of())
    capsys.readouterr()
    assert main([str(file(result, "message.bin"))]) == 2
    assert "the initial weights are not those of the run" in capsys.readouterr().err
    cfg.eval_from = str(file(result, "best.pt"))
    with pytest.raises(ValueError, match="the initial weights are not those of the run"):
        run(cfg, tmp_path / "again")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"block": 33}, r"model\.block=33: model\.path=.* reads at most 32 tokens"),
        ({"path": "/nowhere/model"}, "/nowhere/model"),
    ],
    ids=["block", "gone"],
)
def test_model_that_does_not_fit_is_an_error_of_its_key(folder, gpt2, tmp_path, model, message):
    with pytest.raises((ValueError, OSError), match=message):
        run(config_of(folder, gpt2, model=model), tmp_path)


def test_too_few_outputs_are_an_error(folder, tmp_path):
    small = GPT2Config(**SIZES | {"vocab_size": 63}, n_embd=16, n_layer=1, n_head=2)
    path = save(tmp_path / "model", GPT2LMHeadModel(small))
    with pytest.raises(ValueError, match="has 63 outputs, the data set 64 ids"):
        run(config_of(folder, path), tmp_path)
