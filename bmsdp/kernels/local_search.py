"""One-flip local search on a cut of a weighted graph."""

from __future__ import annotations

from ._jit import jit


@jit
def flip_gain(indptr, indices, data, x, i):
    """Gain ``x_i sum_j W_ij x_j`` (j != i) in cut weight from flipping vertex i, and a bound on its rounding error."""
    gain = 0.0
    size = 0.0
    for p in range(indptr[i], indptr[i + 1]):
        j = indices[p]
        if j != i:
            gain += data[p] * x[j]
            size += abs(data[p])
    return gain * x[i], size * 2.3e-16 * (indptr[i + 1] - indptr[i])


@jit
def one_flip(indptr, indices, data, x, gains, errors):
    """Flip single vertices while the cut grows; returns the number of flips.

    Sweeps in the order of the vertices, so the outcome is a function of the input. A vertex flips only if its
    recomputed gain exceeds the rounding error of that gain: every flip raises the exact cut, hence termination.
    The gains kept between flips only say where to look, and a fresh pass over all edges has the last word.

    Parameters
    ----------
    indptr, indices, data : arrays
        CSR form of the symmetric weights W; a diagonal is ignored.
    x : array (n,) of -1 and +1, int8 or float64
        The cut, improved in place.
    gains, errors : float64 arrays (n,)
        Workspace.

    Notes
    -----
    O(nnz) for a fresh pass, O(n) plus the degrees of the flipped vertices for a sweep.
    """
    n = x.size
    total = 0
    while True:
        for i in range(n):
            gains[i], errors[i] = flip_gain(indptr, indices, data, x, i)
        flips = 0
        improved = True
        while improved:
            improved = False
            for i in range(n):
                if gains[i] <= errors[i]:
                    continue
                gains[i], errors[i] = flip_gain(indptr, indices, data, x, i)
                if gains[i] <= errors[i]:
                    continue
                gain = gains[i]
                for p in range(indptr[i], indptr[i + 1]):
                    j = indices[p]
                    gains[j] -= 2.0 * data[p] * x[i] * x[j]
                gains[i] = -gain
                x[i] = -x[i]
                flips += 1
                improved = True
        total += flips
        if flips == 0:
            return total
