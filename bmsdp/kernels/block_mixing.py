r"""Over-relaxed mixing on Stiefel blocks: ``Y_i <- polar((1 - omega) Y_i + omega polar(-G_i))``, G_i without the block C_ii.

With ``Y_i Y_i* = I`` the block C_ii adds the constant ``tr C_ii``; the rest of the cost is ``2 Re<G_i, Y_i>``, whose minimiser is
``polar(-G_i) = -U V*`` for ``G_i = U Sigma V*``.  The polar factor of the relaxed sum descends for 0 < omega < 2.
"""

import numpy as np

from ._jit import FAST, jit


@jit(fastmath=FAST)
def _gather(indptr, indices, data, Y, i, d, G):
    """G <- sum_{j outside block i} C_[i, j] y_j, d x k."""
    G[:] = 0
    first, last = i * d, (i + 1) * d
    for a in range(d):
        for p in range(indptr[first + a], indptr[first + a + 1]):
            j = indices[p]
            if j < first or j >= last:
                w = data[p]
                for c in range(Y.shape[1]):
                    G[a, c] += w * Y[j, c]


@jit
def _polar(M):
    """The polar factor ``(M M*)^{-1/2} M`` of a d x k matrix, d <= k; by SVD where M is nearly rank-deficient."""
    lam, Q = np.linalg.eigh(M @ M.conj().T)
    if not lam[0] > 1e-3 * lam[-1]:  # eigh of the Gram matrix loses what squaring loses
        U, _, V = np.linalg.svd(M, full_matrices=False)
        return U @ V
    return (Q / np.sqrt(lam)) @ Q.conj().T @ M


@jit
def block_sweep(indptr, indices, data, d, omega, Y, G):
    """One sweep over the blocks; ``G`` (d x k) is workspace.  Returns (decrease of the cost, |grad|^2 as met on the way)."""
    decrease = 0.0
    grad2 = 0.0
    for i in range(len(Y) // d):
        _gather(indptr, indices, data, Y, i, d, G)
        size = np.linalg.norm(G)
        if not size > 0:
            continue
        old = Y[i * d : (i + 1) * d].copy()
        inner = G @ old.conj().T
        tangent = G - (inner + inner.conj().T) / 2 @ old
        new = _polar((1 - omega) * old - omega * _polar(G))
        change = G * (old - new).conj()
        decrease += 2 * change.sum().real
        grad2 += 4 * np.linalg.norm(tangent) ** 2
        Y[i * d : (i + 1) * d] = new
    return decrease, grad2
