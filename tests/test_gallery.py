import hashlib

import numpy as np
import pytest
from scipy import sparse

from bmsdp import gallery

GRAPHS = {
    "gnp": lambda rng: gallery.gnp(60, 0.1, rng),
    "random_regular": lambda rng: gallery.random_regular(60, 5, rng),
    "torus_pm1": lambda rng: gallery.toroidal_grid(6, 9, rng),
    "torus_gaussian": lambda rng: gallery.toroidal_grid(6, 9, rng, weights="gaussian"),
    "torus_lognormal": lambda rng: gallery.toroidal_grid(6, 9, rng, weights="lognormal"),
    "planted_partition": lambda rng: gallery.planted_partition(60, 4, 0.4, 0.05, rng),
    "hubs": lambda rng: gallery.hubs(200, rng),
    "wide_weights": lambda rng: gallery.wide_weights(60, 0.1, 6, rng),
}
COSTS = {
    "goe": lambda rng: gallery.goe(30, rng),
    "gue": lambda rng: gallery.gue(30, rng),
    "rank_one_optimal": lambda rng: gallery.rank_one_optimal(30, rng)[0],
    "waldspurger_waters": lambda rng: gallery.waldspurger_waters(12, 3, rng)[0],
    "synchronization": lambda rng: gallery.orthogonal_synchronization(8, 3, 0.1, rng)[0],
    "sparse_synchronization": lambda rng: gallery.orthogonal_synchronization(20, 3, 0.1, rng, p=0.3)[0],
}
FIXED = {
    "n_gon": lambda: gallery.n_gon(7, 2.0),
    "waldspurger_waters": lambda: gallery.waldspurger_waters(10, 3, 0),
    "complex_triangle": lambda: gallery.complex_triangle(2.0),
    "ocarroll": lambda: gallery.ocarroll(5),
}


def digest(C):
    return hashlib.sha256((C.toarray() if sparse.issparse(C) else C).tobytes()).hexdigest()


def slack(C, Y):
    return C - np.diag(np.real(np.sum((C @ Y) * Y.conj(), axis=1)))


def hessian(C, Y):
    """Matrix of Hess <C, YY*> on an orthonormal basis of the tangent space, K^{n x k} being a real space."""
    n, k = Y.shape
    units = [1, 1j] if np.iscomplexobj(Y) else [1]
    real = lambda A: np.concatenate([A.real, A.imag], axis=2).reshape(len(A), -1)  # noqa: E731
    E = np.concatenate([u * np.eye(n * k) for u in units]).reshape(-1, n, k)
    E = E - np.real(np.sum(E * Y.conj(), axis=2, keepdims=True)) * Y
    _, sizes, basis = np.linalg.svd(real(E), full_matrices=False)
    re, im = np.split(basis[sizes > 0.5].reshape(-1, n, 2 * k), 2, axis=2)
    return 2 * real(slack(C, Y) @ (re + 1j * im)) @ real(re + 1j * im).T


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_symmetric_and_simple(name):
    W = GRAPHS[name](0)
    assert isinstance(W, sparse.csr_array) and W.dtype == float and W.indices.dtype == np.int32
    assert W.has_sorted_indices and W.has_canonical_format and np.all(W.data != 0)
    assert (W != W.T).nnz == 0 and not W.diagonal().any()


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_hermitian(name):
    C = COSTS[name](0)
    C = C.toarray() if sparse.issparse(C) else C
    assert np.array_equal(C, C.conj().T) and C.dtype in (np.float64, np.complex128)


@pytest.mark.parametrize("name", GRAPHS | COSTS)
def test_seeds_reproduce_and_no_global_state(name):
    make = (GRAPHS | COSTS)[name]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert digest(make(7)) == digest(make(7)) == digest(make(np.random.default_rng(7)))
    assert digest(make(7)) != digest(make(8))
    assert digest(make(None)) != digest(make(None))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_pairs_are_the_triangle():
    for n in range(7):
        i, j = gallery._pairs(n, 1.0, np.random.default_rng(0))
        assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(a, b) for a in range(n) for b in range(a + 1, n)]


