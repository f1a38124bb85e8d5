"""Hidden states of all passages, from block to block, as the metrics see them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from memdyn.neighbours import nearest_neighbours
from plugins.lm.models import LM


@dataclass(frozen=True)
class LayerStates:
    """States of n tokens before and after the step from block l to block l + 1.

    A metric of one set of states is that of `Y`, the step's outcome.
    """

    X: Tensor  # [n, d] float32 after block l
    Y: Tensor  # [n, d] float32 after block l + 1
    Y_initial: Tensor  # [n, d] after block l + 1 at epoch 0, of the same tokens
    passage: Tensor  # [n] int64, which passage a token belongs to, 0 .. 2N - 1
    group: Tensor  # [2N] int64, index into GROUPS
    k: int  # neighbours of a token

    @cached_property
    def neighbours(self) -> Tensor:
        """[n, k] int64: the k tokens that are nearest in X, the token itself left out."""
        return nearest_neighbours(self.X, self.k)

    @cached_property
    def group_of_token(self) -> Tensor:
        """[n] int64"""
        return self.group[self.passage]


@dataclass(frozen=True)
class Values:
    """A metric at one layer."""

    group: Tensor  # [2], of GROUPS; nan where undefined
    passage: Tensor | None = None  # [2N]


@contextmanager
def recording_states(lm: LM, positions: Sequence[int]) -> Iterator[list[list[Tensor]]]:
    """Outputs of the B blocks at some positions of the passages that pass the model inside.

    A list per block, an entry [passages * positions, d] float32 per pass. The last block's output
    is taken before the final norm, unlike transformers' hidden_states[-1], which lies on another
    scale.
    """
    states: list[list[Tensor]] = [[] for _ in lm.blocks]
    index = torch.tensor(list(positions), device=next(lm.model.parameters()).device)

    def keep(place: list[Tensor]):
        def hook(module, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            place.append(hidden.index_select(1, index).flatten(0, 1).float())

        return hook

    with ExitStack() as hooks:
        for block, place in zip(lm.blocks, states, strict=True):
            hooks.callback(block.register_forward_hook(keep(place)).remove)
        yield states
