import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.kernels import mixing, network_mixing

KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])
N, K, H = 40, 4, 8


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def instance(dtype, index=np.int32, n=N, k=K, seed=0, density=0.2):
    """(Hermitian CSR with diagonal and isolated rows, radii, feasible Y)."""
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=density, rng=rng).toarray() * gaussian(rng, (n, n), dtype)
    A[[2, n - 1]], A[:, [2, n - 1]] = 0, 0
    A[range(n), range(n)] = rng.standard_normal(n)
    C = sp.csr_array(A + A.conj().T)
    C.indptr, C.indices = C.indptr.astype(index), C.indices.astype(index)
    radius = rng.random(n) + 0.5
    Y = gaussian(rng, (n, k), dtype)
    return C, radius, Y * (radius / np.linalg.norm(Y, axis=1))[:, None]


def weights(seed=0, h=H, size=1.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(), size * rng.standard_normal((h, 3)), rng.standard_normal(h), size * rng.standard_normal(h)


def cost(C, Y):
    return np.vdot(Y, C @ Y).real


def twin(C, radius, order, a, W1, b1, W2, Y):
    """(decrease, |grad|^2 met on the way), Y in place."""
    start, grad2, off = cost(C, Y), 0.0, C - np.diag(C.diagonal())
    for i in order:
        g, y = off[i] @ Y, Y[i] / radius[i]
        if g.any():
            size, parts = np.linalg.norm(g), np.abs(off[i]) * radius
            c1, c2 = parts.sum(), np.linalg.norm(parts)
            w = 1 + 1 / (1 + np.exp(-a - W2 @ np.tanh(W1 @ [size / c2, size / c1, np.log(c1**2 / c2**2)] + b1)))
            u = -g / size
            q = (u @ y.conj()).real
            grad2 += 4 * size**2 * np.linalg.norm(u - q * y) ** 2
            theta = np.arctan2(np.linalg.norm(u - q * y), q)
            Y[i] = radius[i] * (np.sin((1 - w) * theta) * y + np.sin(w * theta) * u) / np.sin(theta)  # Slerp(y, u; w)
    return start - cost(C, Y), grad2


def sparse_sweep(C, radius, w, Y, order=None):
    order = np.arange(len(Y)) if order is None else order
    f = network_mixing.invariants(C.indptr, C.indices, C.data, radius)
    return network_mixing.network_sweep(C.indptr, C.indices, C.data, radius, order, f, *w, Y, np.empty(Y.shape[1], Y.dtype))


def dense_sweep(C, radius, w, Y):
    D, k = C.toarray(), Y.shape[1]
    np.fill_diagonal(D, 0)
    f = network_mixing.dense_invariants(D, radius)
    return network_mixing.dense_network_sweep(D, radius, f, *w, Y, np.empty((5, k), Y.dtype), np.empty(k, Y.dtype))


SWEEPS = pytest.mark.parametrize("sweep", [sparse_sweep, dense_sweep])


@KINDS
@SWEEPS
@pytest.mark.parametrize("h", [0, 1, H])
def test_same_as_twin(sweep, dtype, h):
    C, radius, Y = instance(dtype)
    Z = Y.copy()
    for l in range(3):
        w = weights(l, h)
        got, expected = sweep(C, radius, w, Y), twin(C.toarray(), radius, range(N), *w, Z)
        np.testing.assert_allclose(Y, Z, rtol=0, atol=1e-12)
        np.testing.assert_allclose(got, expected, rtol=1e-10)


@KINDS
def test_order_of_the_colours_and_long_indices(dtype):
    C, radius, Y = instance(dtype, np.int64)
    order, _ = mixing.greedy_colouring(C.indptr, C.indices)
    Z, w = Y.copy(), weights()
    got, expected = sparse_sweep(C, radius, w, Y, order), twin(C.toarray(), radius, order, *w, Z)
    np.testing.assert_allclose(Y, Z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@KINDS
@SWEEPS
def test_reported_descent_is_the_descent(sweep, dtype):
    """The decrease is never negative, and equals the difference of the costs to rounding, near the optimum too."""
    C, radius, Y = instance(dtype, seed=1)
    scale = abs(C).sum() * radius.max() ** 2
    for l in range(100):
        before = cost(C, Y)
        decrease, grad2 = sweep(C, radius, weights(l), Y)
        assert decrease >= 0 and grad2 >= 0
        assert abs(before - cost(C, Y) - decrease) <= 1e-14 * scale
    assert grad2 <= 1e-6 * scale
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), radius, rtol=1e-14)


