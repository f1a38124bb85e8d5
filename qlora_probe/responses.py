"""What a model answers to prompts, and how likely it finds the right answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qlora_probe.data import Tokens, answer_ids, collate, prompt_ids
from qlora_probe.hooks import looking
from qlora_probe.model import token_losses
from qlora_probe.prompts import Prompt

BATCH = 20  # prompts


@torch.no_grad()
def responses(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new: int
) -> dict[str, list]:
    """Columns of the table generations, a row per prompt: greedy responses of at most max_new
    tokens.

    ended: the model ended its response; pass: the prompt's check of the response; matched: it is
    the reference answer, but for case and surrounding space; answer_logprob: mean ln p of the
    reference's tokens; margin: that minus the best distractor's. None where a prompt has no check,
    no reference or no distractor.
    """
    ids = [prompt_ids(tokenizer, prompt.text) for prompt in prompts]
    with looking(model):
        texts, n_tokens, ended = [], [], []
        for start in range(0, len(prompts), BATCH):
            for row in _generate(model, tokenizer, ids[start : start + BATCH], max_new):
                is_end = row == tokenizer.eos_token_id
                length = int(is_end.int().argmax()) if is_end.any() else len(row)
                texts.append(tokenizer.decode(row[:length], skip_special_tokens=True))
                n_tokens.append(length)
                ended.append(bool(is_end.any()))
        likely = [
            _answers(model, tokenizer, prompt, p) for prompt, p in zip(prompts, ids, strict=True)
        ]
    return {
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "category": [prompt.category for prompt in prompts],
        "prompt": [prompt.text for prompt in prompts],
        "response": texts,
        "n_tokens": n_tokens,
        "ended": ended,
        "pass": [
            p.check(text) if p.check else None for p, text in zip(prompts, texts, strict=True)
        ],
        "matched": [_is_reference(p, text) for p, text in zip(prompts, texts, strict=True)],
        "answer_logprob": [right for right, _ in likely],
        "margin": [margin for _, margin in likely],
    }


def _generate(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new: int) -> Tensor:
    """[N, <= max_new] int64, on the CPU."""
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    context = model.config.max_position_embeddings
    if longest + max_new > context:
        raise ValueError(
            f"eval.max_new={max_new} after a prompt of {longest} tokens exceeds the {context} "
            "that the model reads"
        )
    padded = [[tokenizer.eos_token_id] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    out = model.generate(
        input_ids=torch.tensor(padded, device=device),
        attention_mask=torch.tensor(mask, device=device),
        max_new_tokens=max_new,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return out[:, longest:].cpu()


def _is_reference(prompt: Prompt, text: str) -> bool | None:
    if prompt.reference is None:
        return None
    return text.strip().casefold() == prompt.reference.strip().casefold()


def _answers(
    model: Any, tokenizer: Any, prompt: Prompt, ids: Sequence[int]
) -> tuple[float | None, float | None]:
    if prompt.reference is None:
        return None, None
    answers = [answer_ids(tokenizer, text) for text in (prompt.reference, *prompt.distractors)]
    sequences = [
        Tokens(torch.tensor([*ids, *answer]), torch.arange(len(ids) + len(answer)) >= len(ids))
        for answer in answers
    ]
    tokens, labels = collate(sequences)
    losses = token_losses(model, tokens, labels)
    # In the order of the sequences: a mean over each one's targets.
    counts = [len(answer) for answer in answers]
    right, *wrong = (-part.mean().item() for part in losses.split(counts))
    return right, right - max(wrong) if wrong else None
