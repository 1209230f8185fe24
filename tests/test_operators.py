import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp import operators
from bmsdp.operators import LowRankPlusSparse, Operator, as_operator, spectral_norm

N = 12


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def hermitian(dtype, n=N, density=0.4, seed=0):
    rng = np.random.default_rng(seed)
    A = gaussian(rng, (n, n), dtype) * (rng.random((n, n)) < density)
    return A + A.conj().T


def long_indices(C):
    C = sp.csr_array(C)
    C.indptr, C.indices = C.indptr.astype(np.int64), C.indices.astype(np.int64)
    return C


def unsorted(C):
    """The same matrix with every entry split in two halves, columns in falling order."""
    C = sp.csr_array(C)
    indices = np.concatenate([np.repeat(C.indices[s:t][::-1], 2) for s, t in zip(C.indptr[:-1], C.indptr[1:], strict=True)])
    data = np.concatenate([np.repeat(C.data[s:t][::-1] / 2, 2) for s, t in zip(C.indptr[:-1], C.indptr[1:], strict=True)])
    return sp.csr_array((data, indices, 2 * C.indptr), shape=C.shape)


def low_rank(C):
    """C as sparse part plus outer products."""
    rng = np.random.default_rng(1)
    U, d = gaussian(rng, (len(C), 3), C.dtype), np.array([2.0, -1.0, 0.5])
    return LowRankPlusSparse(sp.csr_array(C - (U * d) @ U.conj().T), U, d)


def no_entries(C):
    return spla.LinearOperator(C.shape, matvec=lambda v: C @ v, matmat=lambda V: C @ V, dtype=C.dtype)


FORMS = {
    "ndarray": np.array,
    "fortran": np.asfortranarray,
    "view": lambda C: np.kron(C, np.ones((2, 2)))[::2, ::2],
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "lil_array": sp.lil_array,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "coo_matrix": sp.coo_matrix,
    "int64 indices": long_indices,
    "duplicates, unsorted": unsorted,
    "LinearOperator": no_entries,
    "aslinearoperator": lambda C: spla.aslinearoperator(sp.csr_array(C)),
    "LowRankPlusSparse": low_rank,
    "low rank + dense": lambda C: LowRankPlusSparse(C - np.ones((N, 1)) @ np.ones((1, N)), np.ones((N, 1))),
    "congruence": lambda C: as_operator(no_entries(C[::-1, ::-1])).congruence(np.ones(N), np.arange(N)[::-1]),
}
EVERY = pytest.mark.parametrize("form", FORMS)
KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


@KINDS
@EVERY
def test_products_agree_with_dense(form, dtype, rng):
    C = hermitian(dtype)
    op = as_operator(FORMS[form](C))
    assert isinstance(op, Operator) and op.n == N and op.dtype == dtype and op.is_complex == (dtype == np.complex128)
    assert as_operator(op) is op
    scale = 1e-13 * np.abs(C).sum()
    for k in (1, 4):
        Y = gaussian(rng, (N, k), dtype)
        kept = Y.copy()
        out = op.mul(Y)
        np.testing.assert_allclose(out, C @ Y, atol=scale)
        assert out.flags.c_contiguous and out.dtype == dtype and np.array_equal(Y, kept)
    v = gaussian(rng, N, dtype)
    np.testing.assert_allclose(op.mul(v), C @ v, atol=scale)
    assert op.mul(v).shape == (N,)


@KINDS
@EVERY
def test_entries(form, dtype, rng):
    C = hermitian(dtype)
    op = as_operator(FORMS[form](C))
    scale, v = 1e-13 * np.abs(C).sum(), rng.random(N)
    if op.matrix() is not None:
        matrix = op.matrix().toarray() if sp.issparse(op.matrix()) else op.matrix()
        np.testing.assert_allclose(matrix, C, atol=scale)
        assert np.array_equal(matrix, matrix.conj().T)
        np.testing.assert_allclose(op.abs_mul(v), np.abs(C) @ v, atol=scale)
    if op.diagonal() is not None:
        assert op.diagonal().dtype == np.float64
        np.testing.assert_allclose(op.diagonal(), C.diagonal().real, atol=scale)
    if op.abs_mul(v) is not None:
        assert np.all(op.abs_mul(v) >= np.abs(C) @ v - scale)


