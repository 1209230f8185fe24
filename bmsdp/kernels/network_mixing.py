r"""Mixing sweeps along great circles, each row relaxed as a small perceptron says.

With ``a = y_i / r_i``, ``u = -g_i / |g_i|`` and theta the angle between them, the row goes through u to the angle ``(w - 1) theta`` on the
other side, on the same great circle: the cosine rises from cos theta to cos((w - 1) theta), a descent for 0 <= w <= 2, and a map that can
be inverted where w > 1 and theta < pi.  ``w = 1 + sigmoid(a + W2 . tanh(W1 f_i + b1))`` with
``f_i = (|g_i| / c2, |g_i| / c1, log(c1^2 / c2^2))``, ``c2^2 = sum_{j != i} |C_ij|^2 r_j^2`` and ``c1 = sum_{j != i} |C_ij| r_j``:
numbers that neither the unit of C nor the basis of the rows changes, and that do not depend on y_i itself.

Blocks with ``Y_i Y_i* = I`` are moved likewise: with ``U = polar(-G_i)``, Y_i is the Cayley transform of one skew W, applied to U, and W
becomes -(w - 1) W; norms are Frobenius', over sqrt(d).  `bmsdp.learned.networks.blocks` derives it.
"""

import math

import numpy as np

from ._jit import FAST, jit
from .block_mixing import _gather as _gather_block
from .block_mixing import _polar
from .mixing import _gather

NEAR = 1e-3  # sine of the angle to -u below which the direction of the great circle has lost digits that matter
ANTIPODE = 1e-8  # sine of the angle to -u, or determinant of I + Y_i U*, below which a row or a block has no direction to go and is kept


@jit
def invariants(indptr, indices, data, radius):
    """``(1 / c2, 1 / c1, log(c1^2 / c2^2))`` of every row of a CSR matrix, n x 3; zeros where a row has no entry off the diagonal."""
    n = len(radius)
    out = np.zeros((n, 3))
    for i in range(n):
        c1 = 0.0
        c2 = 0.0
        largest = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            if indices[p] != i:
                largest = max(largest, abs(data[p]) * radius[indices[p]])
        if largest > 0.0:
            for p in range(indptr[i], indptr[i + 1]):
                if indices[p] != i:
                    size = abs(data[p]) * radius[indices[p]] / largest  # squares neither overflow nor vanish
                    c1 += size
                    c2 += size * size
            out[i, 0] = 1.0 / (largest * math.sqrt(c2))
            out[i, 1] = 1.0 / (largest * c1)
            out[i, 2] = math.log(c1 * c1 / c2)
    return out


@jit
def dense_invariants(C, radius):
    """`invariants` for a dense ``C`` with a zero diagonal."""
    n = len(radius)
    out = np.zeros((n, 3))
    for i in range(n):
        c1 = 0.0
        c2 = 0.0
        largest = 0.0
        for j in range(n):
            largest = max(largest, abs(C[i, j]) * radius[j])
        if largest > 0.0:
            for j in range(n):
                size = abs(C[i, j]) * radius[j] / largest
                c1 += size
                c2 += size * size
            out[i, 0] = 1.0 / (largest * math.sqrt(c2))
            out[i, 1] = 1.0 / (largest * c1)
            out[i, 2] = math.log(c1 * c1 / c2)
    return out


@jit(fastmath=FAST, inline="always")
def _relaxation(size, f, a, W1, b1, W2):
    """w - 1 = sigmoid(a + W2 . tanh(W1 f + b1)) for a row with ``|g| = size`` and invariants f."""
    f0 = size * f[0]
    f1 = size * f[1]
    z = a
    for s in range(len(W2)):
        z += W2[s] * math.tanh(W1[s, 0] * f0 + W1[s, 1] * f1 + W1[s, 2] * f[2] + b1[s])
    return 1.0 / (1.0 + math.exp(-z))


