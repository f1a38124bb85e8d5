"""Training objectives: closed forms, gradients, stacks."""

import pytest
import torch

from compressor.objectives import mse_and_gradient, nested_mse, objective

D, B = 7, 20
EXACT = {"rtol": 1e-12, "atol": 1e-12}
NAMES = ("mse", "relative", "cosine")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def projection(k, seed=0):
    return torch.linalg.qr(normal(D, k, seed=seed))[0].T[None]


@pytest.mark.parametrize("offset", [torch.zeros(D, dtype=torch.float64), normal(D, seed=5)])
@pytest.mark.parametrize("name", NAMES)
def test_objectives_are_their_definitions_token_by_token(name, offset):
    X, W = normal(3, B, D), normal(3, 4, D, seed=1) / 3
    expected = []
    for x, w in zip(X, W, strict=True):
        terms = []
        for token in x:
            xhat = offset + (token - offset) @ (w.T @ w)
            error2 = ((xhat - token) ** 2).sum()
            cos = token @ xhat / (token.norm() * xhat.norm())
            terms.append({"mse": error2 / D, "relative": error2 / token.norm() ** 2,
                          "cosine": 1 - cos}[name])  # fmt: skip
        expected.append(torch.stack(terms).mean())
    torch.testing.assert_close(objective(name)(X, W, offset), torch.stack(expected), **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_shared_by_a_stack_is_the_batch_of_each(name):
    """And rows of zeros, which pad a W of fewer rows, change nothing."""
    X, W, offset = normal(1, B, D), normal(2, 4, D, seed=1), normal(D, seed=2)
    W[1, 2:] = 0
    alone = [objective(name)(X, w, offset) for w in (W[:1], W[1:, :2])]
    torch.testing.assert_close(objective(name)(X, W, offset), torch.cat(alone), **EXACT)


def test_errors_and_cosines_of_a_projection_obey_pythagoras():
    """cos^2 + |e|^2 / |x|^2 = 1 for every token."""
    for token in normal(B, 1, 1, D):
        cos, relative = (objective(name)(token, projection(3), torch.zeros(D).double())
                         for name in ("cosine", "relative"))  # fmt: skip
        torch.testing.assert_close((1 - cos) ** 2 + relative, torch.ones(1).double(), **EXACT)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_gradient_of_mse_is_that_of_autograd_and_the_closed_form(center, shared):
    """-(2/D) W (2C - CM - MC) with the batch's C about the offset."""
    X, W = normal(1 if shared else 3, B, D), normal(3, 4, D, seed=1).requires_grad_()
    offset = normal(D, seed=2) if center else torch.zeros(D, dtype=torch.float64)
    expected = objective("mse")(X, W, offset)
    (by_autograd,) = torch.autograd.grad(expected.sum(), W)
    loss, gradient = mse_and_gradient(X, W, offset)
    assert not gradient.requires_grad
    torch.testing.assert_close(loss, expected.detach(), **EXACT)
    torch.testing.assert_close(gradient, by_autograd, **EXACT)
    Y, W = X - offset, W.detach()
    C, M = Y.mT @ Y / B, W.mT @ W
    torch.testing.assert_close(gradient, -2 / D * W @ (2 * C - C @ M - M @ C), **EXACT)


def test_rows_of_zeros_get_a_gradient_of_exactly_zero():
    W = normal(2, 5, D, seed=1).float()
    W[0, 3:] = 0
    X, offset = normal(2, B, D).float(), normal(D, seed=2).float()
    loss, gradient = mse_and_gradient(X, W, offset)
    assert (gradient[0, 3:] == 0).all()
    assert (gradient[1] != 0).all()
    unpadded, part = mse_and_gradient(X[:1], W[:1, :3], offset)
    torch.testing.assert_close(gradient[:1, :3], part, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss[:1], unpadded, rtol=1e-5, atol=0)


def test_the_optimum_has_no_gradient():
    X = normal(1, B, D)
    _, V = torch.linalg.eigh(X[0].T @ X[0] / B)
    _, gradient = mse_and_gradient(X, V.T[None, -3:], torch.zeros(D, dtype=torch.float64))
    assert gradient.abs().max() < 1e-12


def test_nested_loss_is_the_weighted_sum_over_the_prefixes():
    X, W, offset = normal(2, B, D), normal(2, 5, D, seed=1), normal(D, seed=2)
    parts = [w * objective("mse")(X, W[:, :k], offset) for k, w in ((1, 0.2), (3, 0.3), (5, 0.5))]
    found = nested_mse(X, W, offset, (1, 3, 5), (0.2, 0.3, 0.5))
    torch.testing.assert_close(found, sum(parts), **EXACT)
    whole = nested_mse(X, W, offset, (5,), (1.0,))
    torch.testing.assert_close(whole, objective("mse")(X, W, offset), **EXACT)


@pytest.mark.parametrize("name", ["relative", "cosine"])
def test_tokens_of_zero_and_reconstructions_of_zero_spoil_no_gradient(name):
    X, offset = normal(1, 4, D), torch.zeros(D, dtype=torch.float64)
    X[0, 1] = 0
    X[0, 2] = torch.eye(D)[-1]  # W does not see it
    W = torch.eye(3, D, dtype=torch.float64)[None].requires_grad_()
    loss = objective(name)(X, W, offset)
    (gradient,) = torch.autograd.grad(loss.sum(), W)
    seen = objective(name)(X[:, [0, 3]], W, offset).item() * 2
    at_zero = {"relative": 0, "cosine": 1}[name]
    assert loss.item() == pytest.approx((seen + at_zero + 1) / 4)  # the unseen one adds 1 to both
    assert gradient.isfinite().all()


def test_cosine_knows_no_scale_of_the_weights():
    X, offset = normal(1, B, D), torch.zeros(D, dtype=torch.float64)
    loss = objective("cosine")
    small, large = (loss(X, scale * projection(3), offset) for scale in (0.01, 10))
    torch.testing.assert_close(small, large, **EXACT)


def test_a_small_start_keeps_its_digits_in_float32():
    """xhat is 1e-4 x there: taken as x plus an error it would have three digits left."""
    X, W, offset = normal(1, B, D), 0.01 * projection(3), torch.zeros(D, dtype=torch.float64)
    exact = objective("cosine")(X, W, offset)
    found = objective("cosine")(X.float(), W.float(), offset.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
