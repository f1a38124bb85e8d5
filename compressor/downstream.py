"""What the language model loses when its states are replaced by their reconstructions."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from compressor.config import TrainConfig
from compressor.extract import batches, block_of, output_of
from compressor.model import Compressor
from compressor.states import States, load_model
from plugins.lm.models import LM

Change = Callable[[Tensor], Tensor]  # states [n, D] -> as many


@torch.no_grad()
def downstream(
    lm: LM,
    site: str,
    ids: Sequence[np.ndarray],
    keep: Sequence[np.ndarray],
    changes: Mapping[Hashable, Change],
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[Hashable, dict[str, float]]:
    """nll, kl and top1_agree by name of a change, and of "base", where nothing is replaced.

    States at `site` are replaced at the kept tokens of each sequence. Measured where a kept token
    predicts the next one: nll = mean -ln p(next), in nats a token; kl = mean KL(p_base || p);
    top1_agree: share with the same most likely token as base. Sums in float64.
    """
    sums, n, done = {name: np.zeros(3) for name in ("base", *changes)}, 0, 0
    for tokens, mask in batches(ids, lm.model.device):
        kept = torch.zeros_like(mask, dtype=torch.bool)
        for row, one in enumerate(keep[done : done + len(tokens)]):
            kept[row, : len(one)] = torch.from_numpy(one)
        done += len(tokens)
        measured = kept[:, :-1] & (mask[:, 1:] == 1)
        targets = tokens[:, 1:][measured][:, None]
        logits_of = _logits_of(lm, site, tokens, mask, kept)
        base = None
        for name in sums:
            logits = logits_of(changes.get(name))[:, :-1][measured]
            log_p = log_softmax(logits.float(), -1)
            base = log_p if base is None else base
            nll = -log_p.gather(1, targets)
            kl = (base.exp() * (base - log_p)).sum(-1)
            agree = log_p.argmax(-1) == base.argmax(-1)
            sums[name] += [part.double().sum().item() for part in (nll, kl, agree)]
        n += len(targets)
        on_progress(done / len(ids))
    names = ("nll", "kl", "top1_agree")
    return {
        name: dict(zip(names, (total / n).tolist(), strict=True)) for name, total in sums.items()
    }


def downstream_costs(
    cfg: TrainConfig,
    states: States,
    compressors: Sequence[Compressor],
    on_progress: Callable[[float], None],
) -> list[dict[str, float]]:
    """Columns of each: what its reconstructions cost the language model on the held-out text."""
    lm, sequences, spectrum = load_model(cfg), states.sequences, states.spectrum
    mu, n, seed = spectrum.offset.float(), sequences.n_train, cfg.data.seed
    changes: dict[Any, Any] = dict(enumerate(compressors))
    for k in {compressor.k for compressor in compressors}:
        changes["pca", k] = Compressor(spectrum.leading(k).float(), mu)
        changes["random", k] = random_projector(k, mu, seed)
    device = lm.model.device
    changes = {
        name: replace(c, W=c.W.to(device), mu=c.mu.to(device)) for name, c in changes.items()
    }
    heldout = sequences.ids[n:], sequences.keep[n:]
    found = downstream(lm, cfg.lm.site, *heldout, changes, on_progress)
    return [
        columns(found["base"], found[i], found["pca", c.k], found["random", c.k])
        for i, c in enumerate(compressors)
    ]


def columns(
    base: Mapping[str, float],
    rec: Mapping[str, float],
    pca: Mapping[str, float],
    random: Mapping[str, float],
) -> dict[str, float]:
    """nll_base, nll_rec, delta_nll, kl, top1_agree; those of pca and random end in their name."""
    row = {"nll_base": base["nll"]}
    for name, values in (("rec", rec), ("pca", pca), ("random", random)):
        end = "" if name == "rec" else f"_{name}"
        row |= {
            f"nll_{name}": values["nll"],
            f"delta_nll{end}": values["nll"] - base["nll"],
            f"kl{end}": values["kl"],
            f"top1_agree{end}": values["top1_agree"],
        }
    return row


def random_projector(k: int, mu: Tensor, seed: int) -> Compressor:
    """k orthonormal rows, uniform among all such."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(mu), k, generator=generator, dtype=torch.float64)).Q
    return Compressor(Q.T.float(), mu)


def _logits_of(
    lm: LM, site: str, tokens: Tensor, mask: Tensor, kept: Tensor
) -> Callable[[Change | None], Tensor]:
    """A function of a change: the logits [sequences, length, vocabulary] under it."""

    def replaced(states: Tensor, change: Change) -> Tensor:
        states = states.clone()
        states[kept] = change(states[kept].float()).to(states.dtype)
        return states

    def run(change: Change | None) -> Tensor:
        if change is None:
            return lm.model(tokens, attention_mask=mask, use_cache=False).logits
        with output_of(block, lambda states: replaced(states, change)):
            return run(None)

    block = block_of(lm, site)
    if block is not None:
        return run
    # After the last norm only the head follows: the model itself runs once.
    head = lm.model.get_output_embeddings()
    with input_of(head) as read:
        logits = run(None)
    [states] = read
    if not torch.equal(head(states), logits):
        raise ValueError(
            f"lm.site=post_norm: {type(lm.model).__name__} changes the logits after its head; "
            "eval.downstream=true needs another site there"
        )
    return lambda change: logits if change is None else head(replaced(states, change))


@contextmanager
def input_of(module: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collects what a module reads."""
    read: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        handle.remove()