@KINDS
@EVERY
def test_congruence(form, dtype, rng):
    C = hermitian(dtype)
    op = as_operator(FORMS[form](C))
    scale, perm, v = rng.random(N) + 0.5, rng.permutation(N), rng.random(N)
    D = scale[:, None] * C[np.ix_(perm, perm)] * scale
    other = op.congruence(scale, perm)
    Y, tol = gaussian(rng, (N, 3), dtype), 1e-13 * np.abs(C).sum()
    np.testing.assert_allclose(other.mul(Y), D @ Y, atol=tol)
    np.testing.assert_allclose(other.mul(Y[:, 0]), D @ Y[:, 0], atol=tol)
    assert other.n == N and other.dtype == dtype
    if other.abs_mul(v) is not None:
        assert np.all(other.abs_mul(v) >= np.abs(D) @ v - tol) and other.rounding >= 2
    if other.diagonal() is not None:
        np.testing.assert_allclose(other.diagonal(), D.diagonal().real, atol=tol)
    if sp.issparse(other.matrix()):
        assert other.matrix().has_sorted_indices
    again = other.congruence(1 / scale[np.argsort(perm)][perm], np.arange(N))  # undoes the scaling
    np.testing.assert_allclose(again.mul(Y), C[np.ix_(perm, perm)] @ Y, atol=10 * tol)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, int, np.float32, np.complex64])
@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.coo_array])
def test_number_types(make, dtype):
    C = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]]).astype(dtype)
    op = as_operator(make(C))
    assert op.dtype == (np.complex128 if np.dtype(dtype).kind == "c" else np.float64)
    np.testing.assert_allclose(op.mul(np.eye(3, dtype=op.dtype)), C.astype(op.dtype))


def test_lists_are_read():
    np.testing.assert_allclose(as_operator([[1, 2], [2, 3]]).mul(np.eye(2)), [[1, 2], [2, 3]])


def test_callers_matrix_is_not_touched():
    C = unsorted(hermitian(np.float64))
    kept = C.copy()
    as_operator(C)
    assert all(np.array_equal(getattr(C, a), getattr(kept, a)) for a in ("data", "indices", "indptr"))


@KINDS
def test_compiled_product(dtype, monkeypatch, rng):
    """Above SMALL_PRODUCT the row-major kernel, on one thread or more, gives the same."""
    monkeypatch.setattr(operators, "SMALL_PRODUCT", 0)
    C = hermitian(dtype, 60)
    for make in (sp.csr_array, long_indices):
        op = as_operator(make(C))
        Y = gaussian(rng, (60, 5), dtype)
        serial = op.mul(Y)
        np.testing.assert_allclose(serial, C @ Y, atol=1e-12)
        np.testing.assert_allclose(op.mul(Y[:, 0].copy()), C @ Y[:, 0], atol=1e-12)
        np.testing.assert_allclose(op.mul(Y.astype(complex)), C @ Y, atol=1e-12)
    op = as_operator(sp.csr_array(C))
    op.threads = 2
    if dtype is np.float64:
        assert np.array_equal(op.mul(Y), serial)
    else:  # the order of sums is the same, but how complex products are contracted is the compiler's choice
        np.testing.assert_allclose(op.mul(Y), serial, atol=1e-13)


@KINDS
def test_product_with_fortran_factor(dtype, monkeypatch, rng):
    monkeypatch.setattr(operators, "SMALL_PRODUCT", 0)
    C = hermitian(dtype)
    Y = np.asfortranarray(gaussian(rng, (N, 3), dtype))
    np.testing.assert_allclose(as_operator(sp.csr_array(C)).mul(np.ascontiguousarray(Y)), C @ Y, atol=1e-12)


# refusals


def message(C):
    with pytest.raises(ValueError) as caught:
        as_operator(C)
    return str(caught.value)


@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.coo_array, sp.csc_matrix])
def test_asymmetric(make):
    C = np.zeros((5, 5))
    C[0, 3] = 0.5
    C[1, 2] = C[2, 1] = 7
    C[4, 1], C[1, 4] = 1, 1.25
    text = message(make(C))
    assert "not symmetric" in text and "0.5" in text and ("(0, 3)" in text or "(3, 0)" in text) and "(C + C.T) / 2" in text
    text = message(make(1j * (C + C.T)))
    assert "not Hermitian" in text and "C.conj().T" in text and "28 at (1, 2)" in text


@pytest.mark.parametrize("make", [np.array, sp.csr_array])
def test_rounding_asymmetry_is_averaged_away(make):
    C = hermitian(np.float64)
    i, j = np.argwhere(C)[3]
    D = C.copy()
    D[i, j] *= 1 + 4e-16
    op = as_operator(make(D))
    A = op.matrix() if isinstance(op.matrix(), np.ndarray) else op.matrix().toarray()
    assert np.array_equal(A, A.T) and np.allclose(A, C, rtol=1e-15)
    D[i, j] = C[i, j] + 1e-12 * np.abs(C).max()
    assert f"({min(i, j)}, {max(i, j)})" in message(make(D)) or f"({max(i, j)}, {min(i, j)})" in message(make(D))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.coo_array])
