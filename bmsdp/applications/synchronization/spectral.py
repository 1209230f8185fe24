"""Spectral synchronization: the leading eigenvectors of the normalised measurements, rounded block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from ...operators import Operator
from .rounding import nearest

SMALL = 400  # rows up to which all eigenvalues are computed
RESTARTS = 30  # of Arnoldi, before the cost is factorised


def spectral(C: Operator, d: int, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """A start for the descent, and how far the noise leaves the signal standing out.

    With ``D = diag(C)``, the d leading eigenvectors of ``I - D^-1/2 C D^-1/2`` span the columns of R where there is no noise (Singer
    2011; Arie-Nachimson et al. 2012).

    Parameters
    ----------
    C : Operator of ``Measurements.cost`` or ``Clouds.cost``, n d rows
    d : size of a block

    Returns
    -------
    Y : array (n d, d), orthogonal blocks
    values : array (d + 1,)
        The leading eigenvalues, descending (1, d times, for consistent orthogonal measurements); ``values[d - 1] - values[d]`` is the
        eigenvalue gap.

    Cost
    ----
    Some tens of products with C; for graphs that are long rather than wide, where these do not separate the eigenvalues, one sparse LU.
    """
    scale = 1 / np.sqrt(np.maximum(np.asarray(C.diagonal()), 1e-300))
    N, rng = C.n, np.random.default_rng(rng)
    M = C.matrix()
    if N <= max(SMALL, 4 * d):
        dense = (M.toarray() if sparse.issparse(M) else M) if M is not None else C.mul(np.eye(N, dtype=C.dtype))
        values, V = np.linalg.eigh(scale[:, None] * dense * scale)
        values, V = values[: d + 1], V[:, :d]
    else:
        values, V = _smallest(C, M, scale, d, rng)
    return nearest(V.reshape(-1, d, d)).reshape(N, d), 1 - values


def _smallest(C: Operator, M: Any, scale: np.ndarray, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The d + 1 smallest eigenvalues of ``D^-1/2 C D^-1/2`` and d vectors, about."""
    N = C.n
    v = (rng.standard_normal(N) + (1j * rng.standard_normal(N) if C.is_complex else 0)).astype(C.dtype)

    def product(x: np.ndarray) -> np.ndarray:
        x = x.reshape(N, -1)
        return 2 * x - scale[:, None] * C.mul(np.ascontiguousarray(scale[:, None] * x))

    shifted = LinearOperator((N, N), matvec=product, matmat=product, dtype=C.dtype)
    try:
        values, V = eigsh(shifted, d + 1, which="LA", v0=v, tol=1e-3, maxiter=RESTARTS)
        order = np.argsort(-values)
        return 2 - values[order], V[:, order[:d]]
    except ArpackNoConvergence as partial:
        found = partial
    if sparse.issparse(M):
        D = sparse.diags_array(scale)
        try:
            values, V = eigsh((D @ M @ D).tocsc(), d + 1, sigma=-1e-6, which="LM", v0=v, tol=1e-3)
            order = np.argsort(values)
            return values[order], V[:, order[:d]]
        except (ArpackError, RuntimeError):
            pass
    order = np.argsort(-found.eigenvalues)[:d]
    V = found.eigenvectors[:, order]
    if V.shape[1] < d:  # what is missing is drawn: any start serves
        more = rng.standard_normal((N, d - V.shape[1])).astype(C.dtype) / np.sqrt(N)
        V = np.concatenate([V, more], axis=1)
    values = np.full(d + 1, np.nan)
    values[: order.size] = 2 - found.eigenvalues[order]
    return values, V
