"""Projections onto the tangent spaces of spheres, in one pass."""

from ._jit import FAST, jit


@jit(fastmath=FAST)
def oblique_add(Z, U, Y, b, scale):
    """Z <- scale (U + Proj Z) on rows of squared radii ``b``: ``Proj z_i = z_i - Re<z_i, y_i> y_i / b_i``; arrays n x k."""
    for i in range(len(Z)):
        a = 0.0
        for c in range(Z.shape[1]):
            a += Z[i, c].real * Y[i, c].real + Z[i, c].imag * Y[i, c].imag
        a /= b[i]
        for c in range(Z.shape[1]):
            Z[i, c] = scale * (U[i, c] + Z[i, c] - a * Y[i, c])