@KINDS
@SWEEPS
def test_neither_unit_nor_basis_nor_diagonal_matters(sweep, dtype):
    C, radius, Y = instance(dtype)
    rng, w = np.random.default_rng(5), weights()
    Q = np.linalg.qr(gaussian(rng, (K, K), dtype))[0]
    turned, scaled, shifted = Y @ Q, Y.copy(), Y.copy()
    one = sweep(C, radius, w, Y)
    two = sweep(C, radius, w, turned)
    three = sweep(sp.csr_array(2.0**20 * C), radius, w, scaled)
    sweep(sp.csr_array((C + 50 * sp.eye_array(N)).astype(dtype)), radius, w, shifted)
    np.testing.assert_allclose(turned, Y @ Q, atol=1e-12)
    np.testing.assert_allclose(two, one, rtol=1e-11)
    assert np.array_equal(scaled, Y) and three == (2.0**20 * one[0], 2.0**40 * one[1])
    np.testing.assert_allclose(shifted, Y, atol=1e-12)


@KINDS
def test_sweep_is_inverted_by_the_inverse_turns(dtype):
    """Backwards through the rows, with the angle to u divided by -(w - 1)."""
    C, radius, Y = instance(dtype)
    start, w, off = Y.copy(), weights(size=0.3), C.toarray() - np.diag(C.diagonal())
    f = network_mixing.invariants(C.indptr, C.indices, C.data, radius)
    sparse_sweep(C, radius, w, Y)
    a, W1, b1, W2 = w
    for i in reversed(range(N)):
        g = off[i] @ Y
        if g.any():
            part = 1 / (1 + np.exp(-a - W2 @ np.tanh(W1 @ (f[i] * [np.linalg.norm(g), np.linalg.norm(g), 1]) + b1)))
            u, y = -g / np.linalg.norm(g), Y[i] / radius[i]
            phi = np.arccos((u @ y.conj()).real)
            e = (y - np.cos(phi) * u) / np.sin(phi)
            Y[i] = radius[i] * (np.cos(phi / part) * u - np.sin(phi / part) * e)
    np.testing.assert_allclose(Y, start, atol=1e-7)


@SWEEPS
def test_rows_without_a_direction_are_kept(sweep):
    """Isolated rows; rows at the antipode of -g, where every great circle is as good; rows that are at -g already."""
    C, radius, Y = instance(np.float64)
    kept = Y.copy()
    sweep(C, radius, weights(), Y)
    assert np.array_equal(Y[[2, -1]], kept[[2, -1]]) and not np.array_equal(Y[0], kept[0])
    pair = sp.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    for rows in ([[0.6, 0.8], [0.6, 0.8]], [[0.6, 0.8], [-0.6, -0.8]]):
        Y = np.array(rows)
        decrease, _ = sweep(pair, np.ones(2), weights(), Y)
        np.testing.assert_allclose(Y, rows, atol=1e-15)
        assert 0 <= decrease <= 1e-15


@SWEEPS
def test_saturated_perceptrons_stay_finite(sweep):
    """w from 1 to 2 inclusive, where the exponential overflows or vanishes."""
    C, radius, _ = instance(np.float64)
    for a in (-1e4, 1e4):
        Y = instance(np.float64)[2]
        before = cost(C, Y)
        decrease, _ = sweep(C, radius, (a, np.zeros((1, 3)), np.zeros(1), np.zeros(1)), Y)
        assert np.isfinite(Y).all() and decrease >= 0
        assert (decrease <= 1e-13 * abs(before)) == (a > 0), "w = 2 is an isometry that keeps the cost"