def test_gnp_density_and_far_indices():
    n, p = 200_000, 2e-5
    W = gallery.gnp(n, p, 0)
    pairs = n * (n - 1) / 2
    assert abs(W.nnz / 2 - p * pairs) < 5 * np.sqrt(p * pairs)
    assert np.all(W.data == 1)
    degrees = W.sum(axis=1)
    assert abs(degrees[: n // 2].mean() - degrees[n // 2 :].mean()) < 0.1


def test_gaussian_moments():
    off = ~np.eye(300, dtype=bool)
    assert abs(np.var(gallery.goe(300, 0)[off]) - 1) < 0.03 and not gallery.goe(300, 0).diagonal().any()
    W = gallery.gue(300, 0)
    assert abs(np.mean(abs(W[off]) ** 2) - 1) < 0.03 and abs(np.mean(W[off] ** 2)) < 0.03
    assert abs(np.linalg.eigvalsh(W)[0] / np.sqrt(300) + 2) < 0.1


@pytest.mark.parametrize("n, d", [(1, 0), (2, 1), (5, 2), (6, 3), (7, 4), (10, 9), (50, 24), (60, 31), (2000, 6)])
def test_random_regular_degrees(n, d):
    for seed in range(3):
        W = gallery.random_regular(n, d, seed)
        assert np.all(W.sum(axis=1) == d) and np.all(W.data == 1) and not W.diagonal().any() and (W != W.T).nnz == 0


def test_random_regular_reaches_both_kinds_of_cubic_graphs():
    # 70 labelled cubic graphs on 6 vertices: 60 prisms, with triangles, and 10 K33
    triangles = [np.trace(np.linalg.matrix_power(gallery.random_regular(6, 3, s).toarray(), 3)) > 0 for s in range(300)]
    assert 0.75 < np.mean(triangles) < 0.95


def test_torus():
    W = gallery.toroidal_grid(4, 6, weights="unit")
    assert np.all(W.sum(axis=1) == 4) and W.nnz == 4 * 24
    x = (-1.0) ** np.add.outer(np.arange(4), np.arange(6)).ravel()
    assert np.array_equal(W @ x, -4 * x)
    assert set(gallery.toroidal_grid(5, 5, 0).data) == {-1.0, 1.0}
    w = gallery.toroidal_grid(60, 60, 0, weights="lognormal").data
    assert abs(np.mean(np.sign(w))) < 0.05 and abs(np.mean(np.log(np.abs(w)))) < 0.1 and abs(np.std(np.log(np.abs(w))) - 1.5) < 0.05


def test_planted_partition_densities():
    n, k = 400, 4
    W = gallery.planted_partition(n, k, 0.5, 0.1, 0).toarray()
    same = np.equal.outer(np.arange(n) * k // n, np.arange(n) * k // n)
    assert abs(W[same].mean() - 0.5 * 99 / 100) < 0.02 and abs(W[~same].mean() - 0.1) < 0.01
    assert set(np.unique(W)) == {0.0, 1.0}


def test_hubs_have_huge_degree():
    degrees = gallery.hubs(2000, 0, count=3).sum(axis=1)
    assert np.all(degrees[:3] > 800) and np.max(degrees[3:]) < 30
    assert np.all(gallery.hubs(2000, 0).data == 1)


def test_wide_weights_span_the_decades():
    size = np.log10(abs(gallery.wide_weights(300, 0.1, 6, 0).data))
    assert -3 <= size.min() < -2.9 and 2.9 < size.max() <= 3 and abs(size.mean()) < 0.1
    b = gallery.random_radii(1000, 4, 0)
    assert np.all(b > 0) and 3.9 < np.log10(b.max() / b.min()) <= 4


@pytest.mark.parametrize("cond", [1.5, 50.0])
def test_rank_one_optimal(cond):
    C, x, optimum = gallery.rank_one_optimal(25, 3, cond)
    S = slack(C, x[:, None])
    eigenvalues = np.linalg.eigvalsh(S)
    assert set(x) == {-1.0, 1.0} and not C.diagonal().any()
    assert np.allclose(S @ x, 0, atol=1e-12) and abs(x @ C @ x - optimum) < 1e-11
    assert np.allclose(eigenvalues[[0, 1, -1]], [0, 1, cond], atol=1e-11)


@pytest.mark.parametrize("name", FIXED)
def test_adversarial_points_are_critical_and_not_optimal(name):
    C, V, optimum = FIXED[name]()
    n, S = len(C), slack(C, V)
    scale = np.linalg.norm(C, 2)
    assert np.allclose(np.linalg.norm(V, axis=1), 1)
    assert abs(np.vdot(V, C @ V)) < 1e-12 * n * scale and np.linalg.norm(S @ V) < 1e-13 * n * scale
    assert np.linalg.eigvalsh(S)[0] < -0.1
    assert abs(C.sum() - optimum) < 1e-12 * n * scale
    # J has the slack C - (optimum / n) I >= 0: the lower bound is the value
    assert np.linalg.eigvalsh(C - optimum / n * np.eye(n))[0] > -1e-13 * n * scale
    assert np.linalg.eigvalsh(hessian(C, V))[0] > -1e-13 * n * scale


def test_pentagon():
    C, V, optimum = gallery.n_gon(5, 3.0)
    assert np.allclose(C[0], [1, -1.17082039, 0.17082039, 0.17082039, -1.17082039])
    assert optimum == -5 and abs(np.linalg.eigvalsh(slack(C, V))[0] + 1) < 1e-14
    assert np.allclose(np.linalg.eigvalsh(hessian(C, V)), [0, 2, 2, 3, 3], atol=1e-13)
    assert np.linalg.eigvalsh(hessian(*gallery.n_gon(5, 0.9)[:2]))[0] < -0.09


@pytest.mark.parametrize("n", range(5, 13))
def test_n_gon_threshold_is_tau0(n):
    below, above = (np.linalg.eigvalsh(hessian(*gallery.n_gon(n, t)[:2])) for t in (0.95, 1.05))
    assert abs(below[0] + 0.05) < 1e-12
    assert abs(above[0]) < 1e-12 and above[1] > 0.04


def test_complex_triangle_threshold_is_one():
    for t in (0.95, 1.05, 2.0):
        C, V, optimum = gallery.complex_triangle(t)
        assert abs(np.linalg.eigvalsh(slack(C, V))[0] + 1) < 1e-14 and optimum == -3
        assert (np.linalg.eigvalsh(hessian(C, V))[0] < -1e-3) == (t < 1)


@pytest.mark.parametrize("n, k", [(5, 2), (10, 3), (14, 3), (14, 4)])
def test_waldspurger_waters_is_strict_up_to_rotations(n, k):
    C, V, _ = gallery.waldspurger_waters(n, k, 1)
    assert abs(V.sum(axis=0)).max() < 1e-12
    scale = np.linalg.norm(C, 2)
    H = np.linalg.eigvalsh(hessian(C, V))
    assert np.sum(H < 1e-12 * n * scale) == k * (k - 1) // 2
    assert H[k * (k - 1) // 2] > 1e-3


@pytest.mark.parametrize(
    "k, optimum, smallest, zeros",
    [(2, -8, -2, 2), (4, -3.2, -0.4, 12), (10, -2.352941, -0.1176471, 90), (25, -2.127660, -0.0425532, 600)],
)
def test_ocarroll_numbers(k, optimum, smallest, zeros):
    A, Y, value = gallery.ocarroll(k)
    assert abs(value - optimum) < 1e-6 and abs(A.sum() - value) < 1e-10
    assert np.array_equal(slack(A, Y), A) and np.all(A @ Y == 0)
    assert abs(np.linalg.eigvalsh(A)[0] - smallest) < 1e-6
    if k <= 10:
        H = np.linalg.eigvalsh(hessian(A, Y))
        assert H[0] > -1e-13 and np.sum(H < 1e-10) == zeros and abs(H[zeros] - 2 / (k - 1.5)) < 1e-10


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_noiseless_synchronization_has_the_planted_optimum(p):
    q, d = 9, 3
    C, R = gallery.orthogonal_synchronization(q, d, 0.0, 5, p)
    assert sparse.issparse(C) == (p < 1)
    C = C.toarray() if p < 1 else C
    blocks = R.reshape(q, d, d)
    assert np.allclose(blocks @ blocks.transpose(0, 2, 1), np.eye(d))
    edges = np.count_nonzero(np.linalg.norm(C.reshape(q, d, q, d), axis=(1, 3))) / 2
    assert abs(np.sum((C @ R) * R) + 2 * d * edges) < 1e-10
    Lambda = [R[i : i + d] @ (C @ R)[i : i + d].T for i in range(0, q * d, d)]
    S = C.copy()
    for i, L in zip(range(0, q * d, d), Lambda, strict=True):
        S[i : i + d, i : i + d] -= L
    assert np.linalg.eigvalsh(S)[0] > -1e-12 and np.allclose(S @ R, 0)


@pytest.mark.parametrize(
    "call, needed",
    [
        (lambda: gallery.random_regular(5, 3), "n d even"),
        (lambda: gallery.random_regular(4, 4), "0 <= d < n"),
        (lambda: gallery.toroidal_grid(2, 5), "3 x 3"),
        (lambda: gallery.toroidal_grid(3, 5, weights="x"), "pm1"),
        (lambda: gallery.n_gon(4, 2.0), "n = 5"),
        (lambda: gallery.waldspurger_waters(8, 3), "9"),
        (lambda: gallery.ocarroll(1), "k = 2"),
    ],
)
def test_bad_arguments_say_what_is_needed(call, needed):
    with pytest.raises(ValueError, match=needed):
        call()
