"""Extreme eigenvalues by Lanczos and exact Hessian products, against dense matrices."""

import math

import pytest
import torch

from qlora_probe.lanczos import extreme_eigenvalues, hessian_product, preconditioned

SMALL = torch.tensor([-5.0, 3.0, 1.0, 0.5], dtype=torch.float64)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def symmetric(spectrum, seed=0):
    Q = torch.linalg.qr(normal(len(spectrum), len(spectrum), seed=seed)).Q
    return Q * spectrum @ Q.T


def net():
    """A loss of 4-6-3 weights with enough curvature of both signs, and its flat parameters."""
    sizes = (6, 4), (6,), (3, 6), (3,)
    params = [normal(*size, seed=i).requires_grad_() for i, size in enumerate(sizes)]
    X, y = normal(20, 4, seed=9), torch.arange(20) % 3

    def loss(W1, b1, W2, b2):
        return torch.nn.functional.cross_entropy(torch.tanh(X @ W1.T + b1) @ W2.T + b2, y)

    return loss, params


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def test_both_ends_of_a_small_diagonal():
    """Four steps span the space; the sixteen others would divide by rounding errors."""
    found = extreme_eigenvalues(lambda v: SMALL * v, torch.ones(4, dtype=torch.float64))
    assert (found.top, found.bottom) == pytest.approx((3, -5), abs=1e-12)
    assert max(found.residual) < 1e-12


def test_power_iteration_finds_the_largest_modulus_which_is_no_sharpness():
    v = torch.ones(4, dtype=torch.float64)
    for _ in range(100):
        v = SMALL * v / (SMALL * v).norm()
    power = (v @ (SMALL * v)).item()
    assert power == pytest.approx(-5, abs=1e-12)
    found = extreme_eigenvalues(lambda v: SMALL * v, torch.ones(4, dtype=torch.float64))
    assert found.top == pytest.approx(3)


def test_separated_ends_of_200_dimensions_in_ten_steps():
    """Kaniel-Paige: the error falls as T_8(7)^-2 ~ 1e-18 for a bulk in -1 .. 1 and an end at 7."""
    spectrum = torch.cat([SMALL.new_tensor([-10, 7]), torch.linspace(-1, 1, 198).double()])
    H, products = symmetric(spectrum), []
    found = extreme_eigenvalues(lambda v: products.append(1) or H @ v, normal(200, seed=1), 10)
    assert (found.top, found.bottom) == pytest.approx((7, -10), abs=1e-6)
    assert len(products) == 10


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_an_eigenvalue_lies_within_the_residual_of_each_end(steps):
    H = symmetric(normal(60, seed=2))
    spectrum = torch.linalg.eigvalsh(H)
    found = extreme_eigenvalues(lambda v: H @ v, normal(60, seed=3), steps)
    for value, residual in zip((found.top, found.bottom), found.residual, strict=True):
        assert (spectrum - value).abs().min() <= residual * (1 + 1e-9)
    assert spectrum[0] <= found.bottom <= found.top <= spectrum[-1]
    assert min(found.residual) > 1e-6  # unfinished, and says so


def test_the_residual_is_that_of_the_ritz_vector():
    """One step: theta = q^T H q and H q - theta q, for both ends."""
    H, q = symmetric(normal(9, seed=2)), normal(9, seed=3)
    q = q / q.norm()
    found = extreme_eigenvalues(lambda v: H @ v, 7 * q, 1)
    theta = q @ H @ q
    assert found.top == found.bottom == pytest.approx(theta.item(), rel=1e-12)
    assert found.residual == pytest.approx(((H @ q - theta * q).norm().item(),) * 2, rel=1e-12)


