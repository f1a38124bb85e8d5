"""What modules of a model read and write while sequences pass it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from qlora_probe.data import Tokens, collate, in_batches
from qlora_probe.hooks import looking


@contextmanager
def recording(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """First input and output of each module in the last pass inside.

    The last block's output is taken before the final norm, unlike transformers' hidden_states[-1],
    which lies on another scale.
    """
    seen = {}

    def keep(module, inputs, output):
        seen[module] = inputs[0], output[0] if isinstance(output, tuple) else output

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(keep).remove)
        yield seen


@torch.no_grad()
def block_outputs(
    model: nn.Module, blocks: Sequence[nn.Module], sequences: Sequence[Tokens]
) -> list[Tensor]:
    """A matrix [n, d] float32 per block, on the CPU: the n tokens of the sequences but for the
    first of each.

    The first token is a sink of attention whose state is far larger than all others in many
    pretrained models (Sun et al. 2024), and the same whatever follows.
    """
    found: list[list[Tensor]] = [[] for _ in blocks]
    with looking(model):
        for batch in in_batches(sequences):
            ids, _ = collate(batch)
            with recording(blocks) as seen:
                model(input_ids=ids.to(next(model.parameters()).device), use_cache=False)
            for place, block in zip(found, blocks, strict=True):
                _, hidden = seen[block]
                rows = zip(hidden, batch, strict=True)
                place += [h[1 : len(s.ids)].float().cpu() for h, s in rows]
    return [torch.cat(states) for states in found]
