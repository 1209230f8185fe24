r"""Constraints held by an augmented Lagrangian: one `Term` (floor L3).

With ``r = A(X) - b`` and ``z = nu - sigma r`` (at least 0 for ``>=``), Hestenes, Powell and Rockafellar's

    value = (|z|^2 - |nu|^2) / (2 sigma),    S -= A*(z),    Hess[U] += 4 sigma Proj(A*(1_{z > floor} o Re<A Y, U>) Y),

and z are the next multipliers: at a critical point of the merit, S is the slack of the whole problem.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from .linear_maps import LinearMap, MatrixMap, as_linear_map
from .operators import Operator
from .pattern_map import PatternMap, cost_with
from .problem import Term

CANCELS = 1e4  # largest such factor, of sigma


class Multipliers(NamedTuple):
    """What `Penalty` knows at one Y: residuals, what of them the multipliers feel, next multipliers, and their matrix ``A*(z)``.

    ``lack = (nu - z) / sigma``: r of equalities, ``min(r, nu / sigma)`` of inequalities, 0 where one holds with room and has no multiplier.
    """

    r: np.ndarray
    lack: np.ndarray
    z: np.ndarray
    adjoint: Operator


class Penalty(Term):
    """``A(X) = b`` and ``A_geq(X) >= b_geq`` as a term of the merit.

    Rows are scaled to unit Frobenius norm inside; ``dual`` and ``residuals`` speak of the rows as given.

    Parameters
    ----------
    A, A_geq : LinearMap, sequence of n x n matrices or stacked sparse array, optional
    b, b_geq : array_like
    n : int, optional
        Needed where neither A nor A_geq is a `LinearMap`.

    Attributes
    ----------
    nu : ndarray, (m,)
        Multipliers of the scaled rows, those of A first.
    sigma : float
        Penalty parameter, in units of the cost per squared unit of the scaled rows.
    """

    def __init__(self, A: Any = None, b: Any = (), A_geq: Any = None, b_geq: Any = (), *, n: int | None = None, is_complex: bool = False):
        A, A_geq = (None if M is None or not isinstance(M, LinearMap) and not np.shape(M)[0] else M for M in (A, A_geq))
        maps = [m if isinstance(m, LinearMap) else as_linear_map(m, _rows_of(m) if n is None else n) for m in (A, A_geq) if m is not None]
        if not maps or not all(isinstance(m, MatrixMap) for m in maps):
            raise ValueError("a Penalty needs the matrices of its rows; pass A or A_geq as matrices, as rows, or as a MatrixMap")
        self.given = MatrixMap.stack([m for m in maps if isinstance(m, MatrixMap)])
        self.m, self.m_geq = (maps[0].m if A is not None else 0), (maps[-1].m if A_geq is not None else 0)
        self.b = np.concatenate([np.atleast_1d(np.asarray(side, float)) for side in (b, b_geq)])
        if self.b.shape != (self.m + self.m_geq,) or not np.isfinite(self.b).all():
            raise ValueError(f"b and b_geq hold {self.b.size} numbers for {self.m} + {self.m_geq} rows; one finite number a row is needed")
        square = np.abs(self.given.rows.data) ** 2
        self.norms = np.sqrt(np.maximum(np.bincount(self.given.row_of, square, self.given.m), 1e-300))
        self.scale = 1 / self.norms
        self.map = PatternMap(self.given.scaled(self.scale), is_complex)
        self.rhs = self.scale * self.b
        self.floor = np.concatenate([np.full(self.m, -np.inf), np.zeros(self.m_geq)])
        self.nu, self.sigma = np.zeros(len(self.b)), 1.0

    def at(self, nu: np.ndarray, sigma: float) -> Penalty:
        """The same constraints with other parameters."""
        out = copy.copy(self)
        out.nu, out.sigma = nu, sigma
        return out

    def balanced(self, row_trace: np.ndarray) -> Penalty:
        """The same constraints, rank-one rows ``<u u*, X> = b`` scaled anew where ``A_j Y`` has to cancel.

        With ``X_ii = row_trace_i``, rows of Y in random directions have ``|u* Y|^2 = sum |u_i|^2 row_trace_i``; where b is far less, a
        residual is felt little, and sigma has to be as much larger.
        """
        A, change = self.map, np.ones(len(self.b))
        if not len(A.long):
            return self
        alone, wanted = np.abs(A.U.T) ** 2 @ row_trace, np.abs(self.rhs[A.long] / A.sign)
        change[A.long] = np.sqrt(np.clip(alone / np.maximum(wanted, 1e-300), 1.0, CANCELS))
        out = self.at(self.nu / change, self.sigma)
        out.scale, out.rhs, out.map = self.scale * change, self.rhs * change, A.scaled(change)
        return out

    def factor(self, Y: np.ndarray) -> Multipliers:
        """Residuals and multipliers at Y, to be passed on to the other methods."""
        r = self.map.apply(Y, Y) - self.rhs
        lack = np.minimum(r, (self.nu - self.floor) / self.sigma) if self.m_geq else r
        z = self.nu - self.sigma * lack
        if self.m_geq:
            z = np.where(lack < r, self.floor, z)  # exactly
        return Multipliers(r, lack, z, self.map.operator(z))

    def value(self, Y: np.ndarray, factor: Multipliers | None = None) -> float:
        known = factor or self.factor(Y)
        return -0.5 * float(known.lack @ (known.z + self.nu))  # (|z|^2 - |nu|^2) / (2 sigma) without its cancellation

    def half_grad(self, Y: np.ndarray, factor: Multipliers | None = None) -> np.ndarray:
        return -(factor or self.factor(Y)).adjoint.mul(Y)

    def half_hess(self, Y: np.ndarray, U: np.ndarray, factor: Multipliers | None = None) -> np.ndarray:
        known = factor or self.factor(Y)
        change = 2 * self.sigma * self.map.apply(Y, U) * (known.z > self.floor)
        return self.map.operator(change).mul(Y) - known.adjoint.mul(U)

    def slack_mul(self, Y: np.ndarray, V: np.ndarray, factor: Multipliers | None = None) -> np.ndarray:
        return -(factor or self.factor(Y)).adjoint.mul(V)

    def dual_value(self, Y: np.ndarray, factor: Multipliers | None = None) -> float:
        return float(self.rhs @ (factor or self.factor(Y)).z)

    def infeasibility(self, Y: np.ndarray, factor: Multipliers | None = None) -> float:
        """The largest violation of a row relative to ``|A_j| tr X + |b_j|``."""
        r = (factor or self.factor(Y)).r.copy()
        r[self.m :] = np.minimum(r[self.m :], 0)
        return float(np.max(np.abs(r) / (self.scale * self.norms * float(np.linalg.norm(Y)) ** 2 + np.abs(self.rhs)), initial=0.0))

    def slack_cost(self, C: Operator, z: np.ndarray) -> Operator:
        """``C - A*(z)``, of scaled multipliers z."""
        return cost_with(C, self.map, z)


def _rows_of(A: Any) -> int:
    """n, from the first matrix or the width of stacked rows."""
    shape = getattr(A, "shape", None) or np.shape(A[0])
    return int(round(np.sqrt(shape[-1]))) if hasattr(A, "shape") and len(shape) == 2 else int(shape[-1])