def test_top_and_bottom_have_their_own_residuals():
    """The top stands apart and is found; the bottom is the edge of a bulk and is not."""
    spectrum = torch.cat([SMALL.new_tensor([50.0]), torch.linspace(-1, 1, 99).double()])
    H = symmetric(spectrum)
    found = extreme_eigenvalues(lambda v: H @ v, normal(100, seed=1), 10)
    assert found.residual[0] < 1e-6 < 1e-3 < found.residual[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_invariant_subspace_ends_the_search(dtype):
    """Three distinct eigenvalues: three products, whatever the dimension."""
    d = torch.tensor([-2.0, 1.0, 4.0], dtype=dtype).repeat(50)
    products = []
    start = normal(150, seed=4, dtype=dtype)
    found = extreme_eigenvalues(lambda v: products.append(v.dtype) or d * v, start)
    assert products == [dtype] * 3
    assert (found.top, found.bottom) == pytest.approx((4, -2), rel=1e-5)
    assert max(found.residual) < 1e-3


def test_the_zero_operator():
    found = extreme_eigenvalues(torch.zeros_like, normal(5))
    assert (found.top, found.bottom, found.residual) == (0, 0, (0, 0))


def test_vectors_stay_orthogonal_over_many_steps():
    """Without reorthogonalisation found ends return as copies, and inner values go wrong."""
    d = torch.cat([torch.linspace(0, 1, 98), torch.tensor([100.0, 1000.0])])
    seen = []
    extreme_eigenvalues(lambda v: seen.append(v) or d * v, normal(100, dtype=torch.float32), 60)
    Q = torch.stack(seen).double()
    assert (Q @ Q.T - torch.eye(len(Q))).abs().max() < 1e-5


def test_float32_sums_over_many_parameters_do_not_spoil_the_ends():
    """With float32 dot products and norms: 2e-5 off at 200,000 numbers, 1e-4 at 2,000,000."""
    d = torch.linspace(-1, 1, 200_000)
    d[0], d[1] = -10, 7
    start = normal(len(d), dtype=torch.float32)
    found = extreme_eigenvalues(lambda v: d * v, start, 12)
    assert (found.top, found.bottom) == pytest.approx((7, -10), abs=2e-6)


def test_a_product_that_is_not_finite_gives_nan():
    found = extreme_eigenvalues(lambda v: v * math.inf, normal(5))
    assert all(map(math.isnan, (found.top, found.bottom, *found.residual)))


def test_hessian_products_are_differences_of_gradients():
    """Central difference, eps .01, direction of norm 1: the error is O(eps^2)."""
    loss, params = net()
    product = hessian_product(loss(*params), params)
    direction = normal(51, seed=5)
    direction /= direction.norm()
    parts = direction.split([p.numel() for p in params])

    def gradient(eps):
        moved = [
            (p + eps * part.view_as(p)).detach().requires_grad_()
            for p, part in zip(params, parts, strict=True)
        ]
        return flat(torch.autograd.grad(loss(*moved), moved))

    difference = (gradient(0.01) - gradient(-0.01)) / 0.02
    assert (product(direction) - difference).norm() / difference.norm() < 1e-3


def test_hessian_products_are_those_of_the_dense_hessian_and_its_ends():
    loss, params = net()
    sizes = [p.numel() for p in params]
    theta = flat(params).detach()

    def of_flat(theta):
        parts = zip(theta.split(sizes), params, strict=True)
        return loss(*(part.view_as(p) for part, p in parts))

    H = torch.autograd.functional.hessian(of_flat, theta)
    product = hessian_product(loss(*params), params)
    rows = torch.stack([product(v) for v in torch.eye(51, dtype=torch.float64)])
    torch.testing.assert_close(rows, H, rtol=1e-9, atol=1e-12)
    found = extreme_eigenvalues(product, normal(51, seed=6), 40)
    ends = torch.linalg.eigvalsh(H)[[-1, 0]].tolist()
    assert (found.top, found.bottom) == pytest.approx(ends, abs=1e-6)
    assert found.bottom < -0.01  # the loss is not convex: both ends are tested


def test_hessian_products_leave_no_gradient_behind():
    loss, params = net()
    extreme_eigenvalues(hessian_product(loss(*params), params), normal(51), 3)
    assert all(p.grad is None for p in params)


def test_the_preconditioned_spectrum_is_that_of_the_inverse_times_the_hessian():
    H, p = symmetric(normal(12, seed=2)), normal(12, seed=7).exp()
    found = extreme_eigenvalues(preconditioned(lambda v: H @ v, p), normal(12, seed=8))
    spectrum = torch.linalg.eigvals(H / p[:, None])
    assert spectrum.imag.abs().max() < 1e-9
    ends = (spectrum.real.max().item(), spectrum.real.min().item())
    assert (found.top, found.bottom) == pytest.approx(ends, rel=1e-9)
