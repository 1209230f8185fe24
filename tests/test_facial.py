"""Rows that hold X on a face: found by brute force as well, and the change of variables against its dense definition."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp.facial import Face, rank_one, two_product, two_sum, zero_rows
from bmsdp.linear_maps import MatrixMap, as_linear_map
from bmsdp.operators import LowRankPlusSparse, as_operator
from bmsdp.slack_form import ProvedFace


def gaussian(rng, shape, complex_):
    out = rng.standard_normal(shape)
    return out + 1j * rng.standard_normal(shape) if complex_ else out


def hermitian(rng, n, complex_, density=1.0):
    M = np.triu(gaussian(rng, (n, n), complex_) * (rng.random((n, n)) < density))
    return M + M.conj().T


def is_rank_one(M):
    """+- u u* with two entries or more, up to rounding."""
    values = np.linalg.eigvalsh(M)
    large = np.abs(values) > 1e-12 * np.abs(values).max()
    return large.sum() == 1 and np.count_nonzero(np.diag(M)) > 1


@pytest.mark.parametrize("complex_", [False, True])
def test_rank_one_rows_are_found(complex_):
    """Among rows of all kinds, exactly those whose one eigenvalue is not 0; their vectors give them back."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n, rows = int(rng.integers(2, 8)), []
        for _ in range(8):
            u = gaussian(rng, n, complex_) * (rng.random(n) < 0.6)
            v = rng.integers(-3, 4, n) * (1j ** rng.integers(0, 4, n) if complex_ else 1.0)
            e = np.diag(rng.standard_normal(n))
            M = [np.outer(u, u.conj()), -2 * np.outer(v, v.conj()), hermitian(rng, n, complex_), e, np.outer(u, u.conj()) + e]
            M = M[int(rng.integers(5))]
            rows.append((M + M.conj().T) / 2)
        found = rank_one(as_linear_map(rows, n))
        assert [row.row for row in found] == [j for j, M in enumerate(rows) if M.any() and is_rank_one(M)], seed
        for row in found:
            u = np.zeros(n, complex)
            u[row.support] = row.values
            np.testing.assert_allclose(np.outer(u, u.conj()) / row.divisor, rows[row.row], atol=1e-14 * np.abs(rows[row.row]).max())
        some = rank_one(as_linear_map(rows, n), [row.row for row in found][1:])
        assert [row.row for row in some] == [row.row for row in found][1:]


def test_exactly_rank_one():
    """Integers and multiples of one number are; rounded products, and one unit in the last place, are not."""
    u, n = np.array([1.0, -2, 3]), 3
    w = np.array([1, 1j, -2 + 3j])
    for M in (np.outer(u, u), 0.1 * np.ones((n, n)), -(2.0**40) * np.outer(u, u), np.outer(w, w.conj()), 0.375 * np.outer(w, w.conj())):
        (row,) = rank_one(as_linear_map([M], n))
        assert row.exact
    x = np.array([0.1, 0.7, 1.3])
    for M in (np.outer(x, x), np.outer(x * w, (x * w).conj())):
        (row,) = rank_one(as_linear_map([(M + M.conj().T) / 2], n))
        assert not row.exact
    M = np.ones((2, 2))
    M[1, 1] = np.nextafter(1, 0)
    (row,) = rank_one(as_linear_map([M], 2))
    assert not row.exact and rank_one(as_linear_map([M - 1e-13 * np.eye(2)], 2)) == []


def test_unsorted_rows():
    M = sp.coo_array(np.outer([1.0, 2, 0, -1], [1.0, 2, 0, -1])).reshape(1, 16).tocsr()
    M.indices, M.data = M.indices[::-1].copy(), M.data[::-1].copy()
    M.has_sorted_indices = M.has_canonical_format = False
    (row,) = rank_one(MatrixMap(M, 4))
    assert row.exact and list(row.support) == [0, 1, 3] and row.divisor == 4


def test_error_free_transformations():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(200) * 10.0 ** rng.integers(-20, 20, 200) for _ in range(2))
    for transform, exact in ((two_sum, lambda x, y: x + y), (two_product, lambda x, y: x * y)):
        for x, y, s, e in zip(a, b, *transform(a, b), strict=True):
            assert Fraction(s) + Fraction(e) == exact(Fraction(x), Fraction(y))


def test_rows_of_one_sign():
    rows = [np.diag([1.0, 0, 2]), -np.diag([0.0, 0, 2]), np.diag([1.0, -1, 0]), np.ones((3, 3)), np.eye(3)]
    found = zero_rows(as_linear_map(rows, 3))
    assert [(row.row, list(row.support), list(row.a)) for row in found] == [(0, [0, 2], [1, 2]), (1, [2], [-2]), (4, [0, 1, 2], [1, 1, 1])]
    assert [row.row for row in zero_rows(as_linear_map(rows, 3), [1, 2])] == [1]


def faces(complex_):
    for seed in range(25):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 12))
        us = [gaussian(rng, n, complex_) * (rng.random(n) < 0.7) for _ in range(int(rng.integers(0, 3)))]
        us = [*us, 2 * us[0]] if us else us  # dependent
        zeros = rng.permutation(n)[: int(rng.integers(0, 3))]
        yield rng, n, us, zeros, Face(n, us, zeros)


