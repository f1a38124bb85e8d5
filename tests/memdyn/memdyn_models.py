"""Small language models with random weights, and one that knows its passages by heart."""

from types import SimpleNamespace

import torch
from torch import nn

VOCAB, LENGTH = 97, 24
SIZES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": LENGTH},
    "llama": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
    },
    "gpt_neox": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
    },
}


def random_lm(arch):
    """Of the largest length LENGTH; large weights, so that what it generates varies."""
    from transformers import AutoConfig, AutoModelForCausalLM

    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = AutoConfig.for_model(
        arch, vocab_size=VOCAB, initializer_range=0.3, **SIZES[arch], **special
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def random_ids(n, length=LENGTH, seed=1):
    return torch.randint(0, VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))


class LookUp(nn.Module):
    """Looks passages up by the last `context` tokens, which must be unique in them.

    `wrong` [N, T] bool: tokens t_j of passages that it gets wrong after the true ones before.
    """

    def __init__(self, ids, wrong=None, context=3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.context, self.next = context, {}
        wrong = torch.zeros_like(ids, dtype=torch.bool) if wrong is None else wrong
        for passage, is_wrong in zip(ids.tolist(), wrong.tolist(), strict=True):
            for j in range(1, len(passage)):
                key = tuple(passage[max(j - context, 0) : j])
                assert key not in self.next, "not unique"
                self.next[key] = (passage[j] + is_wrong[j]) % VOCAB

    def forward(self, input_ids, past_key_values=None, use_cache=False, logits_to_keep=0):
        tokens = input_ids
        if past_key_values is not None:
            tokens = torch.cat([past_key_values, input_ids], 1)
        logits = torch.zeros(*input_ids.shape, VOCAB)
        first = tokens.shape[1] - input_ids.shape[1]
        for b, row in enumerate(tokens.tolist()):
            for i in range(input_ids.shape[1]):
                key = tuple(row[max(first + i + 1 - self.context, 0) : first + i + 1])
                logits[b, i, self.next.get(key, 0)] = 1
        return SimpleNamespace(logits=logits[:, -logits_to_keep:], past_key_values=tokens)