def test_not_finite(make, bad):
    C = np.eye(4)
    C[1, 2] = C[2, 1] = bad
    text = message(make(C))
    assert "C[1, 2]" in text and str(bad) in text and "finite" in text


def test_not_finite_operator():
    C = np.eye(3)
    C[1, 1] = np.nan
    assert "NaN" in message(no_entries(C))


@pytest.mark.parametrize("make", [np.array, sp.csr_array, no_entries])
def test_not_square(make):
    text = message(make(np.ones((2, 3))))
    assert "(2, 3)" in text and "square" in text


def test_other_shapes():
    assert "0 x 0" in message(np.zeros((0, 0)))
    assert "0 x 0" in message(sp.csr_array((0, 0)))
    assert "(3,)" in message(np.ones(3))
    assert "(2, 2, 2)" in message(np.ones((2, 2, 2)))
    assert "()" in message(1.0)
    assert "cannot be read" in message([[1, 2], [3]])


def test_not_numbers():
    assert "object" in message(np.array([[1, None], [None, 1]]))
    assert "numbers" in message(np.array([["a", "b"], ["b", "a"]]))
    assert "shape ()" in message("graph.rud") or "numbers" in message("graph.rud")
    assert "shape ()" in message(None)


def test_operator_that_is_not_hermitian():
    C = hermitian(np.float64)
    C[0, 1] += 1
    text = message(no_entries(C))
    assert "not Hermitian" in text and "pass (C + C*) / 2" in text
    assert "not Hermitian" in message(no_entries(1j * hermitian(np.float64)))


def test_low_rank_refusals():
    U = np.ones((4, 2))
    for arguments, text in [
        ((None, np.full((4, 1), np.nan)), "finite"),
        ((None, np.ones((2, 2, 2))), "n x r"),
        ((None, U, [1.0]), "2 finite real weights"),
        ((None, U, [1.0, np.inf]), "2 finite real weights"),
        ((np.eye(3), U), "must agree"),
        ((np.triu(np.ones((4, 4))), U), "not symmetric"),
    ]:
        with pytest.raises(ValueError, match=text):
            LowRankPlusSparse(*arguments)


def test_low_rank_types():
    real = LowRankPlusSparse(None, np.ones((3, 1), int))
    assert real.dtype == np.float64
    np.testing.assert_allclose(real.mul(np.eye(3)), np.ones((3, 3)))
    mixed = LowRankPlusSparse(np.eye(3), 1j * np.ones((3, 1)))
    assert mixed.dtype == np.complex128
    np.testing.assert_allclose(mixed.mul(np.eye(3, dtype=complex)), np.eye(3) + np.ones((3, 3)))
    other = LowRankPlusSparse(hermitian(np.complex128, 3), np.ones((3, 1)))
    np.testing.assert_allclose(other.mul(np.eye(3, dtype=complex)), hermitian(np.complex128, 3) + 1)


# norms


@KINDS
@pytest.mark.parametrize("make", [np.array, sp.csr_array, no_entries])
def test_spectral_norm(make, dtype):
    for seed in range(10):
        C = hermitian(dtype, 30, seed=seed)
        norm, exact = spectral_norm(as_operator(make(C))), np.linalg.norm(C, 2)
        assert np.log2(norm) % 1 == 0 and 0.9 * exact <= norm <= 2.0001 * exact
        for p in (20, -20, 3):
            assert spectral_norm(as_operator(make(2.0**p * C))) == 2.0**p * norm


def test_spectral_norm_of_simple_matrices():
    assert spectral_norm(as_operator(np.zeros((3, 3)))) == 0
    assert spectral_norm(as_operator(sp.csr_array((3, 3)))) == 0
    assert spectral_norm(as_operator([[-3.0]])) == 4
    assert spectral_norm(as_operator([[0.0]])) == 0
    assert spectral_norm(as_operator(np.diag([0.0, -5.0, 1e-3]))) == 8
    tiny, huge = (spectral_norm(as_operator(s * np.diag([1.0, 3.0]))) for s in (2.0**-400, 2.0**400))
    assert tiny == 2.0**-398 and huge == 2.0**402
    identity = spectral_norm(as_operator(7 * np.eye(9)))
    assert identity == 8
