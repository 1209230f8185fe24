"""Products of a CSR matrix with row-major factors, and the fused Hessian product on spheres."""

import numba

from ._jit import ORDERED, jit


@jit(fastmath=ORDERED, inline="always")
def _accumulate_row(indptr, indices, data, Y, i, g):
    """g <- (C Y)_i, four rows of Y at a time: g is read and written once for all of them."""
    for c in range(Y.shape[1]):
        g[c] = 0
    p = indptr[i]
    last = indptr[i + 1]
    while p + 4 <= last:
        w0, w1, w2, w3 = data[p], data[p + 1], data[p + 2], data[p + 3]
        j0, j1, j2, j3 = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
        for c in range(Y.shape[1]):
            g[c] += w0 * Y[j0, c] + w1 * Y[j1, c] + w2 * Y[j2, c] + w3 * Y[j3, c]
        p += 4
    while p < last:
        w = data[p]
        j = indices[p]
        for c in range(Y.shape[1]):
            g[c] += w * Y[j, c]
        p += 1


@jit(fastmath=ORDERED)
def csr_mul(indptr, indices, data, Y, out):
    """out <- C Y for CSR ``C`` (n x n) and C-contiguous ``Y``, ``out`` (n x k); 2 nnz k flops, no allocation."""
    for i in range(len(indptr) - 1):
        _accumulate_row(indptr, indices, data, Y, i, out[i])


@jit(fastmath=ORDERED, parallel=True)
def csr_mul_parallel(indptr, indices, data, Y, out):
    """`csr_mul` over rows in parallel; every row is summed in the same order, so the result is the same."""
    for i in numba.prange(len(indptr) - 1):
        _accumulate_row(indptr, indices, data, Y, i, out[i])


@jit(fastmath=ORDERED, inline="always")
def _hess_row(indptr, indices, data, mu, b, Y, U, i, h):
    """h <- row i of 2 Proj(S U): 2 ((S U)_i - Re<(S U)_i, y_i> y_i / b_i)."""
    _accumulate_row(indptr, indices, data, U, i, h)
    a = 0.0
    for c in range(Y.shape[1]):
        h[c] -= mu[i] * U[i, c]
        a += h[c].real * Y[i, c].real + h[c].imag * Y[i, c].imag
    a /= b[i]
    for c in range(Y.shape[1]):
        h[c] = 2 * (h[c] - a * Y[i, c])


@jit(fastmath=ORDERED)
def oblique_hess(indptr, indices, data, mu, b, Y, U, out):
    """out <- Hess f(Y)[U] = 2 Proj((C - diag(mu)) U) on rows of squared radii ``b``, in one pass over C."""
    for i in range(len(indptr) - 1):
        _hess_row(indptr, indices, data, mu, b, Y, U, i, out[i])


@jit(fastmath=ORDERED, parallel=True)
def oblique_hess_parallel(indptr, indices, data, mu, b, Y, U, out):
    """`oblique_hess` over rows in parallel."""
    for i in numba.prange(len(indptr) - 1):
        _hess_row(indptr, indices, data, mu, b, Y, U, i, out[i])


@jit(fastmath=ORDERED)
def oblique_grad(indptr, indices, data, b, Y, mu, out):
    """out <- 2 (C Y - diag(mu) Y), ``mu_i = Re<(C Y)_i, y_i> / b_i``, in one pass over C; returns the cost ``<b, mu>``."""
    cost = 0.0
    for i in range(len(indptr) - 1):
        g = out[i]
        _accumulate_row(indptr, indices, data, Y, i, g)
        a = 0.0
        for c in range(Y.shape[1]):
            a += g[c].real * Y[i, c].real + g[c].imag * Y[i, c].imag
        cost += a
        mu[i] = a / b[i]
        for c in range(Y.shape[1]):
            g[c] = 2 * (g[c] - mu[i] * Y[i, c])
    return cost
