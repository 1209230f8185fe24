import itertools

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from bmsdp.applications.phase_retrieval.diffraction import CHUNK, MaskedFFT, coded_diffraction, masked_fft
from bmsdp.applications.phase_retrieval.orthonormal import GRAM_LIMIT, measurements

SHAPES = [(7,), (64,), (6, 5), (3, 4, 5)]
SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def normal(rng, shape, is_complex=True):
    return rng.standard_normal((*shape, 2)) @ [1, 1j] if is_complex else rng.standard_normal(shape)


def matrix(n=30, d=6, is_complex=True, seed=0):
    return normal(np.random.default_rng(seed), (n, d), is_complex)


def fourier(shape):
    """The unitary DFT of raveled arrays, entry by entry."""
    F = np.ones((1, 1))
    for s in shape:
        F = np.kron(F, np.exp(-2j * np.pi * np.outer(range(s), range(s)) / s) / np.sqrt(s))
    return F


def slow(M):
    """The operator of a matrix, product by product."""
    return LinearOperator(M.shape, matvec=lambda x: M @ x, rmatvec=lambda y: M.conj().T @ y, dtype=M.dtype)


# masked Fourier transforms


@SHAPE
def test_masked_fft_is_the_matrix_of_its_definition(shape):
    masks = coded_diffraction(shape, 3, rng=0)
    A, d = masked_fft(masks), int(np.prod(shape))
    dense = np.concatenate([fourier(shape) * m.ravel() for m in masks])
    assert A.shape == (3 * d, d) and A.signal_shape == shape
    rng = np.random.default_rng(1)
    X, Y = normal(rng, (d, 4)), normal(rng, (3 * d, 4))
    np.testing.assert_allclose(A @ X, dense @ X, rtol=0, atol=1e-12)
    np.testing.assert_allclose(A.rmatmat(Y), dense.conj().T @ Y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(A @ X[:, 0], dense @ X[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(A.rmatvec(Y[:, 0]), dense.conj().T @ Y[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(A.gram, np.linalg.norm(dense, axis=0) ** 2, rtol=1e-13)
    np.testing.assert_allclose(A.leverage(), np.linalg.norm(np.linalg.qr(dense)[0], axis=1) ** 2, rtol=1e-11)


@SHAPE
@pytest.mark.parametrize("kind", ["phase", "octanary"])
def test_masked_fft_is_adjoint_to_itself(shape, kind):
    A = masked_fft(coded_diffraction(shape, 4, rng=0, kind=kind))
    rng = np.random.default_rng(2)
    x, y = normal(rng, (A.shape[1],)), normal(rng, (A.shape[0],))
    assert abs(np.vdot(A @ x, y) - np.vdot(x, A.rmatvec(y))) <= 1e-14 * np.linalg.norm(A @ x) * np.linalg.norm(y)


@pytest.mark.parametrize("real", [False, True])
def test_masks_in_groups_and_one_by_one_agree(real, monkeypatch):
    from bmsdp.applications.phase_retrieval import diffraction

    masks = coded_diffraction((5, 4), 5, rng=0)
    masks = masks.real if real else masks
    monkeypatch.setattr(diffraction, "CHUNK", 45)
    pairs = masked_fft(masks)
    assert [s.stop - s.start for s in pairs.blocks] == [40, 40, 20]
    monkeypatch.setattr(diffraction, "CHUNK", 1)
    single = masked_fft(masks)
    assert len(single.blocks) == 5 and len(masked_fft(masks[:1]).blocks) == 1 and CHUNK > 45
    rng = np.random.default_rng(0)
    X, Y = normal(rng, (20, 3)), normal(rng, (100, 3))
    np.testing.assert_allclose(pairs @ X, single @ X, rtol=0, atol=1e-14)
    np.testing.assert_allclose(pairs.rmatmat(Y), single.rmatmat(Y), rtol=0, atol=1e-13)


def test_random_masks():
    phases, octanary = coded_diffraction(50, 40, rng=0), coded_diffraction((10, 5), masks=40, rng=0, kind="octanary")
    assert phases.shape == (40, 50) and octanary.shape == (40, 10, 5)
    np.testing.assert_allclose(np.abs(phases), 1, rtol=1e-15)
    sizes, counts = np.unique(np.round(np.abs(octanary) ** 2, 12), return_counts=True)
    assert sizes.tolist() == [0.5, 3] and abs(counts[0] / counts.sum() - 0.8) < 0.04
    assert np.allclose(np.abs(octanary.real * octanary.imag), 0)
    assert np.array_equal(phases, coded_diffraction((50,), 40, rng=np.random.default_rng(0)))


@pytest.mark.parametrize(
    "call, needed",
    [
        (lambda: masked_fft(np.ones(4)), r"shape \(4,\).*masks\[None\]"),
        (lambda: masked_fft(np.ones((0, 4))), r"\(0, 4\)"),
        (lambda: masked_fft([["a", "b"]]), "dtype"),
        (lambda: masked_fft([[1, np.nan]]), "1 entries of the masks are NaN"),
        (lambda: masked_fft([[1, 0, 1], [2, 0, 0]]), r"1 pixels are 0 in every mask, the first at \(1\)"),
        (lambda: coded_diffraction((0, 3)), "positive integers"),
        (lambda: coded_diffraction(()), "positive integers"),
        (lambda: coded_diffraction((2.5,)), "positive integers"),
        (lambda: coded_diffraction(4, 0), "masks = 0"),
        (lambda: coded_diffraction(4, 2.0), "masks = 2.0"),
        (lambda: coded_diffraction(4, kind="binary"), "'binary'.*octanary"),
    ],
)
def test_bad_masks_are_refused(call, needed):
    with pytest.raises(ValueError, match=needed):
        call()


# measurements in orthonormal coordinates

KINDS = {
    "array": lambda M: M,
    "sparse": sparse.csr_array,
    "coo matrix": sparse.coo_matrix,
    "operator": aslinearoperator,
    "products": slow,
}


def laws(measured, dense, tol=1e-12):
    """Q has orthonormal columns and Q R is the matrix; products, adjoints and folds are those of Q."""
    rng, real = np.random.default_rng(3), measured.real
    d, n, dtype = measured.d, measured.n, measured.dtype
    Q = measured.mul(np.eye(d, dtype=dtype))
    gram = Q.conj().T @ Q
    np.testing.assert_allclose(gram.real if real else gram, np.eye(d), rtol=0, atol=tol)
    np.testing.assert_allclose(Q @ measured.from_signal(np.eye(d, dtype=dtype)), dense, rtol=0, atol=tol * np.abs(dense).max())
    V, Z = normal(rng, (d, 3), dtype.kind == "c"), normal(rng, (n, 3), measured.complex_rows)
    QZ = Q.conj().T @ Z
    np.testing.assert_allclose(measured.adj(Z), QZ.real if real else QZ, rtol=0, atol=10 * tol)
    np.testing.assert_allclose(measured.to_signal(measured.from_signal(V)), V, rtol=0, atol=1e3 * tol)
    weight = rng.standard_normal(n)
    before = V.copy()
    folded = Q.conj().T @ (weight[:, None] * (Q @ V))
    found = measured.fold(V, lambda rows, part: np.multiply(part, weight[rows, None], out=part))
    np.testing.assert_allclose(found, folded.real if real else folded, rtol=0, atol=10 * tol)
    assert np.array_equal(V, before) and found.flags.c_contiguous and found.dtype == dtype
    assert sum(s.stop - s.start for s in measured.blocks) == n
    if measured.leverage() is not None:
        np.testing.assert_allclose(measured.leverage(), np.linalg.norm(Q, axis=1) ** 2, rtol=1e-10)
    assert measured.defect() < 1e-11 * d


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_complex, real", [(True, False), (False, False), (True, True), (False, True)])
def test_every_kind_of_A(kind, is_complex, real):
    dense = matrix(is_complex=is_complex)
    laws(measurements(KINDS[kind](dense), real=real), dense)


@SHAPE
@pytest.mark.parametrize("real", [False, True])
def test_masked_fft_needs_no_factor(shape, real):
    A = masked_fft(coded_diffraction(shape, 3, rng=0, kind="octanary"))
    measured = measurements(A, real=real)
    assert measured.right.ndim == 1 and measured.Q is None and measured.signal_shape == shape
    laws(measured, A @ np.eye(A.shape[1]))


def test_operators_with_diagonal_gram_are_recognised():
    A = masked_fft(coded_diffraction((GRAM_LIMIT + 2,), 2, rng=0, kind="octanary"))
    bare = LinearOperator(A.shape, matvec=A.matvec, rmatvec=A.rmatvec, dtype=complex)
    measured = measurements(bare)
    assert measured.orthonormal
    np.testing.assert_allclose(measured.right, np.sqrt(A.gram), rtol=1e-12)
    identity = LinearOperator((9, 9), matvec=lambda x: x, rmatvec=lambda x: x, matmat=lambda X: X, rmatmat=lambda X: X, dtype=float)
    laws(measurements(identity), np.eye(9))  # whose products are the very arrays it was given


@pytest.mark.parametrize("kind", ["array", "sparse", "operator"])
@pytest.mark.parametrize("condition", [1e4, 1e6])
def test_ill_conditioned(kind, condition):
    U = np.linalg.qr(matrix(40, 8))[0]
    A = (U * np.geomspace(1, 1 / condition, 8)) @ np.linalg.qr(matrix(8, 8, seed=1))[0]
    for real in (False, True):
        laws(measurements(KINDS[kind](A), real=real), A, 1e-12 if kind == "array" else 1e-16 * condition * 100)


@pytest.mark.parametrize("condition", [1e9, 1e12])
def test_arrays_fall_back_to_qr(condition):
    U = np.linalg.qr(matrix(40, 8))[0]
    A = (U * np.geomspace(1, 1 / condition, 8)) @ np.linalg.qr(matrix(8, 8, seed=1))[0]
    for real in (False, True):
        measured = measurements(A, real=real)
        Q = measured.Q.conj().T @ measured.Q
        np.testing.assert_allclose(Q.real if real else Q, np.eye(8), atol=1e-13)
        np.testing.assert_allclose(measured.mul(measured.from_signal(np.eye(8))), A, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_any_size(kind):
    size = 10.0 ** np.array([-70, -9, 0, 3, 12, 80])
    A = matrix() * size
    measured = measurements(KINDS[kind](A))
    Q = measured.mul(np.eye(6, dtype=complex))
    np.testing.assert_allclose(Q.conj().T @ Q, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(Q @ measured.from_signal(np.diag(1 / size)), matrix(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["array", "sparse"])
def test_powers_of_two_change_nothing(kind):
    A = matrix()
    plain, scaled = (measurements(KINDS[kind](c * A)) for c in (1.0, 2.0**40))
    V = matrix(6, 2, seed=5)
    assert np.array_equal(plain.mul(V), scaled.mul(V))
    assert np.array_equal(plain.to_signal(V), 2.0**40 * scaled.to_signal(V))


@pytest.mark.parametrize("kind", ["sparse", "products"])
def test_beyond_the_gram_limit_the_metric_is_a_multiple(kind):
    d = GRAM_LIMIT + 1
    A = sparse.random_array((2 * d, d), density=2e-3, rng=np.random.default_rng(0), format="csr") + sparse.eye_array(2 * d, d)
    measured = measurements(KINDS[kind](sparse.csr_array(A)))
    assert not measured.orthonormal and measured.right.shape == (d,)
    x = np.random.default_rng(1).standard_normal((d, 1))
    np.testing.assert_allclose(measured.mul(measured.from_signal(x)), A @ x, rtol=1e-12, atol=1e-12)
    v = x / np.linalg.norm(x)
    for _ in range(30):
        v = measured.adj(measured.mul(v))
        size = np.linalg.norm(v)
        v /= size
    assert 0.3 < size < 10


def test_large_sparse_arrays_with_orthogonal_columns():
    d = GRAM_LIMIT + 1
    A = sparse.block_array([[3 * sparse.eye_array(d)], [4j * sparse.eye_array(d, format="csr")[::-1]]], format="csr")
    assert measurements(A).orthonormal and np.allclose(measurements(A).right, 5)


def test_real_operators_keep_real_signals():
    for kind, is_complex, real in itertools.product(["array", "operator"], [False, True], [False, True]):
        measured = measurements(KINDS[kind](matrix(is_complex=is_complex)), real=real)
        expected = np.complex128 if is_complex and not real else np.float64
        assert measured.dtype == expected == measured.to_signal(np.eye(6)).dtype == measured.right.dtype


def test_measurements_are_made_once():
    measured = measurements(matrix())
    assert measurements(measured) is measured
    assert measurements(measurements(matrix(), real=True)).real
    with pytest.raises(ValueError, match="made for complex signals"):
        measurements(measured, real=True)


def broken(adjoint, dtype=complex):
    M = matrix()
    return LinearOperator((30, 6), matvec=lambda x: M @ x, rmatvec=adjoint, dtype=dtype)


DEPENDENT = np.concatenate([matrix(), matrix()[:, :2] @ [[1], [2]]], axis=1)
GAP = matrix()
GAP[3, 1] = np.nan
EMPTY = matrix()
EMPTY[:, 2] = 0


@pytest.mark.parametrize(
    "A, needed",
    [
        (np.ones(4), r"shape \(4,\).*n x d"),
        (np.ones((2, 3, 4)), "n x d"),
        ([[1, 2], [3]], "cannot be read"),
        (np.ones((0, 0)), "at least as many"),
        (matrix(4, 5), "4 rows and 5 columns"),
        (sparse.csr_array(matrix(4, 5)), "4 rows and 5 columns"),
        (aslinearoperator(matrix(4, 5)), "the operator A has 4 rows"),
        (np.array([["a"], ["b"]]), "dtype"),
        (GAP, "1 entries of A are NaN"),
        (sparse.csr_array(GAP), "1 entries of A are NaN"),
        (aslinearoperator(GAP), "NaN or infinite for random"),
        (EMPTY, "1 columns of A are 0, the first is column 2"),
        (sparse.csr_array(EMPTY), "column 2"),
        (aslinearoperator(EMPTY), "column 2"),
        (DEPENDENT, "numerical rank 6 but 7 columns"),
        (sparse.csr_array(DEPENDENT), "numerical rank 6 but 7 columns"),
        (aslinearoperator(DEPENDENT), "numerical rank 6 but 7 columns"),
        (np.ones((5, 3)), "numerical rank 1 but 3"),
        (LinearOperator((30, 6), matvec=lambda x: matrix() @ x, dtype=complex), "no working rmatvec"),
        (broken(lambda y: matrix().T @ y), "not the adjoint"),
        (broken(lambda y: 2 * (matrix().conj().T @ y)), "not the adjoint.*inverse"),
        (broken(lambda y: matrix().conj().T @ y, float), "dtype float64 but its products are complex"),
    ],
)
def test_bad_measurements_are_refused(A, needed):
    with pytest.raises(ValueError, match=needed):
        measurements(A)


def test_single_precision_operators_pass_the_test_of_adjointness():
    M = matrix(is_complex=False).astype(np.float32)
    assert measurements(slow(M)).dtype == np.float64


def test_masked_fft_is_a_linear_operator():
    A = masked_fft(coded_diffraction((4, 3), 2, rng=0))
    assert isinstance(A, MaskedFFT) and isinstance(A, LinearOperator)
    np.testing.assert_allclose((A.H @ (A @ np.eye(12))), np.diag(A.gram), atol=1e-14)
