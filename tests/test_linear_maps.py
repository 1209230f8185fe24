import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.linear_maps import LinearMap, MatrixMap, as_linear_map
from bmsdp.manifolds import Oblique

N, M = 5, 4
KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def matrices(dtype, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(M):
        A = gaussian(rng, (N, N), dtype) * (rng.random((N, N)) < 0.4)
        out.append(A + A.conj().T)
    return out


def stacked(A):
    return sp.csr_array(np.array([A_j.ravel() for A_j in A]))


def long_indices(A):
    A = stacked(A)
    A.indptr, A.indices = A.indptr.astype(np.int64), A.indices.astype(np.int64)
    return A


def split_entries(A):
    S = stacked(A).tocoo()
    twice = [np.concatenate([c, c]) for c in S.coords]
    return sp.coo_array((np.concatenate([S.data / 2, S.data / 2]), twice), shape=S.shape)


FORMS = {
    "list": list,
    "tuple": tuple,
    "3-d array": np.array,
    "sparse": lambda A: [sp.csr_array(A_j) for A_j in A],
    "sparse matrices": lambda A: [sp.csc_matrix(A_j) for A_j in A],
    "mixed": lambda A: [sp.coo_array(A[0]), A[1], A[2].tolist(), sp.csr_matrix(A[3])],
    "stacked": stacked,
    "stacked csc": lambda A: sp.csc_array(stacked(A)),
    "stacked matrix": lambda A: sp.csr_matrix(stacked(A)),
    "stacked, int64": long_indices,
    "stacked, duplicates": split_entries,
    "map": lambda A: as_linear_map(A, N),
}


@KINDS
@pytest.mark.parametrize("form", FORMS)
def test_same_as_dense(form, dtype, rng):
    A = matrices(dtype)
    map_ = as_linear_map(FORMS[form](A), N)
    assert isinstance(map_, LinearMap) and (map_.n, map_.m) == (N, M)
    Y, U, mu = gaussian(rng, (N, 3), dtype), gaussian(rng, (N, 3), dtype), rng.standard_normal(M)
    np.testing.assert_allclose(map_.apply(Y, U), [np.vdot(A_j @ Y, U).real for A_j in A], atol=1e-13)
    X = Y @ Y.conj().T
    np.testing.assert_allclose(map_.apply(Y, Y), [np.sum(A_j.conj() * X).real for A_j in A], atol=1e-12)
    total = sum(m * A_j for m, A_j in zip(mu, A, strict=True))
    np.testing.assert_allclose(map_.adjoint_mul(mu, U), total @ U, atol=1e-13)
    np.testing.assert_allclose(map_.matrix(mu).toarray(), total, atol=1e-14)
    assert np.isclose(mu @ map_.apply(Y, U), np.vdot(map_.adjoint_mul(mu, Y), U).real)


def test_complex_factors_of_a_real_map(rng):
    A = matrices(np.float64)
    map_ = as_linear_map(A, N)
    Y, U = gaussian(rng, (N, 2), complex), gaussian(rng, (N, 2), complex)
    np.testing.assert_allclose(map_.apply(Y, U), [np.vdot(A_j @ Y, U).real for A_j in A], atol=1e-13)


def test_integers_and_empty_rows():
    map_ = as_linear_map([np.eye(2, dtype=int), np.zeros((2, 2)), sp.csr_array(np.array([[0, 3], [3, 0]]))], 2)
    Y = np.array([[1.0], [2.0]])
    np.testing.assert_allclose(map_.apply(Y, Y), [5, 0, 12])
    np.testing.assert_allclose(map_.matrix(np.array([1.0, 9, 2])).toarray(), [[1, 6], [6, 1]])


def test_manifold_is_a_map():
    M = Oblique(np.ones(3))
    assert as_linear_map(M, 3) is M
    with pytest.raises(ValueError, match="A acts on 3 x 3 matrices but C is 4 x 4"):
        as_linear_map(M, 4)


def test_large_n_needs_long_indices():
    n = 60_000  # n^2 > 2^31
    A = sp.coo_array(([1.0, 2.0, 2.0], ([n - 1, 0, n - 1], [n - 1, n - 1, 0])), shape=(n, n))
    map_ = as_linear_map([A, sp.eye_array(n)], n)
    assert isinstance(map_, MatrixMap)
    Y = np.zeros((n, 1))
    Y[0], Y[-1] = 3, 5
    np.testing.assert_allclose(map_.apply(Y, Y), [25 + 4 * 15, 34])
    assert map_.matrix(np.array([1.0, 0.0]))[0, n - 1] == 2


def message(A, n=3):
    with pytest.raises(ValueError) as caught:
        as_linear_map(A, n)
    return str(caught.value)


def test_wrong_shapes():
    assert "A[1] has shape (2, 2) but C is 3 x 3" in message([np.eye(3), np.eye(2)])
    assert "A[0] has shape (3, 2)" in message([np.ones((3, 2))])
    assert "(2, 8)" in message(sp.csr_array((2, 8))) and "m x 9" in message(sp.csr_array((2, 8)))
    assert "no matrix" in message([])
    assert "pass a sequence" in message(np.eye(3)) and "ndarray" in message(np.eye(3))
    assert "pass a sequence" in message(5)


def test_one_dimensional_matrix():
    text = message([np.eye(3), np.ones(3)])
    assert "A[1]" in text and "(3,)" in text


def test_no_rows():
    text = message(sp.csr_array((0, 9)))
    assert "at least one" in text


def test_not_hermitian():
    A = np.zeros((3, 3))
    A[0, 2] = 1
    text = message([np.eye(3), A])
    assert "A_1 is not Hermitian" in text and ("(0, 2)" in text) and "(A_j + A_j*) / 2" in text
    A[2, 0] = 1.5
    assert "A_0" in message([A]) and "(0, 2)" in message([A])
    assert "A_2" in message(sp.csr_array(np.array([np.eye(3).ravel(), np.eye(3).ravel(), A.ravel()])))
    B = np.zeros((3, 3), complex)
    B[0, 1] = B[1, 0] = 1j
    assert "A_0 is not Hermitian" in message([B])
    assert "A_0 is not Hermitian" in message([1j * np.eye(3)])
    B[1, 0] = -1j
    assert as_linear_map([B], 3).m == 1


def test_not_finite():
    A = np.eye(3)
    A[1, 1] = np.nan
    assert "A_1 has an entry that is NaN or infinite" in message([np.eye(3), A])


def test_not_numbers():
    assert "numbers" in message([np.array([[None] * 3] * 3)]) or "dtype" in message([np.array([[None] * 3] * 3)])
