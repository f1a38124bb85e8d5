"""How the tiny language model learns: on a smaller one."""

import torch
from compressor_cases import save_gpt2
from transformers import AutoModelForCausalLM

from compressor.pretrain import pretrain
from plugins.lm.tokenizers import raw_bytes

SETTINGS = {"steps": 30, "batch": 4, "length": 32, "lr": 1e-2, "seed": 0, "version": 1}


def trained(folder, **changes):
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)  # of dropout
    pretrain(model, raw_bytes(), SETTINGS | changes)
    return model.eval()


def loss(model):
    ids = torch.tensor([raw_bytes()("The Congress of the United States").input_ids[:32]])
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def test_training_lowers_the_loss(tmp_path):
    save_gpt2(tmp_path)
    assert loss(trained(tmp_path)) < loss(trained(tmp_path, steps=1)) - 1


def test_settings_decide_the_weights(tmp_path):
    save_gpt2(tmp_path, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    one, two, other = (trained(tmp_path, steps=3, seed=seed) for seed in (0, 0, 1))
    name = "transformer.wte.weight"
    weights = [model.state_dict()[name] for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