@pytest.mark.parametrize("complex_", [False, True])
def test_the_basis(complex_):
    """V spans what is orthogonal to all u and e_i; lift, adjoint and restrict are its products."""
    for rng, n, us, zeros, face in faces(complex_):
        V = face.V.toarray()
        normals = np.array([*us, *np.eye(n)[zeros]]).reshape(-1, n)
        assert np.abs(normals.conj() @ V).max(initial=0) <= 1e-12
        assert V.shape[1] == np.linalg.matrix_rank(V) == n - np.linalg.matrix_rank(normals) == n - face.r
        Z, G = gaussian(rng, (n - face.r, 2), complex_), gaussian(rng, (n, 2), complex_)
        np.testing.assert_allclose(face.lift(Z), V @ Z, atol=1e-12)
        np.testing.assert_allclose(face.adjoint(G), V.conj().T @ G, atol=1e-12)
        np.testing.assert_array_equal(face.restrict(face.lift(Z)), Z)


@pytest.mark.parametrize("complex_", [False, True])
def test_costs_and_rows(complex_):
    """``V* C V`` in every form of C, and ``V* A_j V``."""
    for rng, n, _, _, face in faces(complex_):
        V = face.V.toarray()
        H, thin, U = hermitian(rng, n, complex_), hermitian(rng, n, complex_, 0.3), gaussian(rng, (n, 2), complex_)
        forms = (
            H,
            sp.csr_array(thin),
            LowRankPlusSparse(sp.csr_array(thin), U, [1.0, -2.0]),
            LowRankPlusSparse(H, U),
            spla.aslinearoperator(H),
        )
        for C in map(as_operator, forms):
            small = face.cost(C)
            full, got = C.mul(np.eye(n, dtype=C.dtype)), small.mul(np.eye(n - face.r, dtype=small.dtype))
            np.testing.assert_allclose(got, V.conj().T @ full @ V, atol=1e-10)
        A = as_linear_map([H, sp.csr_array(thin), np.eye(n)], n)
        reduced, y = face.rows(A), rng.standard_normal(3)
        np.testing.assert_allclose(reduced.matrix(y).toarray(), V.conj().T @ A.matrix(y).toarray() @ V, atol=1e-10)
        as_linear_map(reduced.rows, reduced.n)  # Hermitian


def test_what_sees_no_pivot_stays_sparse():
    n = 400
    C = sp.diags_array([np.ones(n - 1), 2 * np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()
    face = Face(n, [np.ones(n)])
    cost = face.cost(as_operator(C))
    assert isinstance(cost, LowRankPlusSparse) and cost.A.matrix().nnz <= C.nnz and cost.U.shape[1] == 2
    rows = face.rows(as_linear_map([np.diag(row) for row in np.eye(n)[:5]], n)).rows
    touched = np.diff(rows.indptr) > 1
    assert touched.sum() == (face.pivots < 5).sum() and (np.diff(rows.indptr)[~touched] == 1).all()
    local = Face(n, [np.eye(n)[0] - np.eye(n)[1], np.eye(n)[5] + np.eye(n)[7]])
    assert sp.issparse(local.W) and local.cost(as_operator(C)).matrix().nnz < 4 * n


def solved(P, K):
    """``-P^{-1} K`` in rational arithmetic."""
    M = [[Fraction(float(x)) for x in row] for row in np.hstack([P, -K])]
    r = len(M)
    for j in range(r):
        p = next(i for i in range(j, r) if M[i][j])
        M[j], M[p] = M[p], M[j]
        M[j] = [x / M[j][j] for x in M[j]]
        M = [row if i == j else [x - row[j] * y for x, y in zip(row, M[j], strict=True)] for i, row in enumerate(M)]
    return [row[r:] for row in M]


@pytest.mark.parametrize("complex_", [False, True])
def test_the_error_of_the_basis(complex_):
    """Against rational arithmetic: integers that are nearly dependent, and vectors with disjoint supports."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        n, r = 7, int(rng.integers(1, 4))
        U = rng.integers(-5, 6, (r, n)) + (1j * rng.integers(-5, 6, (r, n)) if complex_ else 0.0)
        if seed % 3 == 0 and r > 1:
            U[1] = 10.0**6 * U[0] + U[1]
        if seed % 4 == 1:
            U = np.array([row * (np.arange(n) % r == k) for k, row in enumerate(U)])
        proved = ProvedFace(Face(n, list(U)))
        assert proved.known and len(proved.pivots) == np.linalg.matrix_rank(U)
        P, K = (proved.face.U[:, part] for part in (proved.pivots, proved.kept))
        if complex_:
            P, K = (np.block([[M.real, -M.imag], [M.imag, M.real]]) for M in (P, K))
        exact, k = solved(P, K), len(proved.kept)
        W, error = (M.toarray() if sp.issparse(M) else M for M in (proved.W, proved.error))
        for i, j in np.ndindex(W.shape):
            off = (Fraction(float(W[i, j].real)) - exact[i][j]) ** 2
            if complex_:
                off += (Fraction(float(W[i, j].imag)) - exact[i + len(W)][j]) ** 2
            assert off <= Fraction(float(error[i, j])) ** 2, seed
        assert k + len(proved.pivots) == n and error.max() <= 1e-6
