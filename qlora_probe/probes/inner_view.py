"""Inside the model before and after: attention, what blocks already know, scales at the norms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from plugins.fields import at_least
from qlora_probe.activations import recording
from qlora_probe.data import Tokens
from qlora_probe.hooks import looking
from qlora_probe.registry import register_callback
from qlora_probe.trainer import Trainer

N_MAPS = 2  # sequences
MAP_TOKENS = 64  # of a map, from the first: more cannot be read
MAP_HEAD = 0  # of the last block


@register_callback("inner_view")
@dataclass
class InnerView:
    """On the first n held-out sequences, with the adapters at their start (phase base: B = 0 is the
    base) and after the training (phase tuned). Needs attention weights: model.attention=eager.

    attention_entropy: of a head's weights, in nats, mean over the queries but for the first of each
    sequence, which has no choice; between 0 and the mean of ln(keys that a query sees).
    logit_lens: -ln p of the target tokens, in nats, read from a block's output through the final
    norm and the head (nostalgebraist 2020); of the last block it is the model's own loss.
    norms: root mean square of a token's vector before and after each norm, mean over the tokens
    but for the first of each sequence.
    attention_maps: weights of the last block's first head on the first two sequences, cut at 64
    tokens.
    """

    n: int = 16  # sequences, >= 1

    def __post_init__(self):
        at_least(self, "n", 1)

    def train_start(self, trainer: Trainer) -> None:
        _look(trainer, trainer.held_out[: self.n], "base")

    def train_end(self, trainer: Trainer) -> None:
        _look(trainer, trainer.held_out[: self.n], "tuned")


@torch.no_grad()
def _look(trainer: Trainer, sequences: Sequence[Tokens], phase: str) -> None:
    lm = trainer.lm
    norms = {
        name.removeprefix("base_model.model."): module
        for name, module in lm.model.named_modules()
        if "Norm" in type(module).__name__
    }
    inside = {module for block in lm.blocks for module in block.modules()}
    final = [norm for norm in norms.values() if norm not in inside][-1]
    head = lm.model.get_output_embeddings()
    entropies, losses, scales = [], [], []
    for i, sequence in enumerate(sequences):  # one at a time: no padding to leave out
        ids, targets = sequence.ids.to(lm.device), sequence.is_target.nonzero()[:, 0]
        with looking(lm.model), recording([*norms.values(), *lm.blocks]) as seen:
            out = lm.model(input_ids=ids[None], use_cache=False, output_attentions=True)
        weights = torch.cat(out.attentions).float()  # [blocks, heads, query, key]
        entropies.append(torch.special.entr(weights).sum(-1)[..., 1:])
        before = [seen[block][1][0, targets - 1] for block in lm.blocks]
        losses.append(torch.stack([_nll(head(final(h)), ids[targets]) for h in before]))
        scales.append(
            torch.stack([torch.stack([_rms(x) for x in seen[norm]]) for norm in norms.values()])
        )
        if i < N_MAPS:
            _add_map(trainer, phase, f"held_out_{i}", ids, weights[-1, MAP_HEAD])
    entropy = torch.cat(entropies, -1).mean(-1).cpu()  # [blocks, heads]
    block, head = (index.flatten().tolist() for index in np.indices(entropy.shape))
    trainer.add_rows(
        "attention_entropy",
        phase=phase,
        block=block,
        head=head,
        entropy=entropy.flatten().tolist(),
    )
    nll = torch.cat(losses, -1).mean(-1).tolist()
    trainer.add_rows("logit_lens", phase=phase, block=list(range(len(nll))), nll=nll)
    rms_in, rms_out = torch.cat(scales, -1).mean(-1).T.tolist()
    trainer.add_rows("norms", phase=phase, norm=list(norms), rms_in=rms_in, rms_out=rms_out)


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """[n]"""
    return cross_entropy(logits.float(), targets, reduction="none")


def _rms(x: Tensor) -> Tensor:
    """Of the tokens of one sequence but for the first: x [1, T, *, d] -> [T - 1]."""
    rms = x[0, 1:].float().square().mean(-1).sqrt()
    return rms[:, None].flatten(1).mean(1)  # some models have a norm of each head


def _add_map(trainer: Trainer, phase: str, prompt_id: str, ids: Tensor, weights: Tensor) -> None:
    """weights [query, key], of keys not after their query."""
    T = min(len(ids), MAP_TOKENS)
    tokens = [trainer.lm.tokenizer.decode([i]) for i in ids[:T].tolist()]
    query, key = np.tril_indices(T)
    trainer.add_rows(
        "attention_maps",
        phase=phase,
        prompt_id=prompt_id,
        block=len(trainer.lm.blocks) - 1,
        head=MAP_HEAD,
        query=query,
        key=key,
        query_token=[tokens[i] for i in query],
        key_token=[tokens[i] for i in key],
        weight=weights.cpu().numpy()[query, key],
    )