def test_invariants():
    C, radius, _ = instance(np.complex128)
    D = C.toarray()
    np.fill_diagonal(D, 0)
    parts = np.abs(D) * radius
    f = network_mixing.invariants(C.indptr, C.indices, C.data, radius)
    some = parts.any(axis=1)
    c1, c2 = parts[some].sum(axis=1), np.linalg.norm(parts[some], axis=1)
    np.testing.assert_allclose(f[some], np.stack([1 / c2, 1 / c1, np.log(c1**2 / c2**2)], axis=1), rtol=1e-13)
    assert not f[~some].any() and 0 < some.sum() < N
    np.testing.assert_allclose(network_mixing.dense_invariants(D, radius), f, rtol=1e-13)
    tiny = network_mixing.invariants(C.indptr, C.indices, 1e-300 * C.data, radius)
    np.testing.assert_allclose(tiny * [1e-300, 1e-300, 1], f, rtol=1e-12)


@KINDS
def test_no_allocation(dtype, allocations):
    C, radius, Y = instance(dtype)
    D, g, G = C.toarray(), np.empty(K, dtype), np.empty((5, K), dtype)
    np.fill_diagonal(D, 0)
    f = network_mixing.invariants(C.indptr, C.indices, C.data, radius)
    assert allocations(network_mixing.network_sweep, C.indptr, C.indices, C.data, radius, np.arange(N), f, *weights(), Y, g) == 0
    assert allocations(network_mixing.dense_network_sweep, D, radius, f, *weights(), Y, G, g) == 0


BLOCKS = pytest.mark.parametrize(("dtype", "d"), [(np.float64, 2), (np.float64, 3), (np.complex128, 2)])


def polar(M):
    U, _, V = np.linalg.svd(M, full_matrices=False)
    return U @ V


def blocks(dtype, d, q=10, k=5, seed=0):
    """(Hermitian C with blocks on the diagonal and one isolated block, sizes of its blocks, feasible Y)."""
    rng = np.random.default_rng(seed)
    mask = rng.random((q, q)) < 0.4
    mask[4], mask[:, 4] = False, False
    A = gaussian(rng, (q * d, q * d), dtype) * np.kron(mask + np.eye(q), np.ones((d, d)))
    C = A + A.conj().T
    sizes = np.sqrt((np.abs(C) ** 2).reshape(q, d, q, d).sum((1, 3)) / d)
    return C, sizes, np.concatenate([polar(gaussian(rng, (d, k), dtype)) for _ in range(q)])


