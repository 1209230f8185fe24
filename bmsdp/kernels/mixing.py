r"""Over-relaxed mixing sweeps: row updates on spheres.

Row i of a point on the product of spheres of radii r_i sees the cost ``2 Re<g_i, y_i> + const`` with
``g_i = sum_{j != i} C_ij y_j`` (the diagonal of C is a constant there).  With ``a = y_i / r_i``, ``c = -g_i / |g_i|`` and
``q = Re<a, c>`` the step ``y_i <- r_i normalise((1 - omega) a + omega c)`` turns q into ``((1 - omega) q + omega) / |.|``, which
never falls for 0 <= omega <= 2: the cost falls by ``2 r_i |g_i| (q_new - q)``, so the sweep knows its descent for free.
"""

import math

import numba
import numpy as np

from ._jit import FAST, ORDERED, jit


@jit(fastmath=FAST, inline="always")
def _relax(g, y, r, omega):
    """One row step in place; returns (decrease of the cost, 4 |Proj g|^2, the row's squared gradient norm).

    The step starts from ``y / |y|``, not ``y / r``: rounding must not drift off the sphere over 10^5 sweeps.
    """
    gg = 0.0
    gy = 0.0
    yy = 0.0
    for c in range(len(y)):
        gg += g[c].real * g[c].real + g[c].imag * g[c].imag
        gy += g[c].real * y[c].real + g[c].imag * y[c].imag
        yy += y[c].real * y[c].real + y[c].imag * y[c].imag
    if not gg > 0.0:  # isolated vertex: any row is optimal, keep this one
        return 0.0, 0.0
    norm = math.sqrt(gg)
    per_g = 1.0 / norm
    per_y = 1.0 / math.sqrt(yy)
    q = -gy * per_g * per_y
    a = 1.0 - omega
    length = math.sqrt(a * a + omega * omega + 2 * a * omega * q)
    if not length > 1e-8:  # omega = 1/2 at an antipode: the sum vanishes, keep the row
        return 0.0, 0.0
    per_length = 1.0 / length
    on_y = a * r * per_y * per_length
    on_g = -omega * r * per_g * per_length
    qy = q * per_y
    sine2 = 0.0  # |c - q a|^2 = 1 - q^2 without its cancellation
    for c in range(len(y)):
        gc = g[c]
        yc = y[c]
        d = per_g * gc + qy * yc
        sine2 += d.real * d.real + d.imag * d.imag
        y[c] = on_y * yc + on_g * gc
    # q_new - q = (omega (1 - q) - q (length - (1 - omega) - omega)) / length, written without cancellation at q -> 1
    one_minus_q = sine2 / (1.0 + q) if q > 0.0 else 1.0 - q
    gain = omega * one_minus_q * (1.0 + q * 2.0 * (1.0 - omega) / (1.0 + length)) * per_length
    return 2.0 * r * norm * gain, 4.0 * gg * sine2


@jit(fastmath=FAST, inline="always")
def _gather(indptr, indices, data, Y, i, g):
    """g <- sum_{j != i} C_ij y_j, four rows of Y at a time: g is read and written once for all of them."""
    p = indptr[i]
    last = indptr[i + 1]
    if p + 4 > last:
        for c in range(Y.shape[1]):
            g[c] = 0
    fresh = True
    while p + 4 <= last:
        j0, j1, j2, j3 = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
        w0 = data[p] if j0 != i else 0 * data[p]
        w1 = data[p + 1] if j1 != i else 0 * data[p]
        w2 = data[p + 2] if j2 != i else 0 * data[p]
        w3 = data[p + 3] if j3 != i else 0 * data[p]
        if fresh:
            for c in range(Y.shape[1]):
                g[c] = w0 * Y[j0, c] + w1 * Y[j1, c] + w2 * Y[j2, c] + w3 * Y[j3, c]
        else:
            for c in range(Y.shape[1]):
                g[c] += w0 * Y[j0, c] + w1 * Y[j1, c] + w2 * Y[j2, c] + w3 * Y[j3, c]
        fresh = False
        p += 4
    while p < last:
        j = indices[p]
        if j != i:
            w = data[p]
            for c in range(Y.shape[1]):
                g[c] += w * Y[j, c]
        p += 1


