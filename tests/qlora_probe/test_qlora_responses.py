"""Greedy responses, whatever else a model comes with."""

import shutil

import torch
from qlora_cases import model, small
from transformers import GenerationConfig

from qlora_probe.prompts import prompts
from qlora_probe.responses import responses


def test_a_models_own_penalties_do_not_count(llama, tmp_path):
    """Qwen2.5 comes with a repetition penalty."""
    folder = shutil.copytree(llama, tmp_path / "model")
    GenerationConfig(repetition_penalty=3.0, no_repeat_ngram_size=2).save_pretrained(folder)
    found = []
    for path in (llama, folder):
        with model(small(path)) as lm, torch.no_grad():
            found.append(responses(lm.model, lm.tokenizer, prompts("tiny", "tiny")[:5], 30))
    assert found[0] == found[1]
