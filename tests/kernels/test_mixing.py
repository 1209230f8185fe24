import numpy as np
import pytest
import scipy.sparse as sp
from numba.core.runtime import _nrt_python as nrt
from numba.core.runtime import rtsys

from bmsdp import gallery
from bmsdp.kernels import mixing
from bmsdp.kernels.threads import limited

KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])
OMEGA = pytest.mark.parametrize("omega", [0.3, 0.5, 1.0, 1.5, 1.9, 1.995])


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def instance(dtype, index=np.int32, n=40, k=4, seed=0, density=0.2):
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


def cost(C, Y):
    return np.vdot(Y, C @ Y).real


def twin(C, radius, omega, Y):
    """(decrease, |grad|^2 met on the way), Y in place."""
    start, grad2, off = cost(C, Y), 0.0, C - np.diag(C.diagonal())
    for i in range(len(Y)):
        g = off[i] @ Y
        grad2 += 4 * np.linalg.norm(g - (g @ Y[i].conj()).real / radius[i] ** 2 * Y[i]) ** 2
        z = (1 - omega) * Y[i] / radius[i] - omega * g / np.linalg.norm(g) if g.any() else Y[i]
        Y[i] = radius[i] * z / np.linalg.norm(z)
    return start - cost(C, Y), grad2


def sparse_sweep(C, radius, omega, Y):
    return mixing.sparse_sweep(C.indptr, C.indices, C.data, radius, omega, Y, np.empty(Y.shape[1], Y.dtype))


def dense_sweep(C, radius, omega, Y):
    D, k = C.toarray(), Y.shape[1]
    np.fill_diagonal(D, 0)
    return mixing.dense_sweep(D, radius, omega, Y, np.empty((5, k), Y.dtype), np.empty(k, Y.dtype))


def coloured_sweep(C, radius, omega, Y, T=3):
    order, pointer = mixing.greedy_colouring(C.indptr, C.indices)
    work = np.empty((T, Y.shape[1]), Y.dtype), np.empty(T), np.empty(T)
    with limited(1):
        return mixing.coloured_sweep(C.indptr, C.indices, C.data, radius, omega, order, pointer, Y, *work)


SWEEPS = pytest.mark.parametrize("sweep", [sparse_sweep, dense_sweep, coloured_sweep])


@OMEGA
@KINDS
@pytest.mark.parametrize("sweep", [sparse_sweep, dense_sweep])
def test_same_as_twin(sweep, dtype, omega):
    C, radius, Y = instance(dtype)
    Z = Y.copy()
    for _ in range(3):
        got, expected = sweep(C, radius, omega, Y), twin(C.toarray(), radius, omega, Z)
        np.testing.assert_allclose(Y, Z, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@KINDS
def test_long_indices(dtype):
    C, radius, Y = instance(dtype, np.int64)
    D, _, Z = instance(dtype)
    np.testing.assert_allclose(sparse_sweep(C, radius, 1.7, Y), sparse_sweep(D, radius, 1.7, Z), rtol=1e-13)  # contracted differently
    np.testing.assert_allclose(Y, Z, rtol=0, atol=1e-13)


@KINDS
def test_coloured_sweep_is_a_sweep_in_another_order(dtype):
    C, radius, Y = instance(dtype)
    order, _ = mixing.greedy_colouring(C.indptr, C.indices)
    D, r, Z = C.toarray()[np.ix_(order, order)], radius[order], Y[order]
    got, expected = coloured_sweep(C, radius, 1.6, Y), twin(D, r, 1.6, Z)
    np.testing.assert_allclose(Y[order], Z, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@OMEGA
@KINDS
@SWEEPS
def test_reported_descent_is_the_descent(sweep, dtype, omega):
    """The decrease is never negative, and equals the difference of the costs to rounding, near the optimum too."""
    C, radius, Y = instance(dtype, seed=1)
    scale = abs(C).sum() * radius.max() ** 2
    for _ in range(200):
        before = cost(C, Y)
        decrease, grad2 = sweep(C, radius, omega, Y)
        assert decrease >= -1e-30 * scale and grad2 >= 0
        assert abs(before - cost(C, Y) - decrease) <= 1e-14 * scale
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), radius, rtol=1e-14)


def test_decrease_keeps_its_digits_near_the_optimum():
    """At convergence the decrease falls geometrically far below the rounding of the cost."""
    C, radius, Y = instance(np.float64, seed=3, density=0.5)
    falls = [sparse_sweep(C, radius, 1.0, Y)[0] for _ in range(4000)]
    assert 0 <= falls[-1] <= 1e-24 * abs(C).sum()
    assert all(a >= 0 for a in falls)


@KINDS
@SWEEPS
def test_limit_is_critical(sweep, dtype):
    C, radius, Y = instance(dtype, seed=2, density=0.5)
    for _ in range(2000):
        _, grad2 = sweep(C, radius, 1.4, Y)
    G = C @ Y
    mu = (G * Y.conj()).sum(axis=1).real / radius**2
    grad = 2 * (G - mu[:, None] * Y)
    assert np.linalg.norm(grad) <= 1e-9 and grad2 <= 1e-18