@jit(fastmath=FAST)
def sparse_sweep(indptr, indices, data, radius, omega, Y, g):
    """One sweep over all rows for CSR ``C``; ``g`` (k) is workspace.  Returns (decrease of the cost, |grad|^2 as met on the way)."""
    decrease = 0.0
    grad2 = 0.0
    for i in range(len(radius)):
        _gather(indptr, indices, data, Y, i, g)
        d, r = _relax(g, Y[i], radius[i], omega)
        decrease += d
        grad2 += r
    return decrease, grad2


@jit(fastmath=FAST)
def dense_sweep(C, radius, omega, Y, G, before):
    """`sparse_sweep` for a dense Hermitian ``C`` (n x n, C-contiguous) **with a zero diagonal**.

    Rows go in blocks, each block's products by one BLAS call and then corrected for the rows of the block that have moved:
    the same Gauss-Seidel step at the speed of a matrix product.  ``G`` (block x k) and ``before`` (k) are workspace.
    """
    n, k = Y.shape
    decrease = 0.0
    grad2 = 0.0
    for first in range(0, n, len(G)):
        last = min(first + len(G), n)
        np.dot(C[first:last], Y, G[: last - first])
        for i in range(first, last):
            for c in range(k):
                before[c] = Y[i, c]
            d, r = _relax(G[i - first], Y[i], radius[i], omega)
            decrease += d
            grad2 += r
            for c in range(k):
                before[c] = Y[i, c] - before[c]
            for j in range(i + 1, last):
                w = C[j, i]
                for c in range(k):
                    G[j - first, c] += w * before[c]
    return decrease, grad2


@jit(fastmath=ORDERED, parallel=True)
def coloured_sweep(indptr, indices, data, radius, omega, order, colour_ptr, Y, g, decrease, grad2):
    """A sweep in which rows of one colour (no entry of C between them) move at the same time.

    ``order`` lists the rows by colour, colour q being ``order[colour_ptr[q]:colour_ptr[q + 1]]``; ``g`` (T x k),
    ``decrease`` and ``grad2`` (T, T >= 1 chunks) are workspaces: chunk t sums in a fixed order, so the result does not
    depend on scheduling.
    """
    T = len(decrease)
    decrease[:] = 0
    grad2[:] = 0
    for q in range(len(colour_ptr) - 1):
        first = colour_ptr[q]
        size = colour_ptr[q + 1] - first
        for t in numba.prange(T):
            for s in range(first + size * t // T, first + size * (t + 1) // T):
                i = order[s]
                _gather(indptr, indices, data, Y, i, g[t])
                d, r = _relax(g[t], Y[i], radius[i], omega)
                decrease[t] += d
                grad2[t] += r
    return decrease.sum(), grad2.sum()


@jit
def greedy_colouring(indptr, indices):
    """First-fit colouring of the pattern of C; returns (rows ordered by colour, pointers of the colours)."""
    n = len(indptr) - 1
    colour = np.full(n, -1, np.int64)
    taken = np.full(n + 1, -1, np.int64)
    colours = 0
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            if indices[p] != i and colour[indices[p]] >= 0:
                taken[colour[indices[p]]] = i
        c = 0
        while taken[c] == i:
            c += 1
        colour[i] = c
        colours = max(colours, c + 1)
    pointer = np.zeros(colours + 1, np.int64)
    for i in range(n):
        pointer[colour[i] + 1] += 1
    for c in range(colours):
        pointer[c + 1] += pointer[c]
    order = np.empty(n, np.int64)
    fill = pointer[:-1].copy()
    for i in range(n):
        order[fill[colour[i]]] = i
        fill[colour[i]] += 1
    return order, pointer
