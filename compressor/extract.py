"""Hidden states of a language model at one site."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.lm.models import LM

BATCH_TOKENS = 4096  # of a forward pass, padding included


def check_site(site: str, n_blocks: int | None) -> None:
    """Raises ValueError unless the site is post_norm, pre_norm or block_<1..n_blocks>."""
    if site in ("post_norm", "pre_norm"):
        return
    name, _, number = site.partition("_")
    last = "L" if n_blocks is None else n_blocks
    if name != "block" or not number.isdigit() or not 1 <= int(number) <= (n_blocks or int(number)):
        raise ValueError(f"lm.site={site}: known are post_norm, pre_norm, block_1 .. block_{last}")


def block_of(lm: LM, site: str) -> Any:
    """The decoder block whose output the site is; None for post_norm."""
    if site == "post_norm":
        return None
    return lm.blocks[-1 if site == "pre_norm" else int(site.removeprefix("block_")) - 1]


@torch.no_grad()
def hidden_states(lm: LM, ids: Sequence[np.ndarray], site: str) -> Iterator[Tensor]:
    """States [length, D] float32 on the CPU of each sequence, in order."""
    block = block_of(lm, site)
    for tokens, mask in batches(ids, lm.model.device):
        if block is None:
            states = lm.model.base_model(tokens, attention_mask=mask).last_hidden_state
        else:
            with output_of(block) as outputs:
                lm.model.base_model(tokens, attention_mask=mask)
            states = outputs[0]
        states = states.float().cpu()
        for i, length in enumerate(mask.sum(1).tolist()):
            yield states[i, :length]


def batches(ids: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """(tokens, mask) [sequences, longest] of neighbouring sequences, padded at their ends."""
    at = 0
    while at < len(ids):
        n = longest = 0
        while at + n < len(ids):
            longest = max(longest, len(ids[at + n]))
            if n and (n + 1) * longest > BATCH_TOKENS:
                break
            n += 1
        rows = ids[at : at + n]
        tokens = torch.zeros(n, max(map(len, rows)), dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.from_numpy(row)
            mask[i, : len(row)] = 1
        yield tokens.to(device), mask.to(device)
        at += n


@contextmanager
def output_of(block: Any, change: Callable[[Tensor], Tensor] | None = None) -> Iterator[list]:
    """Collects the hidden states that a block puts out; `change` replaces them."""
    outputs: list[Tensor] = []

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        outputs.append(states)
        if change is None:
            return output
        changed = change(states)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = block.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()
