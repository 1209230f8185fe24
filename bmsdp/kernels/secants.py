"""Memories of secant pairs as rows of flat real arrays: the L-BFGS two-loop, Gram matrices and combinations, all in place."""

from ._jit import FAST, jit

STRIP = 2048  # numbers of a vector that stay in the first cache while all rows of a memory pass by


@jit(fastmath=FAST, inline="always")
def _dot(x, y):
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@jit(fastmath=FAST, inline="always")
def _axpy_dot(a, x, y, z):
    """y <- y + a x; returns <y, z>, in the same pass."""
    total = 0.0
    for i in range(len(x)):
        y[i] += a * x[i]
        total += y[i] * z[i]
    return total


@jit(fastmath=FAST)
def store(step, D, grad, before, s, y):
    """s <- step D and y <- grad - before; returns (<s, y>, <s, s>, <y, y>).  All of length N; one pass."""
    sy = 0.0
    ss = 0.0
    yy = 0.0
    for i in range(len(D)):
        a = step * D[i]
        b = grad[i] - before[i]
        s[i] = a
        y[i] = b
        sy += a * b
        ss += a * a
        yy += b * b
    return sy, ss, yy


@jit(fastmath=FAST)
def two_loop(S, Y, sy, yy, newest, count, q, weights):
    """q <- H q for the inverse BFGS matrix H of a ring of pairs (Nocedal, Wright, Algorithm 7.4), based on ``sy / yy`` of the newest.

    Parameters
    ----------
    S, Y : float64, memory x N, C-contiguous
        Steps and differences of gradients; ``count`` of them, the latest in row ``newest``, older ones in the rows before it, cyclically.
    sy, yy : float64, (memory,)
        ``<s, y> > 0`` and ``<y, y>`` of each row.
    q : float64, (N,)
    weights : float64, (memory,)
        Workspace.

    Notes
    -----
    ``8 count N`` flops in ``2 count + 1`` passes over q; each row of S and Y is read twice.  Every update of q and the next inner
    product share a pass.
    """
    if count == 0:
        return
    memory = len(S)
    i = newest
    a = _dot(S[i], q) / sy[i]
    for _ in range(count - 1):
        weights[i] = a
        older = i - 1 if i > 0 else memory - 1
        a = _axpy_dot(-a, Y[i], q, S[older]) / sy[older]
        i = older
    weights[i] = a
    base = sy[newest] / yy[newest]
    y = Y[i]
    b = 0.0
    for j in range(len(q)):
        q[j] = base * (q[j] - a * y[j])
        b += q[j] * y[j]
    for _ in range(count - 1):
        newer = i + 1 if i < memory - 1 else 0
        b = _axpy_dot(weights[i] - b / sy[i], S[i], q, Y[newer])
        i = newer
    c = weights[i] - b / sy[i]
    s = S[i]
    for j in range(len(q)):
        q[j] += c * s[j]


@jit(fastmath=FAST)
def gram(A, D, a, d, g, out):
    """out_i <- (<A_i, a>, <A_i, d>, <A_i, g>, <D_i, a>, <D_i, g>) for A, D (m x N), out (m x 5); every row is read once."""
    out[:] = 0.0
    for first in range(0, len(g), STRIP):
        last = min(first + STRIP, len(g))
        y, s, v = a[first:last], d[first:last], g[first:last]
        for i in range(len(A)):
            x = A[i, first:last]
            z = D[i, first:last]
            xa = 0.0
            xd = 0.0
            xg = 0.0
            za = 0.0
            zg = 0.0
            for c in range(len(v)):
                xa += x[c] * y[c]
                xd += x[c] * s[c]
                xg += x[c] * v[c]
                za += z[c] * y[c]
                zg += z[c] * v[c]
            out[i, 0] += xa
            out[i, 1] += xd
            out[i, 2] += xg
            out[i, 3] += za
            out[i, 4] += zg


@jit(fastmath=FAST)
def combine(A, D, on_A, on_D, base, v, out):
    """out <- base v + A' on_A + D' on_D for A, D (m x N) and coefficients (m,); every row is read once."""
    for first in range(0, len(v), STRIP):
        last = min(first + STRIP, len(v))
        strip = out[first:last]
        given = v[first:last]
        for c in range(len(strip)):
            strip[c] = base * given[c]
        for i in range(len(A)):
            a = on_A[i]
            d = on_D[i]
            x = A[i, first:last]
            z = D[i, first:last]
            for c in range(len(strip)):
                strip[c] += a * x[c] + d * z[c]
