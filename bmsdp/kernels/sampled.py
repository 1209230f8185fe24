"""Entries of ``YY*`` and ``YU*`` on a pattern: what sparse constraints see of X."""

from ._jit import FAST, jit


@jit(fastmath=FAST)
def gram_entries(i, j, Y, out):
    """out_p <- (Y Y*)_{i_p j_p} for C-contiguous ``Y`` (n x k); 2 p k flops, no allocation."""
    for p in range(len(i)):
        a = Y[i[p]]
        c = Y[j[p]]
        total = out[p] * 0
        for q in range(len(a)):
            total += a[q] * c[q].conjugate()
        out[p] = total


@jit(fastmath=FAST)
def cross_entries(i, j, Y, U, out):
    """out_p <- ((U Y* + Y U*) / 2)_{i_p j_p}: the derivative of `gram_entries` along U, halved."""
    for p in range(len(i)):
        a, u = Y[i[p]], U[i[p]]
        c, v = Y[j[p]], U[j[p]]
        total = out[p] * 0
        for q in range(len(a)):
            total += a[q] * v[q].conjugate() + u[q] * c[q].conjugate()
        out[p] = total / 2
