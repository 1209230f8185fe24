r"""A positive semidefinite matrix of low rank from some of its entries, with a bound.

Entries ``X_ij = m_ij`` on a pattern Omega are given, as of a Gram or covariance matrix. Small trace stands for low rank:

    min  tr X   subject to   X_ij = m_ij on Omega,  X >= 0,

whose dual is ``max { <m, y> : I - A*(y) >= 0 }`` with ``A*(y) = sum_p y_p (E_ij + E_ji)/2``. Where the entries carry noise the equations
become a misfit with weights w,

    min  sum_p w_p (X_ij - m_p)^2 + lam tr X,   X >= 0;     dual:  max { <m, y> - sum_p y_p^2 / 4 w_p : lam I - A*(y) >= 0 },

attained by ``y_p = 2 w_p (m_p - X_ij)``. Nothing fixes the trace, but the identity in the cost repairs any y: if
``lam I - A*(y) >= -e I``, then ``y lam / (lam + e)`` is feasible. So every point proves a bound, by an eigenvalue bound e
of `bmsdp.verified`. For the squares the term is `SquaredEntries`, ``-2 w_p m_p X_ij`` being part of C, as in `correlation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_maps import MatrixMap, entries
from ..manifolds import Unconstrained
from ..penalty import Penalty
from ..problem import Problem
from ..verified import lower_bound
from .correlation import SquaredEntries


@dataclass(frozen=True, eq=False)
class Completion:
    """A completed matrix and how good it must be: ``value >= minimum >= bound``, up to ``residual`` where entries are exact."""

    Y: np.ndarray = field(repr=False)
    """Factor (n, k): ``X = YY*``."""
    value: float
    """``tr X``, or the misfit plus ``lam tr X``."""
    bound: float
    """Lower bound on the value of every positive semidefinite matrix (with the given entries); at least 0."""
    residual: float
    """``max_p |X_ij - m_p|``."""

    @property
    def X(self) -> np.ndarray:
        """The completed matrix (n, n)."""
        return self.Y @ self.Y.T


def problem(n: int, i: Any, j: Any, values: Any, *, lam: float | None = None, weights: Any = None) -> Problem:
    """The smallest trace with these entries, or, given ``lam``, the smallest misfit plus ``lam tr X``.

    Solve the second kind with ``bmsdp.solve(..., rank=k, certify=None)``; `recover` brings the bound.

    Parameters
    ----------
    n : int
    i, j : array_like of int, (p,)
        Places, from 0, each at most once, in any triangle.
    values : array_like, (p,)
        m, real; on the diagonal not negative.
    lam : float, optional
        Positive, in units of ``w m``; None asks for the entries exactly.
    weights : array_like, (p,), optional
        Positive, with ``lam`` only; 1 by default.  A place off the diagonal counts once.

    Raises
    ------
    ValueError
        For places outside, repeated or not integers; values or weights that are not finite or out of range.
    """
    i, j, m, w = _check(n, i, j, values, lam, weights)
    if lam is None:
        return Problem(sparse.eye_array(n, format="csr"), Unconstrained(n), [Penalty(entries(n, i, j), m)])
    linear = lam * sparse.eye_array(n, format="csr") + entries(n, i, j).matrix(-2 * w * m)
    return Problem(sparse.csr_array(linear), Unconstrained(n), [SquaredEntries(entries(n, i, j).matrix(w))])


def recover(result: Any, n: int, i: Any, j: Any, values: Any, *, lam: float | None = None, weights: Any = None) -> Completion:
    """The completed matrix, its value, and a bound on that of all others.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(n, i, j, values, ...))``
        Its dual is used where entries are exact; any dual gives a bound.
    n, i, j, values, lam, weights : as for `problem`

    Cost
    ----
    A few factorisations of a sparse matrix with the pattern of the places.
    """
    i, j, m, w = _check(n, i, j, values, lam, weights)
    Y, A = np.asarray(result.Y), entries(n, i, j)
    if Y.ndim != 2 or len(Y) != n or Y.dtype.kind == "c":
        raise ValueError(f"the result's Y has shape {Y.shape} ({Y.dtype}) but n = {n}; real rows, one for each, are needed")
    r = A.apply(Y, Y) - m
    trace = float(np.vdot(Y, Y))
    residual = float(np.abs(r).max(initial=0.0))
    if lam is None:
        y = np.asarray(result.dual, float)
        if y.shape != m.shape:
            raise ValueError(f"the result has {y.size} multipliers for {m.size} entries; pass the result of solve(problem(...))")
        y = _feasible(A, m, y, 1.0)
        terms = m * y
        return Completion(Y, trace, max(_down(terms), 0.0), residual)
    y = _feasible(A, m, -2 * w * r, lam)
    terms = np.concatenate([m * y, -(y**2) / (4 * w)])
    return Completion(Y, float(w @ r**2) + lam * trace, max(_down(terms), 0.0), residual)


def _feasible(A: MatrixMap, m: np.ndarray, y: np.ndarray, lam: float) -> np.ndarray:
    """Y scaled down until ``lam I - A*(y) >= 0``, proved."""
    found = lower_bound(lam * sparse.eye_array(A.n, format="csr"), A, m, y, trace_bound=1.0)
    excess = found.excess * (1 + 2.0**-50)
    return np.asarray(found.dual) * (lam / (lam + excess)) * (1 - 2.0**-50)


def _down(terms: np.ndarray) -> float:
    """The sum, lowered by the rounding of its terms."""
    return math.fsum(terms) - 2.0**-50 * math.fsum(np.abs(terms))


def _check(n: int, i: Any, j: Any, values: Any, lam: float | None, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n = {n}; a positive integer is needed")
    i, j, m = (np.atleast_1d(np.asarray(part)).ravel() for part in (i, j, values))
    if not (i.shape == j.shape == m.shape and i.size) or i.dtype.kind not in "iu" or j.dtype.kind not in "iu":
        raise ValueError(
            f"i, j and values have {i.size} ({i.dtype}), {j.size} ({j.dtype}) and {m.size} elements; "
            "equally many are needed, and integers for i and j"
        )
    if min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= n:
        p = int(np.argmax((np.minimum(i, j) < 0) | (np.maximum(i, j) >= n)))
        raise ValueError(f"entry {p} is at ({i[p]}, {j[p]}); 0 <= i, j < n = {n} is needed")
    i, j = np.minimum(i, j).astype(np.int64), np.maximum(i, j).astype(np.int64)
    first = np.unique(i * n + j, return_index=True)[1]
    if first.size < i.size:
        p = int(np.setdiff1d(np.arange(i.size), first)[0])
        raise ValueError(f"place ({i[p]}, {j[p]}) is given again by entry {p}; each at most once (X is symmetric)")
    if m.dtype.kind not in "biuf" or not np.isfinite(m.astype(float)).all():
        raise ValueError(f"values ({m.dtype}) must be real and finite; leave out places without a value")
    m = m.astype(float)
    if ((i == j) & (m < 0)).any() and lam is None:
        p = int(np.argmax((i == j) & (m < 0)))
        raise ValueError(f"entry {p} asks for X[{i[p]}, {i[p]}] = {m[p]:g}; a positive semidefinite X has no negative diagonal")
    if lam is None and weights is not None:
        raise ValueError("weights were given without lam; exact entries have no weights: pass lam, or leave weights None")
    if lam is not None and not (isinstance(lam, (int, float, np.number)) and 0 < lam < math.inf):
        raise ValueError(f"lam = {lam!r}; a positive finite number is needed, or None for exact entries")
    w = np.ones(m.size) if weights is None else np.asarray(weights)
    if w.shape != m.shape or w.dtype.kind not in "biuf" or not (np.isfinite(w) & (w > 0)).all():
        raise ValueError(f"weights have shape {w.shape} ({w.dtype}) for {m.size} entries; one positive finite number each is needed")
    return i, j, m, w.astype(float)