def block_sweep(C, sizes, d, w, Y, order=None):
    C, S = sp.csr_array(C), sp.csr_array(sizes)
    order = np.arange(len(Y) // d) if order is None else order
    f = network_mixing.invariants(S.indptr, S.indices, S.data, np.ones(S.shape[0]))
    return network_mixing.block_network_sweep(C.indptr, C.indices, C.data, d, order, f, *w, Y, np.empty((d, Y.shape[1]), Y.dtype))


def cayley_twin(C, sizes, d, a, W1, b1, W2, Y):
    """``Y_i = Cay(W) U`` in a basis whose first rows are U, with W = [[S, B], [-B*, 0]] explicit, to ``Cay(-(w - 1) W) U``."""
    q, k = len(Y) // d, Y.shape[1]
    off = C * (1 - np.kron(np.eye(q), np.ones((d, d))))
    for i in range(q):
        rows, parts = slice(i * d, i * d + d), np.delete(sizes[i], i)
        G = off[rows] @ Y
        if not G.any():
            continue
        size, c1, c2 = np.linalg.norm(G) / np.sqrt(d), parts.sum(), np.linalg.norm(parts)
        rho = 1 / (1 + np.exp(-a - W2 @ np.tanh(W1 @ [size / c2, size / c1, 2 * np.log(c1 / c2)] + b1)))
        U = polar(-G)
        Q = np.concatenate([U, np.linalg.svd(U)[2][d:]])
        A, R = np.split(Y[rows] @ Q.conj().T, [d], axis=1)
        P = np.linalg.inv(np.eye(d) + A)
        B = P @ R
        W = np.block([[P.conj().T - P, B], [-B.conj().T, np.zeros((k - d, k - d))]])
        cayley = [np.linalg.solve(np.eye(k) - t * W, np.eye(k) + t * W)[:d] @ Q for t in (1, -rho)]
        np.testing.assert_allclose(cayley[0], Y[rows], atol=1e-9)  # W is the right one
        Y[rows] = cayley[1]
    return Y


@BLOCKS
def test_blocks_same_as_twin_and_descend(dtype, d):
    C, sizes, Y = blocks(dtype, d)
    Z, scale = Y.copy(), np.abs(C).sum()
    for l in range(4):
        before = cost(C, Y)
        decrease, grad2 = block_sweep(C, sizes, d, weights(l), Y)
        cayley_twin(C, sizes, d, *weights(l), Z)
        np.testing.assert_allclose(Y, Z, atol=1e-10)
        assert decrease >= 0 and grad2 > 0
        assert abs(before - cost(C, Y) - decrease) <= 1e-14 * scale
    for s in range(0, len(Y), d):
        np.testing.assert_allclose(Y[s : s + d] @ Y[s : s + d].conj().T, np.eye(d), atol=1e-12)


@BLOCKS
def test_blocks_isolated_or_without_direction_are_kept(dtype, d):
    C, sizes, Y = blocks(dtype, d)
    kept = Y.copy()
    block_sweep(C, sizes, d, weights(), Y)
    assert np.array_equal(Y[4 * d : 5 * d], kept[4 * d : 5 * d]) and not np.array_equal(Y[:d], kept[:d])
    pair = np.kron(np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(d)).astype(dtype)
    X = np.concatenate([kept[:d], kept[:d]])  # Y_1 = -U: the antipode
    decrease, _ = block_sweep(pair, np.array([[0.0, 1.0], [1.0, 0.0]]), d, weights(), X)
    np.testing.assert_allclose(X, np.concatenate([kept[:d], kept[:d]]), atol=1e-15)
    assert decrease == 0


def test_blocks_step_has_its_inverse():
    """The last block moves back with 1 / (w - 1)."""
    d = 3
    C, sizes, Y = blocks(np.float64, d)
    start, last = Y.copy(), np.array([9])
    a = 0.4
    plain = np.zeros((0, 3)), np.zeros(0), np.zeros(0)
    block_sweep(C, sizes, d, (a, *plain), Y, last)
    moved = Y.copy()
    off = C * (1 - np.kron(np.eye(10), np.ones((d, d))))
    U = polar(-(off[27:] @ Y))
    M, rho = Y[27:] @ U.T, 1 + np.exp(-a)
    P = np.linalg.inv(np.eye(d) + M)
    S = np.linalg.inv((np.eye(d) + rho**2 * (P + P.T - np.eye(d)) + rho * (P.T - P)) / 2)
    np.testing.assert_allclose((S - np.eye(d)) @ U - rho * S @ P @ (Y[27:] - M @ U), start[27:], atol=1e-10)
    assert not np.allclose(moved[27:], start[27:]) and np.array_equal(moved[:27], start[:27])


@KINDS
@pytest.mark.parametrize("angle", [2e-8, 1e-7, 1e-5, 9e-4, 2e-3])
def test_rows_near_the_antipode_keep_their_length_and_the_account(dtype, angle):
    """The direction of their great circle is what rounding has left of a small difference."""
    rng = np.random.default_rng(7)
    C, radius, w = sp.csr_array(np.array([[0, 1.0], [1, 0]], dtype)), np.ones(2), weights()
    for _ in range(20):
        Y = gaussian(rng, (2, K), dtype)
        Y /= np.linalg.norm(Y, axis=1)[:, None]
        v = gaussian(rng, K, dtype)
        v -= np.vdot(Y[1], v) * Y[1]
        Y[0] = np.cos(angle) * Y[1] + np.sin(angle) * v / np.linalg.norm(v)
        start = cost(C, Y)
        decrease, _ = sparse_sweep(C, radius, w, Y)
        np.testing.assert_allclose(np.linalg.norm(Y, axis=1), 1, rtol=0, atol=3e-13)
        assert decrease > 0.1 and abs(start - decrease - cost(C, Y)) < 1e-12
