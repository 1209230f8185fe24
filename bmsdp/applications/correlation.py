r"""The nearest correlation matrix of low rank, with a bound over all ranks.

Given a symmetric G (correlations that were estimated pair by pair, smoothed or stressed, and are no longer positive semidefinite) and
weights H >= 0 (1 by default),

    min  sum_ij H_ij (X_ij - G_ij)^2   subject to   diag(X) = 1,  X >= 0,  rank X <= k.

With X = YY* the diagonal is a manifold. The square is split: ``-2 H_ij G_ij X_ij`` is the linear cost ``<C, X>``, ``H_ij X_ij^2`` the
term `SquaredEntries`, and the constant ``sum H_ij G_ij^2`` is left out. The misfit phi is convex in X: with its gradient
``R = 2 H o (X - G)`` at any X,

    phi(Z) >= phi(X) - <R, X> + <R, Z> >= phi(X) - <R, X> + min { <R, Z> : diag(Z) = 1, Z >= 0 }    for every correlation matrix Z,

and the last minimum is a semidefinite program with unit diagonal, bounded from any multipliers by `bmsdp.verified.lower_bound`. So a
point of rank k shows how much any larger rank could gain. (Full rank: Higham 2002; low rank: Grubisic & Pietersz 2007.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..manifolds import Oblique
from ..problem import Problem, Term
from ..verified import lower_bound


class SquaredEntries(Term):
    """``sum_ij H_ij X_ij^2`` with ``X = YY*``, as a term of the cost.

    Parameters
    ----------
    H : ndarray or CSR array, n x n
        Symmetric, not negative; only X on its pattern is formed.
    """

    def __init__(self, H: Any):
        self.H: Any = H
        if not isinstance(H, np.ndarray):
            self.H = sparse.csr_array(H)
            self.rows = np.repeat(np.arange(self.H.shape[0]), np.diff(self.H.indptr))

    def weighted(self, Y: np.ndarray, U: np.ndarray) -> Any:
        """``H o (Y U*)``, of the kind of H."""
        if isinstance(self.H, np.ndarray):
            return self.H * (Y @ U.T)
        inner = np.einsum("pk,pk->p", Y[self.rows], U[self.H.indices])
        return sparse.csr_array((self.H.data * inner, self.H.indices, self.H.indptr), shape=self.H.shape)

    def value(self, Y: np.ndarray) -> float:
        return float(np.vdot(self.weighted(Y, Y) @ Y, Y))

    def half_grad(self, Y: np.ndarray) -> np.ndarray:
        return 2 * (self.weighted(Y, Y) @ Y)

    def half_hess(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        cross = self.weighted(U, Y)
        return 2 * (self.weighted(Y, Y) @ U + (cross + cross.T) @ Y)


@dataclass(frozen=True, eq=False)
class Correlation:
    """A correlation matrix of rank at most k and how near it must be: ``misfit >= minimum over all ranks >= bound``."""

    Y: np.ndarray = field(repr=False)
    """Factor (n, k) with rows of length 1: ``X = YY*``."""
    misfit: float
    """``sum_ij H_ij (X_ij - G_ij)^2``."""
    bound: float
    """Lower bound on the misfit of every correlation matrix, of any rank; at least 0."""

    @property
    def X(self) -> np.ndarray:
        """The correlation matrix (n, n), its diagonal exactly 1."""
        X = self.Y @ self.Y.T
        np.fill_diagonal(X, 1.0)
        return X

    @property
    def distance(self) -> float:
        """The square root of the misfit: for weights 1 the Frobenius distance to G."""
        return math.sqrt(self.misfit)


def problem(G: Any, weights: Any = None) -> Problem:
    """``min <-2 H o G, X> + sum H_ij X_ij^2``, ``diag(X) = 1``: the misfit without its constant.

    Solve it with ``bmsdp.solve(problem(G), rank=k, certify=None)``; `recover` brings the bound.

    Parameters
    ----------
    G : array_like, n x n, real symmetric
        Its diagonal is not used.
    weights : array_like, n x n, symmetric, not negative, optional
        H; 0 where an entry of G is not to count.  1 by default.

    Raises
    ------
    ValueError
        For matrices that are not square, symmetric, real and finite; negative weights; no weight off the diagonal.
    """
    G = _symmetric(G, "G")
    H = np.ones(G.shape) if weights is None else _symmetric(weights, "weights")
    if H.shape != G.shape:
        raise ValueError(f"weights have shape {H.shape} but G has {G.shape}; they must agree")
    if (H < 0).any():
        raise ValueError(f"weights has the entry {H.min():g}; none may be negative")
    H = H - np.diag(np.diag(H))  # the diagonal of X is fixed
    if not H.any():
        raise ValueError("no entry off the diagonal has a positive weight; G with n >= 2 and one such weight are needed")
    return Problem(-2 * H * G, Oblique(np.ones(len(G))), [SquaredEntries(H)])


def recover(result: Any, G: Any, weights: Any = None) -> Correlation:
    """The correlation matrix, its misfit, and a bound on that of all others.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(G, weights), rank=k, certify=None)``, or anything with a real factor Y (n, k)
    G, weights : as for `problem`

    Returns
    -------
    Correlation
        The bound holds up to the rounding of the gradient R, which is subtracted; it is near the misfit where the rank does not bind.

    Cost
    ----
    A few dense factorisations, O(n^3).
    """
    G = _symmetric(G, "G")
    Y = np.asarray(result.Y)
    if Y.ndim != 2 or len(Y) != len(G) or Y.dtype.kind == "c":
        raise ValueError(f"the result's Y has shape {Y.shape} ({Y.dtype}) but G has {len(G)} rows; real rows, one for each, are needed")
    H = np.ones(G.shape) if weights is None else _symmetric(weights, "weights")
    H = H - np.diag(np.diag(H))
    Y = Y / np.linalg.norm(Y, axis=1, keepdims=True)
    X = Y @ Y.T
    D = X - G
    misfit = float(np.sum(H * D**2))
    R = 2 * H * D
    mu = np.einsum("ij,ij->i", R @ Y, Y)  # least-squares multipliers of R on the unit diagonal
    found = lower_bound(R, dual=mu).bound
    # of |X_ij| <= 1: what rounding of R, of <R, X> and of the misfit can amount to
    rounding = 2.0**-50 * len(G) * float(np.sum(np.abs(R)) + np.sum(H * D * D))
    bound = misfit - float(np.sum(R * X)) + found - rounding
    return Correlation(Y, misfit, max(bound, 0.0))


def _symmetric(M: Any, name: str) -> np.ndarray:
    M = M.toarray() if sparse.issparse(M) else np.asarray(M)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or M.dtype.kind not in "biuf":
        raise ValueError(f"{name} has shape {M.shape} ({M.dtype}); a real square matrix is needed")
    M = M.astype(float)
    if not np.isfinite(M).all():
        i, j = np.argwhere(~np.isfinite(M))[0]
        raise ValueError(f"{name}[{i}, {j}] is NaN or infinite; finite entries are needed (no data: weight 0)")
    defect = np.abs(M - M.T)
    if defect.max(initial=0.0) > 1e-14 * np.abs(M).max(initial=0.0):
        i, j = np.unravel_index(np.argmax(defect), defect.shape)
        raise ValueError(
            f"{name} is not symmetric: max |M - M.T| = {defect[i, j]:g} at ({i}, {j}); pass ({name} + {name}.T) / 2 if that is meant"
        )
    return (M + M.T) / 2
