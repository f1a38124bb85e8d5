"""Projectors: each kind against its definition, what all kinds share, and what they may hold."""

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.utils._python_dispatch import TorchDispatchMode

from sublora.projectors import check_shape, dense, make_projector
from sublora.registry import matrices
from sublora.streams import stream

KINDS = matrices.names()
EXACT = ["dense_qr", "onehot", "rdkronqr"]
GPT2 = (351_744, 1000)  # LoRA parameters of rank 4 on GPT-2 small, its coordinates
SHAPES = [(512, 100), (512, 128), (3000, 150), (500, 1), (5, 3), (9, 9), (1, 1)]


def make(kind, rows, cols, *keys, cache_mb=256.0):
    return make_projector(kind, rows, cols, stream(0, *keys), cache_mb, "all")


def normals(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def gram(projector):
    """P^T P [d, d] float64 of the float32 entries."""
    P = projector.to_dense()
    return P.mT @ P


def identity_error(matrix):
    return (matrix - torch.eye(len(matrix), dtype=matrix.dtype)).abs().max().item()


# every kind


def test_kinds():
    assert set(KINDS) >= {"dense", "dense_qr", "fastfood", "onehot", "rdkronqr", "sparse"}


@pytest.mark.parametrize("cache_mb", [0, 256])
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_adjoint_are_products_with_one_matrix(kind, rows, cols, cache_mb):
    """float32 products of at most 3,000 terms: 1e-6 of the norms."""
    projector = make(kind, rows, cols, cache_mb=cache_mb)
    P, w, v = projector.to_dense(), normals(cols), normals(rows)
    assert projector.shape == tuple(P.shape) == (rows, cols)
    assert (projector(w) - P @ w.double()).norm() <= 1e-6 * w.norm()
    assert (projector.adjoint(v) - P.mT @ v.double()).norm() <= 1e-6 * v.norm()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"dense", "dense_qr"}))
def test_forward_and_adjoint_are_transposes_at_full_size(kind):
    """<P w, v> = <w, P^T v> to 1e-5 of |P w| |v|."""
    projector = make(kind, *GPT2)
    w, v = normals(GPT2[1]), normals(GPT2[0])
    theta = projector(w)
    left, right = theta.double() @ v.double(), w.double() @ projector.adjoint(v).double()
    assert abs(left - right) <= 1e-5 * theta.norm() * v.norm()


