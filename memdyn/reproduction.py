"""How much of a passage a language model gives back, and how likely it finds it.

A passage is a prompt of P tokens and a target of M = T - P. The models are causal language models
of transformers in eval mode; ids [N, T] int64 on the CPU are equally long, so nothing is padded.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PREFIXES = (5, 10, 20, 50)  # tokens of the target
SUFFIX = 50  # tokens that are to be extracted
FIRST = 5  # of these, looked at alone first
CPU_TOKENS = 1280  # in a pass over whole passages; more do not fit into a CPU's caches


# no_grad, not inference_mode: buffers that a model makes here are used again in training.
@torch.no_grad()
def reproduce(model: nn.Module, ids: Tensor, prompt: int, *, batch: int) -> Tensor:
    """[N, T - prompt] int64: the likeliest next token, again and again, from the prompt alone.

    `batch` passages at a time, with a key-value cache; the end-of-text token ends nothing.
    """
    device = next(model.parameters()).device
    generated = []
    for part in ids[:, :prompt].split(batch):
        tokens, cache, found = part.to(device), None, []
        for _ in range(ids.shape[1] - prompt):
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
            found.append(tokens)
        generated.append(torch.cat(found, 1).cpu())
    return torch.cat(generated)


def reproduction_columns(
    ids: Tensor, generated: Tensor, prompt: int, eos: int | None
) -> dict[str, Any]:
    """What was reproduced of ids [N, T]; columns of N.

    accuracy: share of the M target tokens that are right, place by place; prefix_acc_m: of the
    first m, None where M < m; match_len: right tokens before the first error; edit_sim:
    1 - Levenshtein distance / M; hit_eos: whether the token `eos` was generated.
    """
    from rapidfuzz.distance import Levenshtein

    target, generated = ids[:, prompt:].numpy(), generated.numpy()
    n, M = target.shape
    hits = target == generated
    prefixes = {f"prefix_acc_{m}": hits[:, :m].mean(1) if m <= M else [None] * n for m in PREFIXES}
    return {
        "accuracy": hits.mean(1),
        **prefixes,
        "match_len": np.cumprod(hits, 1).sum(1),
        "edit_sim": [
            Levenshtein.normalized_similarity(a, b)
            for a, b in zip(target.tolist(), generated.tolist(), strict=True)
        ],
        "hit_eos": (generated == (-1 if eos is None else eos)).any(1),
    }


@torch.no_grad()
def teacher_forced(model: nn.Module, ids: Tensor, prompt: int, *, batch: int) -> dict[str, Any]:
    """Likelihood of ids [N, T], every token predicted from the true ones before; columns of N.

    nll: mean of -ln p over t_2 .. t_T, in nats a token; nll_target: over the M target tokens;
    ppl: exp(nll), inf where that overflows; tf_accuracy: share of the target tokens that are the
    likeliest. Each token passes the model once. Memory: the logits of a pass, in float32 those of
    one passage.
    """
    losses, hits = [], []
    for _, part in passes(model, ids, batch):
        logits = model(input_ids=part, use_cache=False).logits[:, :-1]
        for scores, tokens in zip(logits, part[:, 1:], strict=True):
            losses.append(nn.functional.cross_entropy(scores.float(), tokens, reduction="none"))
            hits.append(scores.argmax(-1) == tokens)
    loss = torch.stack(losses).double().cpu()
    nll = loss.mean(1)
    return {
        "nll": nll.numpy(),
        "nll_target": loss[:, prompt - 1 :].mean(1).numpy(),
        "ppl": nll.exp().numpy(),
        "tf_accuracy": torch.stack(hits)[:, prompt - 1 :].double().mean(1).cpu().numpy(),
    }


@torch.no_grad()
def extractable(
    model: nn.Module, ids: Tensor, k: int, *, suffix: int = SUFFIX, batch: int
) -> np.ndarray | None:
    """[N] bool: greedy decoding from the k tokens before the last `suffix` gives all of these.

    None when k + suffix > T. Extractability with k tokens of context (Carlini et al. 2023). Greedy
    decoding goes wrong first where the likeliest token is not the true one after true ones only, so
    a single forward pass over true tokens decides.
    """
    if k + suffix > ids.shape[1]:
        return None
    ids = ids[:, -(k + suffix) :]
    left = torch.arange(len(ids))  # not wrong so far: most go wrong early
    for length in (min(FIRST, suffix), suffix):
        is_right = torch.ones(len(left), dtype=torch.bool)
        for at, part in passes(model, ids[left, : k + length], batch):
            out = model(input_ids=part[:, :-1], use_cache=False, logits_to_keep=length)
            is_right[at] = (out.logits.argmax(-1) == part[:, k:]).all(1).cpu()
        left = left[is_right]
    return torch.isin(torch.arange(len(ids)), left).numpy()


def passes(model: nn.Module, ids: Tensor, batch: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of ids [N, T] and these on the model's device, `batch` at a time; on a CPU those of
    CPU_TOKENS at most."""
    device = next(model.parameters()).device
    size = min(batch, max(1, CPU_TOKENS // ids.shape[1])) if device.type == "cpu" else batch
    for start in range(0, len(ids), size):
        at = slice(start, start + size)
        yield at, ids[at].to(device)
