import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import gallery
from bmsdp.kernels import spmm
from bmsdp.kernels.threads import limited

KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])
INDEX = pytest.mark.parametrize("index", [np.int32, np.int64])


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def instance(dtype, index, n=60, k=5, seed=0):
    """A Hermitian CSR matrix with empty rows and a hub, and two factors."""
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.1, rng=rng, format="lil")
    A[3] = rng.standard_normal(n)
    A[7], A[:, 7] = 0, 0
    A = A.toarray() * gaussian(rng, (n, n), dtype)
    C = sp.csr_array(A + A.conj().T)
    C.indptr, C.indices = C.indptr.astype(index), C.indices.astype(index)
    assert C.dtype == dtype and C.indptr[7] == C.indptr[8]
    return C, gaussian(rng, (n, k), dtype), gaussian(rng, (n, k), dtype)


def parts(C):
    return C.indptr, C.indices, C.data


def hess_twin(C, mu, b, Y, U):
    V = C @ U - mu[:, None] * U
    return 2 * (V - ((V * Y.conj()).sum(axis=1).real / b)[:, None] * Y)


@INDEX
@KINDS
def test_csr_mul(dtype, index):
    C, Y, _ = instance(dtype, index)
    out = np.full_like(Y, np.nan)
    spmm.csr_mul(*parts(C), Y, out)
    np.testing.assert_allclose(out, C.toarray() @ Y, rtol=1e-13, atol=1e-13)
    assert not out[7].any()


@KINDS
@pytest.mark.parametrize("k", [1, 2, 17])
def test_any_number_of_columns(dtype, k):
    C, Y, _ = instance(dtype, np.int32, k=k, n=9)
    out = np.empty_like(Y)
    spmm.csr_mul(*parts(C), Y, out)
    np.testing.assert_allclose(out, C.toarray() @ Y, rtol=1e-13, atol=1e-13)


@INDEX
@KINDS
def test_oblique_hess(dtype, index):
    C, Y, U = instance(dtype, index)
    rng = np.random.default_rng(1)
    mu, b = rng.standard_normal(60), rng.random(60) + 0.1
    out = np.full_like(Y, np.nan)
    spmm.oblique_hess(*parts(C), mu, b, Y, U, out)
    np.testing.assert_allclose(out, hess_twin(C.toarray(), mu, b, Y, U), rtol=1e-12, atol=1e-11)


@KINDS
@pytest.mark.parametrize("threads", [1, 2])
def test_parallel_equals_serial(dtype, threads):
    C, Y, U = instance(dtype, np.int32, n=500, k=11)
    mu, b = np.linspace(-1, 1, 500), np.linspace(1, 2, 500)
    serial, parallel = np.empty_like(Y), np.empty_like(Y)
    for one, two, arguments in (
        (spmm.csr_mul, spmm.csr_mul_parallel, (Y,)),
        (spmm.oblique_hess, spmm.oblique_hess_parallel, (mu, b, Y, U)),
    ):
        one(*parts(C), *arguments, serial)
        with limited(threads):
            two(*parts(C), *arguments, parallel)
        if dtype is np.float64:
            assert np.array_equal(serial, parallel)
        else:  # compilers contract complex products as they like
            np.testing.assert_allclose(parallel, serial, rtol=0, atol=1e-13 * np.abs(serial).max())


@KINDS
def test_no_allocation(dtype, allocations):
    C, Y, U = instance(dtype, np.int32)
    mu, b, out = np.ones(60), np.ones(60), np.empty_like(Y)
    assert allocations(spmm.csr_mul, *parts(C), Y, out) == 0
    assert allocations(spmm.oblique_hess, *parts(C), mu, b, Y, U, out) == 0
    assert allocations(spmm.oblique_grad, *parts(C), b, Y, mu, out) == 0


def test_the_allocation_counter_counts(allocations):
    from bmsdp.kernels.mixing import greedy_colouring

    C, _, _ = instance(np.float64, np.int32)
    assert allocations(greedy_colouring, C.indptr, C.indices) > 0


def test_empty_matrix():
    C = sp.csr_array((4, 4))
    Y, out = np.ones((4, 5)), np.full((4, 5), np.nan)
    spmm.csr_mul(*parts(C), Y, out)
    assert not out.any()


def test_threads_are_restored():
    import numba

    before = numba.get_num_threads()
    with limited(1) as granted:
        assert granted == 1 == numba.get_num_threads()
    assert numba.get_num_threads() == before
    with limited(10**6) as granted:
        assert granted == numba.config.NUMBA_NUM_THREADS
    with pytest.raises(ZeroDivisionError), limited(1):
        1 // 0
    assert numba.get_num_threads() == before


def test_callers_of_parallel_kernels_take_turns():
    """Two Python threads at once: Numba's workqueue layer would abort the process."""
    from concurrent.futures import ThreadPoolExecutor

    C = gallery.toroidal_grid(40, 40, 0)
    Y = np.random.default_rng(0).standard_normal((1600, 5))
    expected = np.empty_like(Y)
    spmm.csr_mul(*parts(C), Y, expected)

    def work(_):
        out = np.empty_like(Y)
        with limited(2):
            spmm.csr_mul_parallel(*parts(C), Y, out)
        return np.array_equal(out, expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))


@INDEX
@KINDS
def test_oblique_grad(dtype, index):
    """Cost, multipliers and gradient in one pass; the rows have other squared lengths than ``b``, which the formula allows."""
    C, Y, _ = instance(dtype, index)
    b, mu, out = np.linspace(0.5, 2, len(Y)), np.full(len(Y), np.nan), np.full_like(Y, np.nan)
    cost = spmm.oblique_grad(*parts(C), b, Y, mu, out)
    G = C.toarray() @ Y
    expected = (G * Y.conj()).sum(axis=1).real / b
    np.testing.assert_allclose(cost, np.vdot(G, Y).real, rtol=1e-13)
    np.testing.assert_allclose(mu, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(out, 2 * (G - expected[:, None] * Y), rtol=1e-12, atol=1e-12)
