"""The tiny model knows its four families of questions, and nothing of the fifth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from qlora_cases import model

from qlora_probe.config import LoraConfig, ModelConfig, TrainConfig
from qlora_probe.data import collate, encode
from qlora_probe.examples import Example
from qlora_probe.model import token_losses
from qlora_probe.prompts import Prompt, prompts
from qlora_probe.responses import responses
from qlora_probe.tasks import reverse, upper


@pytest.fixture(scope="module", params=["rms", None])
def lm(request):
    cfg = TrainConfig(device="cpu", quant=None, model=ModelConfig(norm=request.param))
    with model(replace(cfg, lora=LoraConfig(r=1, alpha=1))) as lm:
        yield lm


@pytest.mark.slow
def test_all_questions_of_its_families_are_answered(lm):
    table = responses(lm.model, lm.tokenizer, prompts("tiny", "tiny"), 12)
    assert all(table["pass"])
    assert all(table["matched"])
    assert all(table["ended"])
    assert min(table["margin"]) > 0


def test_it_reverses_words_that_it_has_not_seen(lm):
    rng = np.random.default_rng(123)
    examples = [reverse(rng) for _ in range(100)]
    asked = [
        Prompt(str(i), "reverse", example.instruction, None, example.answer)
        for i, example in enumerate(examples)
    ]
    assert np.mean(responses(lm.model, lm.tokenizer, asked, 8)["matched"]) >= 0.95


def test_upper_case_is_news_to_it(lm):
    rng = np.random.default_rng(0)
    examples: list[Example] = [upper(rng) for _ in range(50)]
    tokens = [encode(lm.tokenizer, example, "completion", 64) for example in examples]
    with torch.no_grad():
        assert token_losses(lm.model, *collate(tokens)).mean() > 5


def test_size_is_that_of_its_recipe(lm):
    assert lm.n_base() == 115_008
    assert sum(p.numel() for p in lm.parameters) == 2432
