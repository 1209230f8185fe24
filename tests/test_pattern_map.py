"""A PatternMap is its MatrixMap, applied in another way."""

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.linear_maps import MatrixMap, as_linear_map, entries
from bmsdp.operators import LowRankPlusSparse, as_operator
from bmsdp.pattern_map import LONG, PatternMap, cost_with

from .general import hermitian

N = 25
KINDS = pytest.mark.parametrize("is_complex", [False, True])


def gaussian(rng, shape, is_complex):
    return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if is_complex else 0)


def rows(rng, is_complex):
    """Sparse, diagonal, empty and dense rows, and rank-one rows of both signs, short and long, in no order."""
    long, short = gaussian(rng, N, is_complex), np.zeros(N)
    long[:3], short[[4, 9, 20]] = 0, [1, -2, 0.5]
    out = [hermitian(rng, N, is_complex, 0.05), np.diag(rng.standard_normal(N)), np.zeros((N, N)), -3 * np.outer(long, long.conj())]
    out += [np.outer(short, short), hermitian(rng, N, is_complex), np.ones((N, N)), hermitian(rng, N, False, 0.1)]
    return [out[p] for p in rng.permutation(len(out))]


@pytest.fixture(params=["real", "complex", "real rows of a complex X", "no rank-one row", "entries"])
def case(request, rng):
    is_complex = "complex" in request.param
    if request.param == "entries":
        A = entries(N, [0, 3, 3, 24], [1, 3, 17, 24])
    else:
        A = as_linear_map(rows(rng, request.param == "complex"), N)
    if request.param == "no rank-one row":
        A = A.take(np.flatnonzero(np.diff(A.rows.indptr) < LONG))
    Y, U = gaussian(rng, (N, 4), is_complex), gaussian(rng, (N, 4), is_complex)
    return A, PatternMap(A, is_complex), Y, U, rng.standard_normal(A.m)


def test_same_map(case):
    A, P, Y, U, mu = case
    scale = 1e-13 * np.linalg.norm(A.rows.data) * np.linalg.norm(Y) * np.linalg.norm(U)
    assert (P.n, P.m) == (A.n, A.m)
    np.testing.assert_allclose(P.apply(Y, U), A.apply(Y, U), atol=scale)
    np.testing.assert_allclose(P.apply(Y, Y), A.apply(Y, Y), atol=scale)
    np.testing.assert_allclose(P.adjoint_mul(mu, U), A.matrix(mu) @ U, atol=scale)
    assert P.adjoint_mul(mu, U).dtype == U.dtype
    matrix = P.matrix(mu)
    assert (matrix is None) == bool(len(P.long))
    if matrix is not None:
        np.testing.assert_allclose(matrix.toarray(), A.matrix(mu).toarray(), atol=1e-14)
    dense = P.operator(mu).mul(np.eye(N, dtype=Y.dtype))
    np.testing.assert_allclose(dense, A.matrix(mu).toarray(), atol=scale)
    np.testing.assert_allclose(P.sparse(mu).toarray(), P.sparse(mu).toarray().conj().T, atol=0)


def test_adjoint(case):
    _, P, Y, U, mu = case
    scale = 1e-12 * np.linalg.norm(Y) * np.linalg.norm(U) * np.linalg.norm(mu) * N
    assert abs(mu @ P.apply(Y, U) - np.vdot(P.adjoint_mul(mu, Y), U).real) <= scale


def test_scaled(case):
    A, P, Y, U, mu = case
    scale = np.linspace(-2, 3, A.m) + 0.01
    one, two = P.scaled(scale), PatternMap(A.scaled(scale), np.iscomplexobj(Y))
    np.testing.assert_allclose(one.apply(Y, U), two.apply(Y, U), atol=1e-11)
    np.testing.assert_allclose(one.adjoint_mul(mu, U), two.adjoint_mul(mu, U), atol=1e-11)
    np.testing.assert_allclose(one.adjoint_mul(mu, U), P.adjoint_mul(scale * mu, U), atol=1e-11)
    np.testing.assert_allclose(P.apply(Y, U), A.apply(Y, U), atol=1e-11)  # the first is what it was


def test_long_rank_one_rows_are_kept_as_vectors(rng):
    A = as_linear_map(rows(rng, True), N)
    P = PatternMap(A, True)
    assert len(P.long) == 2 and np.all(np.diff(P.long) > 0)
    for j, sign, u in zip(P.long, P.sign, P.U.T, strict=True):
        np.testing.assert_allclose(sign * np.outer(u, u.conj()), A.rows[[j]].reshape((N, N)).toarray(), atol=1e-13)


@KINDS
@pytest.mark.parametrize("form", ["dense", "sparse", "low rank"])
def test_cost_with(rng, is_complex, form):
    A = as_linear_map(rows(rng, is_complex), N)
    C, z = hermitian(rng, N, is_complex), rng.standard_normal(A.m)
    u = gaussian(rng, (N, 2), is_complex)
    forms = {"dense": C, "sparse": sp.csr_array(C), "low rank": LowRankPlusSparse(sp.csr_array(C), u, np.array([2.0, -1]))}
    if form == "low rank":
        C = C + u @ np.diag([2.0, -1]) @ u.conj().T
    S = cost_with(as_operator(forms[form]), PatternMap(A, is_complex), z)
    np.testing.assert_allclose(S.mul(np.eye(N, dtype=u.dtype)), C - A.matrix(z).toarray(), atol=1e-11)


def test_unsorted_rows_and_no_rows():
    stacked = sp.csr_array((2, 9))
    stacked.indptr, stacked.indices, stacked.data = np.array([0, 3, 4]), np.array([3, 1, 0, 8]), np.array([2.0, 2, 5, -1])
    P, Y = PatternMap(MatrixMap(stacked, 3)), np.array([[1.0], [2], [3]])
    np.testing.assert_allclose(P.apply(Y, Y), [5 + 2 * 2 * 2, -9])
    np.testing.assert_allclose(P.matrix(np.array([1.0, 2])).toarray(), [[5, 2, 0], [2, 0, 0], [0, 0, -2]])
    none = PatternMap(MatrixMap(sp.csr_array((0, 9)), 3))
    assert none.apply(Y, Y).shape == (0,) and not none.adjoint_mul(np.zeros(0), Y).any()