@jit(fastmath=FAST, inline="always")
def _turn(g, y, r, f, a, W1, b1, W2):
    """One row step in place; returns (decrease of the cost, 4 |Proj g|^2)."""
    gg = 0.0
    gy = 0.0
    yy = 0.0
    for c in range(len(y)):
        gg += g[c].real * g[c].real + g[c].imag * g[c].imag
        gy += g[c].real * y[c].real + g[c].imag * y[c].imag
        yy += y[c].real * y[c].real + y[c].imag * y[c].imag
    if not gg > 0.0:  # isolated vertex: any row is optimal, keep this one
        return 0.0, 0.0
    size = math.sqrt(gg)
    per_g = 1.0 / size
    per_y = 1.0 / math.sqrt(yy)
    q = -gy * per_g * per_y
    sine2 = 0.0  # |u - q a|^2 = 1 - q^2 without its cancellation
    for c in range(len(y)):
        d = per_g * g[c] + q * per_y * y[c]
        sine2 += d.real * d.real + d.imag * d.imag
    sine = math.sqrt(sine2)
    if q < 0.0 and sine < ANTIPODE:
        return 0.0, 0.0
    along_u = q  # of what y holds
    if q < 0.0 and sine < NEAR:  # y becomes a - q u, made orthogonal to u again: of the small difference much is rounding
        along = 0.0
        for c in range(len(y)):
            y[c] = per_g * q * g[c] + per_y * y[c]
            along += per_g * (g[c].real * y[c].real + g[c].imag * y[c].imag)
        sine2 = 0.0
        for c in range(len(y)):
            y[c] -= along * per_g * g[c]
            sine2 += y[c].real * y[c].real + y[c].imag * y[c].imag
        sine, along_u, per_y = math.sqrt(sine2), 0.0, 1.0
    theta = math.atan2(sine, q)
    part = _relaxation(size, f, a, W1, b1, W2)
    phi = part * theta
    ratio = math.sin(phi) / sine if sine > 0.0 else part
    on_u = (math.cos(phi) + along_u * ratio) * r * per_g
    on_y = ratio * r * per_y
    for c in range(len(y)):
        y[c] = -on_u * g[c] - on_y * y[c]
    gain = 2.0 * math.sin(0.5 * (theta + phi)) * math.sin(0.5 * (theta - phi))  # cos phi - cos theta
    return 2.0 * r * size * gain, 4.0 * gg * sine2


@jit(fastmath=FAST)
def network_sweep(indptr, indices, data, radius, order, f, a, W1, b1, W2, Y, g):
    """One sweep over the rows in the given order (colours, for the network it was trained as) for CSR ``C``.

    ``f`` (n x 3) are the `invariants`; ``a`` (a number), ``W1`` (h x 3), ``b1`` and ``W2`` (h, which may be 0) the weights of this sweep;
    ``g`` (k) is workspace.  Returns (decrease of the cost, |grad|^2 as met on the way).
    """
    decrease = 0.0
    grad2 = 0.0
    for i in order:
        _gather(indptr, indices, data, Y, i, g)
        d, r = _turn(g, Y[i], radius[i], f[i], a, W1, b1, W2)
        decrease += d
        grad2 += r
    return decrease, grad2


@jit(fastmath=FAST)
def dense_network_sweep(C, radius, f, a, W1, b1, W2, Y, G, before):
    """`network_sweep` in natural order for a dense Hermitian ``C`` **with a zero diagonal**; as `mixing.dense_sweep`, by blocks of rows."""
    n, k = Y.shape
    decrease = 0.0
    grad2 = 0.0
    for first in range(0, n, len(G)):
        last = min(first + len(G), n)
        np.dot(C[first:last], Y, G[: last - first])
        for i in range(first, last):
            for c in range(k):
                before[c] = Y[i, c]
            d, r = _turn(G[i - first], Y[i], radius[i], f[i], a, W1, b1, W2)
            decrease += d
            grad2 += r
            for c in range(k):
                before[c] = Y[i, c] - before[c]
            for j in range(i + 1, last):
                w = C[j, i]
                for c in range(k):
                    G[j - first, c] += w * before[c]
    return decrease, grad2


@jit
def block_network_sweep(indptr, indices, data, d, order, f, a, W1, b1, W2, Y, G):
    """`network_sweep` over the blocks of d rows of ``Y``; ``f`` (n / d x 3) are their invariants, ``G`` (d x k) is workspace."""
    decrease = 0.0
    grad2 = 0.0
    eye = np.eye(d).astype(Y.dtype)
    for i in order:
        _gather_block(indptr, indices, data, Y, i, d, G)
        size = np.linalg.norm(G)
        if not size > 0:
            continue
        old = Y[i * d : (i + 1) * d].copy()
        inner = G @ old.conj().T
        grad2 += 4 * np.linalg.norm(G - (inner + inner.conj().T) / 2 @ old) ** 2
        U = -_polar(G)
        M = old @ U.conj().T
        if abs(np.linalg.det(eye + M)) < ANTIPODE:
            continue
        rho = _relaxation(size / math.sqrt(d), f[i], a, W1, b1, W2)
        P = np.linalg.inv(eye + M)
        skew = P.conj().T - P
        S = np.linalg.inv((eye + rho * rho * (P + P.conj().T - eye) + rho * skew) / 2)
        new = (S - eye) @ U - rho * (S @ P) @ (old - M @ U)
        decrease += 2 * (G * (old - new).conj()).sum().real
        Y[i * d : (i + 1) * d] = new
    return decrease, grad2
