"""Initial weights that are balanced and aligned with the teacher."""

from itertools import pairwise

import pytest
import torch
from dln_cases import small, trainer

from dln.config import ModelConfig


@pytest.mark.parametrize("num_hidden", [0, 1, 3])
def test_aligned_weights_are_balanced_and_in_the_teachers_modes(num_hidden):
    """W_l W_l^T = W_{l+1}^T W_{l+1}, and E = c^L I with c = hidden_dim^(-gamma / 2)."""
    cfg = small(model__init="aligned", model__num_hidden=num_hidden)
    gammas = [1.0, 0.5]
    state = trainer(cfg, {"model.gamma": gammas, "data.data_seed": [0, 3]}, 2)
    E = torch.eye(3, dtype=torch.float64)
    for W in state.weights:
        E = W @ E
    for product, gamma in zip(E, gammas, strict=True):
        expected = 6 ** (-gamma / 2 * (num_hidden + 1)) * torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-13)
    for W, after in pairwise(state.weights):
        torch.testing.assert_close(W @ W.mT, after.mT @ after, rtol=0, atol=1e-13)
    rotation, first = state.dataset.spread(state.dataset.rotation), state.weights[0]
    modes = first @ rotation.mT if num_hidden else rotation @ first @ rotation.mT
    gram = modes.mT @ modes  # of W_0 on the modes: diagonal
    diagonal = torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(gram, diagonal, rtol=0, atol=1e-13)


def test_aligned_networks_of_two_seeds_differ_in_their_hidden_bases_only():
    state = trainer(small(model__init="aligned"), {"model.model_seed": [0, 1]}, 2)
    a, b = state.weights[0]
    assert not torch.isin(a, b).any()
    torch.testing.assert_close(a.mT @ a, b.mT @ b, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"init": "align"}, "init must be one of normal, aligned, got 'align'"),
        ({"init": "aligned", "hidden_dim": 4}, "init=aligned needs hidden_dim >= in_dim, got 4"),
    ],
)
def test_starts_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)
