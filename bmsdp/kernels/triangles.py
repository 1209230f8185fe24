"""Violated triangle inequalities of a matrix with unit diagonal."""

from ._jit import jit


@jit
def violated_triangles(X, tol, worst, place):
    """The most violated of ``s_ij X_ij + s_ik X_ik + s_jk X_jk >= -1``, signs of product 1, over i < j < k.

    ``worst`` (p,) and ``place`` (p, 4) keep the p worst below ``-1 - tol``: value, and (i, j, k, signs), signs 0 for +++, 1, 2, 3 for the
    pair that alone is positive (ij, ik, jk).  Returns how many were kept; n^3/6 steps, no allocation.
    """
    n, p, kept, bar = len(X), len(worst), 0, -1.0 - tol
    low = 0  # the least violated of those kept, once p are
    for i in range(n):
        for j in range(i + 1, n):
            a = X[i, j]
            for k in range(j + 1, n):
                b, c = X[i, k], X[j, k]
                for s in range(4):
                    value = a + b + c if s == 0 else a - b - c if s == 1 else b - a - c if s == 2 else c - a - b
                    if value >= bar:
                        continue
                    at = kept if kept < p else low
                    worst[at] = value
                    place[at, 0], place[at, 1], place[at, 2], place[at, 3] = i, j, k, s
                    if kept < p:
                        kept += 1
                    if kept == p:
                        low = 0
                        for q in range(p):
                            if worst[q] > worst[low]:
                                low = q
                        bar = worst[low]
    return kept
