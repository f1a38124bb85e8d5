"""Examples as tokens: what the model reads, and which of it counts as a target."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlora_probe.config import DataConfig
from qlora_probe.examples import Example

PLAIN = "### Instruction:\n{}\n\n### Response:\n"  # for models without a chat template
IGNORED = -100  # label of a token that is no target
EVAL_BATCH = 16  # sequences


@dataclass(frozen=True)
class Tokens:
    """Tokens of one sequence."""

    ids: Tensor  # [T] int64
    is_target: Tensor  # [T] bool; never the first, which nothing predicts


def prompt_ids(tokenizer: Any, instruction: str) -> list[int]:
    """The model's chat template up to where the answer begins, else a plain one."""
    if not tokenizer.chat_template:
        return tokenizer(PLAIN.format(instruction)).input_ids
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": instruction}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False).input_ids


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """With the token that ends it."""
    return [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def encode(tokenizer: Any, example: Example, loss_on: str, max_len: int) -> Tokens:
    """Prompt, answer, end; cut at max_len tokens."""
    prompt = prompt_ids(tokenizer, example.instruction)
    ids = torch.tensor([*prompt, *answer_ids(tokenizer, example.answer)])
    is_target = torch.arange(len(ids)) >= (len(prompt) if loss_on == "completion" else 1)
    return Tokens(ids[:max_len], is_target[:max_len])


def encode_all(tokenizer: Any, examples: Sequence[Example], cfg: DataConfig) -> list[Tokens]:
    """Those that have a target left; ValueError when none has."""
    found = [encode(tokenizer, example, cfg.loss_on, cfg.max_len) for example in examples]
    if cfg.packing:
        found = _packed(found, cfg.max_len)
    if kept := [tokens for tokens in found if tokens.is_target.any()]:
        return kept
    raise ValueError(f"data.max_len={cfg.max_len} leaves no example an answer to learn")


def _packed(sequences: Sequence[Tokens], length: int) -> list[Tokens]:
    """One after another, cut every `length` tokens; an example may read those before it."""
    ids, is_target = (
        torch.cat([getattr(sequence, name) for sequence in sequences]).split(length)
        for name in ("ids", "is_target")
    )
    for first in is_target:
        first[0] = False
    return [Tokens(*parts) for parts in zip(ids, is_target, strict=True)]


def collate(sequences: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """ids, labels [B, T] int64, padded on the right, where no token before can see it."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([sequence.ids for sequence in sequences], batch_first=True)
    labels = [s.ids.masked_fill(~s.is_target, IGNORED) for s in sequences]
    return ids, pad(labels, batch_first=True, padding_value=IGNORED)


def in_batches(sequences: Sequence[Tokens]) -> Iterator[Sequence[Tokens]]:
    """As many at once as an evaluation reads."""
    for i in range(0, len(sequences), EVAL_BATCH):
        yield sequences[i : i + EVAL_BATCH]


def updates(n: int, size: int, epochs: int) -> int:
    """Optimizer updates of n sequences; the last of an epoch may have fewer than `size`."""
    return epochs * math.ceil(n / size)


def order(n: int, size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    """Which of the n sequences each update reads; every epoch in an order of its own."""
    for epoch in range(epochs):
        shuffled = np.random.default_rng([seed, epoch]).permutation(n)
        yield from np.split(shuffled, range(size, n, size))


def sha256(sequences: Sequence[Tokens]) -> str:
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(sequence.ids.numpy().tobytes() + sequence.is_target.numpy().tobytes())
    return digest.hexdigest()
