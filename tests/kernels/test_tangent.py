"""The fused projection and the triangular solves against their NumPy twins."""

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.factorization import Elimination
from bmsdp.kernels import tangent, triangular


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_oblique_add(dtype):
    rng = np.random.default_rng(0)
    Z, U, Y = (rng.standard_normal((9, 4, 2)) @ [1, 1j if dtype is np.complex128 else 0] for _ in range(3))
    Z, U, Y = (np.ascontiguousarray(M.astype(dtype)) for M in (Z, U, Y))
    b = np.sum(np.abs(Y) ** 2, axis=1)
    want = 0.7 * (U + Z - (np.sum((Z * Y.conj()).real, axis=1) / b)[:, None] * Y)
    kept = U.copy()
    tangent.oblique_add(Z, U, Y, b, 0.7)
    np.testing.assert_allclose(Z, want, rtol=1e-13, atol=1e-13)
    assert np.array_equal(U, kept)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_solves_undo_products_with_the_factor(dtype):
    """A sparse phase alone: L as a dense matrix, L X and L* X are undone."""
    rng = np.random.default_rng(1)
    n = 30
    B = sp.random_array((n, n), density=0.05, rng=rng, format="csr")
    M = B + B.T + 20 * sp.eye_array(n)
    if dtype is np.complex128:
        M = M + 1j * (B - B.T)
    M = sp.csr_array(M.astype(dtype))
    M.sort_indices()
    factor = Elimination.analyse(M).factor(M, M.diagonal().real)
    tree = factor.tree
    L = np.eye(n, dtype=dtype)
    for j in range(tree.sparse):
        for p in range(tree.pointer[j], tree.pointer[j + 1]):
            L[factor.rows[p], j] = factor.values[p]
    assert np.count_nonzero(L) > n
    X = (rng.standard_normal((n, 3, 2)) @ [1, 1j if dtype is np.complex128 else 0]).astype(dtype)
    for kernel, product in ((triangular.solve_forward, L @ X), (triangular.solve_transposed, L.conj().T @ X)):
        out = np.ascontiguousarray(product)
        kernel(tree.pointer, factor.rows, factor.values, out)
        np.testing.assert_allclose(out, X, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_no_allocation(allocations, dtype):
    Z, b = np.ones((5, 3), dtype), np.ones(5)
    assert allocations(tangent.oblique_add, Z, Z.copy(), Z.copy(), b, 0.5) == 0
    pointer, rows, values = np.array([0, 1, 1]), np.array([1], np.int32), np.ones(1, dtype)
    for kernel in (triangular.solve_forward, triangular.solve_transposed):
        assert allocations(kernel, pointer, rows, values, Z) == 0