@pytest.mark.parametrize("cache_mb", [0, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_adjoints_of_any_order(kind, cache_mb):
    projector = make(kind, 40, 7, cache_mb=cache_mb).double()
    w, v = normals(7, dtype=torch.float64), normals(40, dtype=torch.float64)
    w.requires_grad_()
    v.requires_grad_()
    assert torch.autograd.gradcheck(projector, w)
    assert torch.autograd.gradcheck(projector.adjoint, v)
    assert torch.autograd.gradgradcheck(lambda x: projector(x) ** 2, w)


@pytest.mark.parametrize("cache_mb", [0, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_training_step_is_the_adjoint_bit_for_bit(kind, cache_mb):
    projector = make(kind, 3000, 400, cache_mb=cache_mb)
    w, v = normals(400).requires_grad_(), normals(3000)
    (projector(w) * v).sum().backward()
    assert torch.equal(w.grad, projector.adjoint(v))


@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_decides_every_bit(kind):
    P = make(kind, 300, 40, "a").to_dense()
    assert torch.equal(P, make(kind, 300, 40, "a").to_dense())
    assert not torch.equal(P, make(kind, 300, 40, "b").to_dense())


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_layers_or_sides_share_a_projector(kind):
    keys = [("projector", layer, side) for layer in range(4) for side in "AB"]
    images = {tuple(make(kind, 64, 10, *key)(normals(10)).tolist()) for key in keys}
    assert len(images) == len(keys)


@pytest.mark.parametrize("cache_mb", [0, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_and_device_follow_the_module_and_no_checkpoint_has_it(kind, cache_mb):
    projector = make(kind, 300, 40, cache_mb=cache_mb)
    P = projector.to_dense()
    assert not projector.state_dict()
    assert not list(projector.parameters())
    assert {b.dtype for b in projector.buffers()} <= {torch.float32, torch.int32}
    copied = copy.deepcopy(projector)
    double = copy.deepcopy(projector).double()
    assert torch.equal(copied.to_dense(), P)
    assert double(normals(40, dtype=torch.float64)).dtype == torch.float64
    assert (double.to_dense() - P).abs().max() <= 1e-6
    assert all(b.is_meta for b in copied.to("meta").buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_of_a_training_step_does_not_reach_the_projector(kind):
    projector, w, v = make(kind, 300, 40), normals(40).requires_grad_(), normals(300)
    expected = projector(w)
    with torch.autocast("cpu", torch.bfloat16):
        theta = projector(w)
        (theta * v).sum().backward()
    assert torch.equal(theta, expected)
    assert torch.equal(w.grad, projector.adjoint(v))


@pytest.mark.parametrize(("rows", "cols"), [(512, 100), (3000, 400), (500, 1), (9, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_unmoved_counts_the_zero_rows(kind, rows, cols):
    projector = make(kind, rows, cols)
    assert projector.unmoved == (projector.to_dense() == 0).all(1).sum()


# isometry


@pytest.mark.parametrize(("rows", "cols"), [*SHAPES, (1152, 800)])
@pytest.mark.parametrize("kind", EXACT)
def test_exact_kinds_are_isometries_in_float32(kind, rows, cols):
    projector = make(kind, rows, cols)
    assert projector.isometry == "exact"
    assert identity_error(gram(projector)) <= 2e-5


@pytest.mark.parametrize("kind", ["onehot", "rdkronqr"])
def test_exact_kinds_are_isometries_at_full_size(kind):
    """adjoint(forward(e_j)) = e_j for all 1,000 j, computed in float32 as in training."""
    projector = make(kind, *GPT2)
    product = torch.stack([projector.adjoint(projector(unit)) for unit in torch.eye(GPT2[1])])
    assert identity_error(product) <= 2e-5


@pytest.mark.parametrize(("rows", "cols"), [(1000, 100), (3000, 400), (4000, 33), (50, 40)])
def test_fastfood_eigenvalues_lie_in_the_band(rows, cols):
    """[(v-1) n/D, v n/D]; the trace is that of the columns' sums of squares."""
    n = 2 ** (cols - 1).bit_length()
    v = -(-rows // n)
    projector = make("fastfood", rows, cols)
    eigenvalues = torch.linalg.eigvalsh(gram(projector))
    assert projector.isometry == "band"
    assert eigenvalues.min() >= (v - 1) * n / rows - 1e-5
    assert eigenvalues.max() <= v * n / rows + 1e-5
    assert eigenvalues.max() - eigenvalues.min() > 1e-3  # the cut block is seen


def test_fastfood_band_at_full_size():
    """n = 1024: [0.998544, 1.001456]. The extreme eigenvalues by Lanczos, in float64."""
    projector = make("fastfood", *GPT2).double()
    d = GPT2[1]
    product = LinearOperator(
        (d, d),
        matvec=lambda x: projector.adjoint(projector(torch.from_numpy(x.ravel()))).numpy(),
        dtype=np.float64,
    )
    v0 = np.random.default_rng(0).standard_normal(d)
    low, high = (
        eigsh(product, 1, which=which, v0=v0, tol=1e-4, return_eigenvectors=False)[0]
        for which in ("SA", "LA")
    )
    # The cut block has 512 of its 1,024 rows: it keeps at least 488 of the 1,000 directions whole
    # and loses at least 488, so both ends of the band are reached.
    assert low == pytest.approx(0.998544, abs=1e-6)
    assert high == pytest.approx(1.001456, abs=1e-6)


@pytest.mark.parametrize(("rows", "cols"), [(512, 128), (512, 100), (1024, 5), (7, 1)])
def test_fastfood_is_exact_when_n_divides_the_rows(rows, cols):
    projector = make("fastfood", rows, cols)
    assert projector.isometry == "exact"
    assert identity_error(gram(projector)) <= 2e-5


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_mean_isometries_spread_as_their_law_says(kind):
    """P^T P of D=4,000, d=500. Off the diagonal: mean 0, sd sqrt(1/D), 124,750 entries (3 %).

    On it: dense sd sqrt(2/D), from 500 entries (15 % = 5 sd); sparse exactly 1.
    """
    D, d = 4000, 500
    projector = make(kind, D, d)
    product = gram(projector)
    assert projector.isometry == "mean"
    off = product[tuple(torch.triu_indices(d, d, 1))]
    assert abs(off.mean()) < 5 / np.sqrt(D * off.numel())
    assert off.std() * np.sqrt(D) == pytest.approx(1, abs=0.03)
    diagonal = product.diag()
    if kind == "dense":
        assert abs(diagonal.mean() - 1) < 5 * np.sqrt(2 / D / d)
        assert diagonal.std() / np.sqrt(2 / D) == pytest.approx(1, abs=0.15)
    else:
        assert (diagonal - 1).abs().max() <= 1e-6


# each kind against its definition


def test_onehot_columns_are_balanced_at_full_size():
    """351,744 = 744 columns of 352 rows and 256 of 351; every row is in one column."""
    D, d = GPT2
    projector = make("onehot", D, d)
    seen = torch.zeros(D)
    sizes = []
    for unit in torch.eye(d):
        column = projector(unit)
        rows = column.nonzero().squeeze(1)
        sizes.append(len(rows))
        assert (column[rows].abs() * len(rows) ** 0.5 - 1).abs().max() < 1e-6
        seen[rows] += 1
    assert sorted(sizes) == [351] * 256 + [352] * 744
    assert (seen == 1).all()


def test_onehot_signs_and_columns_are_random():
    """Signs: mean 0 +- 5/sqrt(D). Neighbouring rows share a column with chance 1/d."""
    P = make("onehot", 40_000, 10).to_dense()
    assert abs(P.sign().sum() / 40_000) < 5 / np.sqrt(40_000)
    column = P.abs().argmax(1)
    assert abs((column[1:] == column[:-1]).double().mean() - 0.1) < 5 * np.sqrt(0.09 / 40_000)


def test_rdkronqr_at_full_size():
    projector = make("rdkronqr", *GPT2)
    assert projector.q1.shape == projector.q2.shape == (593, 32)
    assert projector.unmoved == 95
    still = (projector(normals(1000)) == 0).nonzero().double() / GPT2[0]
    assert len(still) == 95
    assert abs(still.mean() - 0.5) < 5 / np.sqrt(12 * 95)  # anywhere: the rows are permuted
    neighbours = projector.row_of_entry.diff().abs().double()  # of random order: D/3 on average
    assert neighbours.mean() / GPT2[0] == pytest.approx(1 / 3, rel=0.01)


@pytest.mark.parametrize(("rows", "cols"), [(60, 7), (64, 16), (50, 5), (3, 1)])
def test_rdkronqr_is_a_kronecker_product_with_permuted_rows(rows, cols):
    projector = make("rdkronqr", rows, cols)
    product = np.kron(projector.q1.numpy(), projector.q2.numpy())[:, :cols]
    expected = np.zeros((rows, cols))
    expected[projector.row_of_entry.numpy()] = product
    np.testing.assert_allclose(projector.to_dense().numpy(), expected, atol=1e-6)
    assert len(product) > rows - np.sqrt(rows)  # fewer than D1 rows stay as they are


def test_orthonormal_factor_has_a_positive_triangle():
    """Q^T G = R: upper triangular with a positive diagonal, else Q would not be uniform."""
    Q = dense.orthonormal(stream(0, "q"), 30, 12)
    R = Q.T @ stream(0, "q").standard_normal((30, 12))
    np.testing.assert_allclose(np.tril(R, -1), 0, atol=1e-13)
    assert (np.diag(R) > 0).all()


@pytest.mark.parametrize(("rows", "cols"), [(100, 13), (64, 16), (70, 32), (20, 1), (5, 3)])
def test_fastfood_is_the_product_of_its_factors(rows, cols):
    """sqrt(n/D) H B2 Pi H B1 of every block as matrices, H = Walsh-Hadamard / sqrt n."""
    projector = make("fastfood", rows, cols)
    n = projector.signs1.shape[1]
    H = hadamard(n) / np.sqrt(n)
    b2 = np.sign(projector.signs2.numpy())
    pi = projector.permutation.numpy().reshape(-1, n) % n
    blocks = [
        H @ np.diag(b2[i]) @ np.eye(n)[pi[i]] @ H @ np.diag(projector.signs1[i].numpy())
        for i in range(len(pi))
    ]
    expected = np.sqrt(n / rows) * np.concatenate(blocks)[:rows, :cols]
    np.testing.assert_allclose(projector.to_dense().numpy(), expected, atol=1e-6)
    assert all(sorted(p) == list(range(n)) for p in pi)
    if n > 8:
        assert len({tuple(p) for p in pi}) == len({tuple(s) for s in b2}) == len(pi)


@pytest.mark.parametrize(("rows", "cols", "s"), [(3000, 50, 55), (500, 20, 22), (2, 2, 1)])
def test_sparse_columns_have_round_sqrt_rows_signs(rows, cols, s):
    P = make("sparse", rows, cols).to_dense()
    entries = P[P != 0]
    assert ((P != 0).sum(0) == s).all()
    np.testing.assert_allclose(entries.abs().numpy(), s**-0.5, rtol=1e-6)
    assert abs(entries.sign().mean()) <= 5 / np.sqrt(len(entries))


def test_sparse_rows_are_random():
    """A row has a Binomial(d, s/D) number of entries: mean and variance within 5 sd of 3,000."""
    P = make("sparse", 3000, 400).to_dense()
    counts, p = (P != 0).double().sum(1), 55 / 3000
    assert counts.mean() == pytest.approx(400 * p)
    assert counts.var() == pytest.approx(400 * p * (1 - p), rel=5 * np.sqrt(2 / 3000))


def test_dense_is_normal():
    """1.2 million entries times sqrt(D): mean 0, variance 1, fourth moment 3, each within 5 sd."""
    z = make("dense", 3000, 400).to_dense() * np.sqrt(3000)
    sd = 5 / np.sqrt(z.numel())
    assert abs(z.mean()) < sd
    assert abs((z**2).mean() - 1) < sd * np.sqrt(2)
    assert abs((z**4).mean() - 3) < sd * np.sqrt(96)


def test_dense_drawn_anew_equals_dense_kept():
    """Two chunks. Entries bit for bit; gradients in float64, their sums in another order: 1e-12."""
    kept, anew = make("dense", 60_000, 20), make("dense", 60_000, 20, cache_mb=0)
    assert kept.matrix.shape == (60_000, 20)
    assert not list(anew.buffers())
    assert [part.start for part, _ in anew.chunks()] == [0, 52_428]
    assert torch.equal(kept.to_dense(), anew.to_dense())
    gradients = []
    for projector in (kept.double(), anew):
        w = normals(20, dtype=torch.float64).requires_grad_()
        projector(w).square().sum().backward()
        gradients.append(w.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_dense_entries_do_not_depend_on_the_chunks(monkeypatch):
    one = make("dense", 300, 40, cache_mb=0).to_dense()
    monkeypatch.setattr(dense, "CHUNK_ENTRIES", 30)  # less than a row
    assert torch.equal(one, make("dense", 300, 40, cache_mb=0).to_dense())


@pytest.mark.parametrize(("cache_mb", "kept"), [(1, True), (0.999, False), (0, False)])
def test_dense_is_kept_up_to_cache_mb(cache_mb, kept):
    """1024 x 256 float32 entries are one MiB."""
    assert bool(list(make("dense", 1024, 256, cache_mb=cache_mb).buffers())) == kept


# memory


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that any operation under it gives."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.entries = max(
            [self.entries, *(t.untyped_storage().nbytes() // t.itemsize for t in tensors)]
        )
        return out


@pytest.mark.parametrize(
    ("kind", "held", "largest"),
    [
        ("onehot", 352_000 + 2 * 351_744, 352_000),  # weights, two permutations
        ("rdkronqr", 351_649 + 351_744 + 2 * 593 * 32, 351_744),
        ("fastfood", 4 * 344 * 1024 + 2 * 32**2, 344 * 1024),
        ("sparse", 4 * 593_000 + 351_744, 593_000),
    ],
)
def test_no_tensor_of_size_D_times_d(kind, held, largest):
    """Counted at full size: buffers, the tensors of a training step, bytes while it is drawn."""
    tracemalloc.start()
    projector = make(kind, *GPT2)
    _, drawing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    w, v = normals(1000).requires_grad_(), normals(GPT2[0])
    with LargestTensor() as seen:
        (projector(w) * v).sum().backward()
    assert sum(b.numel() for b in projector.buffers()) == held
    assert seen.entries == largest
    assert drawing < 150 * GPT2[0]  # bytes; a float64 matrix D x d would be 8000 * D


def test_dense_drawn_anew_holds_a_chunk():
    projector = make("dense", 20_000, 1000, cache_mb=0)
    w = normals(1000).requires_grad_()
    tracemalloc.start()
    with LargestTensor() as seen:
        projector(w).sum().backward()
    _, drawing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen.entries <= dense.CHUNK_ENTRIES
    assert drawing < 3 * 8 * dense.CHUNK_ENTRIES


# what a config can ask for


@pytest.mark.parametrize("kind", KINDS)
def test_more_coordinates_than_parameters_are_refused(kind):
    with pytest.raises(ValueError, match=r"subspace\.d gives group layer 3, B 101 .* 100 param"):
        make_projector(kind, 100, 101, stream(0), 256, "layer 3, B")


def test_an_unknown_kind_is_answered_with_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"'rdkronq'; did you mean 'rdkronqr'.*known: dense, dens"):
        make("rdkronq", 100, 10)


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (3, 2), (99, 82)])
def test_rdkronqr_without_room_is_dense_qr(rows, cols):
    """floor(sqrt D) < ceil(sqrt d): the same numbers as dense_qr from the same stream."""
    assert torch.equal(
        make("rdkronqr", rows, cols).to_dense(), make("dense_qr", rows, cols).to_dense()
    )


def test_rdkronqr_without_room_for_dense_qr_is_refused():
    check_shape("rdkronqr", 3200, 3125, "head, B")  # isqrt: 56 < 56 is false
    check_shape("onehot", 3200, 3199, "head, B")
    check_shape("rdkronqr", 3163, 3137, "head, B")
    with pytest.raises(ValueError, match=r"group head, B of 3200 parameters 3199 .*10,000,000"):
        check_shape("rdkronqr", 3200, 3199, "head, B")