@OMEGA
@KINDS
@SWEEPS
def test_isolated_rows_keep_their_row(sweep, dtype, omega):
    C, radius, Y = instance(dtype)
    kept = Y.copy()
    sweep(C, radius, omega, Y)
    assert np.array_equal(Y[[2, -1]], kept[[2, -1]])
    assert not np.array_equal(Y[0], kept[0])


@KINDS
@SWEEPS
def test_diagonal_is_irrelevant(sweep, dtype):
    C, radius, Y = instance(dtype)
    Z = Y.copy()
    D = C + 50 * sp.eye_array(40)
    first, second = sweep(C, radius, 1.8, Y), sweep(sp.csr_array(D.astype(dtype)), radius, 1.8, Z)
    np.testing.assert_allclose(Y, Z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(first, second, rtol=1e-11)


@pytest.mark.parametrize("sweep", [sparse_sweep, dense_sweep])
def test_halfway_at_an_antipode_keeps_the_row(sweep):
    """omega = 1/2 and y = g/|g|: the relaxed sum vanishes."""
    C = sp.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    Y = np.array([[1.0, 0.0], [1.0, 0.0]])
    sweep(C, np.ones(2), 0.5, Y)
    assert np.isfinite(Y).all()
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), 1)


@SWEEPS
def test_one_column(sweep):
    C, radius, _ = instance(np.float64)
    Y = (radius * np.random.default_rng(0).choice([-1.0, 1.0], 40))[:, None]
    before = cost(C, Y)
    decrease, _ = sweep(C, radius, 1.5, Y)
    assert np.isclose(before - cost(C, Y), decrease, rtol=1e-12) and decrease > 0
    np.testing.assert_allclose(np.abs(Y[:, 0]), radius, rtol=1e-15)


@SWEEPS
def test_one_row_and_no_entries(sweep):
    Y = np.array([[0.6, 0.8]])
    assert sweep(sp.csr_array((1, 1)), np.ones(1), 1.5, Y) == (0, 0)
    assert np.array_equal(Y, [[0.6, 0.8]])


@pytest.mark.parametrize("sweep", [sparse_sweep, dense_sweep])
def test_power_of_two_scaling_is_exact(sweep):
    C, radius, Y = instance(np.float64)
    Z = Y.copy()
    a, b = sweep(C, radius, 1.7, Y), sweep(sp.csr_array(2.0**20 * C), radius, 1.7, Z)
    assert np.array_equal(Y, Z) and (2.0**20 * a[0], 2.0**40 * a[1]) == b


@KINDS
def test_colouring_is_proper(dtype):
    for C in (instance(dtype)[0], gallery.toroidal_grid(10, 11, 0), gallery.hubs(200, 0), sp.csr_array((3, 3))):
        order, pointer = mixing.greedy_colouring(C.indptr, C.indices)
        assert np.array_equal(np.sort(order), np.arange(C.shape[0])) and pointer[0] == 0 and pointer[-1] == C.shape[0]
        colour = np.empty(C.shape[0], int)
        for q, (s, t) in enumerate(zip(pointer[:-1], pointer[1:], strict=True)):
            colour[order[s:t]] = q
        A = C.tocoo()
        off = A.row != A.col
        assert np.all(colour[A.row[off]] != colour[A.col[off]])
        assert len(pointer) - 1 <= np.diff(C.indptr).max() + 1


@KINDS
def test_coloured_sweep_is_the_same_on_any_number_of_threads(dtype):
    results = []
    for threads in (1, 2, 2):
        C, radius, Y = instance(dtype, n=400, density=0.03)
        order, pointer = mixing.greedy_colouring(C.indptr, C.indices)
        work = np.empty((2, 4), dtype), np.empty(2), np.empty(2)
        with limited(threads):
            sums = [mixing.coloured_sweep(C.indptr, C.indices, C.data, radius, 1.8, order, pointer, Y, *work) for _ in range(20)]
        results.append((sums, Y))
    for sums, Y in results[1:]:
        assert sums == results[0][0] and np.array_equal(Y, results[0][1])


@KINDS
def test_no_allocation(dtype):
    C, radius, Y = instance(dtype)
    D, g = C.toarray(), np.empty(Y.shape[1], dtype)
    np.fill_diagonal(D, 0)
    G = np.empty((5, Y.shape[1]), dtype)
    was = nrt.memsys_stats_enabled()
    nrt.memsys_enable_stats()
    try:
        sparse = (C.indptr, C.indices, C.data, radius, 1.5, Y, g)
        for kernel, arguments in ((mixing.sparse_sweep, sparse), (mixing.dense_sweep, (D, radius, 1.5, Y, G, g))):
            kernel(*arguments)
            before = rtsys.get_allocation_stats().alloc
            kernel(*arguments)
            descriptors = len(arguments) - 1  # of the array arguments
            assert rtsys.get_allocation_stats().alloc == before + descriptors
    finally:
        if not was:
            nrt.memsys_disable_stats()
