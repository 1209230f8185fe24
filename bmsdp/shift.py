r"""Multipliers that bound the trace of every feasible X, searched once where no row does (floor L1).

``A*(w) + A_geq*(w_geq) >= I`` with ``w_geq <= 0`` gives ``tr X <= <b, w> + <b_geq, w_geq>``.  The search may fail or err:
`bmsdp.verified.lower_bound` proves what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from .constraints import Constraints, Traces
from .linear_maps import MatrixMap
from .operators import SparseOperator

EIGEN_LIMIT = 1500  # rows of a block up to which its eigenvalues are computed
ROUNDS_LIMIT = 700  # and up to which that is done many times
CHOLESKY_LIMIT = 2500  # multipliers up to which the normal equations are factored
CUTS_LIMIT = 150  # rows of a block, and multipliers, up to which linear programs look for a smaller <b, w> than the first one
BOX = 1e4  # how much larger than the least-squares multipliers those of cutting planes may be
MARGIN = 1e-6  # what w is scaled up by, so that rounding does not spoil A*(w) >= I


def trace_shift(
    A: Any, b: Any, A_geq: Any = None, b_geq: Any = None, n: int | None = None, blocks: Any = None, rounds: int = 60
) -> tuple[np.ndarray, np.ndarray] | None:
    """``(w, w_geq)`` with ``A*(w) + A_geq*(w_geq) >= I`` on semidefinite blocks and nonnegative variables, and 0 on free ones.

    Tried in this order: diagonal rows of one sign; the least-squares multipliers of I, of equalities alone and then of all rows;
    projections between ``{M >= I}`` and the range; cutting planes, which also look for a smaller <b, w> in small programs.  None where
    none of these gives a definite matrix.  ``<b, w> + <b_geq, w_geq> < 0`` shows that no X is feasible.

    Parameters
    ----------
    A, b, A_geq, b_geq, blocks
        As for `bmsdp.solve`; A = None or no rows are allowed where the others are given.
    n : int, optional
        Rows of X, where neither A nor A_geq is a `LinearMap` or a sequence of matrices, which say so.
    rounds : int
        Cutting planes, at most, after a third as many projections; each takes the eigenvalues of every block.
    """
    n = _size(A, A_geq) if n is None else n
    rows = Constraints(SparseOperator(sp.csr_array((n, n))), A, b, A_geq, b_geq, blocks if blocks is not None else [n], True)
    bounded = ~rows.is_free
    w = Traces(rows.map, rows.b, rows.geq, rows.is_free).cover(np.where(bounded, 1 + MARGIN, 0.0))
    if w is None:
        search = _Search(rows)
        w = search.run(rounds) if search.possible else None
    return None if w is None else (w[: rows.m], w[rows.m :])


def _size(*maps: Any) -> int:
    for A in maps:
        if hasattr(A, "n"):
            return int(A.n)
        if isinstance(A, list | tuple) and len(A):
            return int(A[0].shape[0])
    raise ValueError("n is not given, and no A is a sequence of n x n matrices; pass n, the rows of X")


class _Search:
    """``min |A*(w) - T|`` over the places that rows see, and the smallest eigenvalue of what comes out."""

    def __init__(self, rows: Constraints):
        from scipy.sparse.csgraph import connected_components

        A: MatrixMap = rows.map
        self.rows, self.A, self.bounded = rows, A, np.flatnonzero(~rows.is_free)
        upper = (A.i <= A.j) & (A.rows.data != 0)
        key, place = np.unique(A.i[upper] * A.n + A.j[upper], return_inverse=True)
        self.i, self.j = np.divmod(key, A.n)
        self.weight = np.where(self.i == self.j, 1.0, np.sqrt(2.0))
        where = (place, A.row_of[upper])
        data = self.weight[place] * A.rows.data[upper]
        parts = [data.real, data.imag] if np.iscomplexobj(data) else [data]
        self.K = sp.csr_array(sp.vstack([sp.csr_array((part, where), shape=(len(key), A.m)) for part in parts], format="csr"))
        seen = np.zeros(A.n, bool)
        seen[self.i[self.i == self.j]] = True
        self.possible = bool(seen[self.bounded].all() and len(self.bounded))
        pattern = sp.coo_array((np.ones(len(key)), (self.i, self.j)), shape=(A.n, A.n))
        count, part = connected_components(pattern, directed=False)
        order = np.argsort(part, kind="stable")
        blocks = np.split(order, np.cumsum(np.bincount(part, minlength=count))[:-1])
        self.blocks = [block for block in blocks if not rows.is_free[block[0]]]

    def run(self, rounds: int) -> np.ndarray | None:
        """w, scaled; None where none was found."""
        identity = np.zeros(len(self.i))
        identity[(self.i == self.j) & ~self.rows.is_free[self.i]] = 1
        equal, largest = ~self.rows.geq, max(map(len, self.blocks))
        for columns in (equal, np.ones(len(equal), bool)) if self.rows.geq.any() else (equal,):
            if not columns.any():
                continue
            solve = self._solver(columns)
            w = self._clipped(solve(self._stacked(identity)))
            found = self._scaled(w)
            if found is None and largest <= ROUNDS_LIMIT:
                found = self._projected(w, solve, rounds // 3)
            if found is None and largest <= ROUNDS_LIMIT or found is not None and largest <= CUTS_LIMIT and columns.sum() <= CUTS_LIMIT:
                found = self._cut(w if found is None else found, found, columns, rounds)
            if found is not None:
                return found
        return None

    def _projected(self, w: np.ndarray, solve: Callable[[np.ndarray], np.ndarray], rounds: int) -> np.ndarray | None:
        """Over-relaxed projections from the nearest ``M >= I`` back to the range, until one is definite."""
        for _ in range(rounds):
            M = self.A.matrix(w).tocsr()
            least, move = self._raised(M)
            if least > 1e-8 * max(1.0, float(np.abs(M.data).max(initial=0.0))):
                return self._scaled(w)
            step = solve(self._stacked(move))
            if not np.linalg.norm(step) > 1e-12 * np.linalg.norm(w):
                return None
            w = self._clipped(w + 1.8 * step)
        return self._scaled(w)

    def _cut(self, w: np.ndarray, best: np.ndarray | None, columns: np.ndarray, rounds: int) -> np.ndarray | None:
        """Cutting planes: the least <b, w> with ``v* A*(w) v >= 1`` for the eigenvectors v of all matrices before, in a box.

        Until the best one so far is within a factor of 1.5 of what the linear programs show to be the least.
        """
        from scipy.optimize import linprog

        A, rows, m = self.A, self.rows, int(columns.sum())
        entries = np.sqrt(np.bincount(A.row_of, np.abs(A.rows.data) ** 2, A.m))[columns]
        scale = np.where(entries > 0, 1 / np.where(entries > 0, entries, 1.0), 0.0)
        side = BOX * max(1.0, float(np.abs(w[columns] * entries).max(initial=0.0)))
        above = np.where(rows.geq[columns], 0.0, side)
        diagonal = (A.i == A.j) & rows.is_free[A.i]
        fixed = sp.csr_array((A.rows.data.real[diagonal], (A.i[diagonal], A.row_of[diagonal])), shape=(A.n, A.m))[rows.free][:, columns]
        fixed = sp.csr_array(fixed @ sp.diags_array(scale)) if len(rows.free) else None
        cuts = [self._quotients(v)[columns] * scale for v in [*np.eye(A.n)[self.bounded], *self._low(w)]]
        for _ in range(rounds):
            answer = linprog(
                rows.b[columns] * scale + 1e-9 * np.abs(rows.b[columns] * scale).max(initial=1e-300),
                A_ub=-np.array(cuts), b_ub=-np.ones(len(cuts)), A_eq=fixed, b_eq=None if fixed is None else np.zeros(len(rows.free)),
                bounds=np.stack([np.full(m, -side), above], axis=1), method="highs",
            )  # fmt: skip
            if answer.status != 0:
                return best
            w = np.zeros(A.m)
            w[columns] = scale * answer.x
            found = self._scaled(self._clipped(w))
            if best is None or found is not None and rows.b @ found < rows.b @ best:
                best = found
            cuts += [self._quotients(v)[columns] * scale for v in self._low(w)]
            if best is not None and float(rows.b @ best) <= max(1.5 * float(rows.b @ w), 0.0):
                return best
        return best

    def _quotients(self, v: np.ndarray) -> np.ndarray:
        """``v* A_j v``."""
        return self.A.apply(v[:, None], v[:, None])

    def _low(self, w: np.ndarray) -> list[np.ndarray]:
        """Eigenvectors of A*(w) to the smallest eigenvalues of each block, those below 1."""
        out, M = [], self.A.matrix(w).tocsr()
        for block in self.blocks:
            values, Q = np.linalg.eigh(M[block][:, block].toarray())
            for k in range(min(5, int((values < 1).sum()))):
                v = np.zeros(self.A.n, Q.dtype)
                v[block] = Q[:, k]
                out.append(v)
        return out

    def _raised(self, M: sp.csr_array) -> tuple[float, np.ndarray]:
        """The smallest eigenvalue of M, and at the places of K what is missing to ``M >= I``."""
        least, move = np.inf, np.zeros(len(self.i), M.dtype)
        inside = np.full(self.A.n, -1)
        for block in self.blocks:
            inside[block] = np.arange(len(block))
            values, Q = np.linalg.eigh(M[block][:, block].toarray())
            least = min(least, float(values[0]))
            low = values < 1
            lift = (Q[:, low] * (1 - values[low])) @ Q[:, low].conj().T
            at = inside[self.i] >= 0
            move[at] = lift[inside[self.i[at]], inside[self.j[at]]]
            inside[block] = -1
        diagonal = M.diagonal().real
        free = self.rows.is_free[self.i]
        move[free] = -diagonal[self.i[free]]
        return least, move

    def _stacked(self, T: np.ndarray) -> np.ndarray:
        """The right-hand side of least squares for a matrix with these upper entries."""
        T = self.weight * T
        return np.concatenate([T.real, T.imag]) if self.K.shape[0] > len(self.i) else T.real

    def _solver(self, columns: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Least squares over some of the rows of A, free variables held by a large weight."""
        heavy = np.where(np.tile(self.rows.is_free[self.i], self.K.shape[0] // len(self.i)), 1e4, 1.0)
        K, out = sp.csr_array(sp.diags_array(heavy) @ self.K[:, columns]), np.zeros(len(columns))
        size = np.sqrt(np.asarray(K.multiply(K).sum(axis=0)).ravel())
        scale = 1 / np.where(size > 0, size, 1.0)
        K = sp.csr_array(K @ sp.diags_array(scale))
        if K.shape[1] <= CHOLESKY_LIMIT:
            from scipy.linalg import cho_factor, cho_solve

            G = (K.T @ K).toarray()
            factor = cho_factor(G + 1e-11 * np.eye(len(G)))

            def inner(T: np.ndarray) -> np.ndarray:
                x = cho_solve(factor, K.T @ T)
                return np.asarray(x + cho_solve(factor, K.T @ (T - K @ x)))
        else:
            from scipy.sparse.linalg import lsqr

            def inner(T: np.ndarray) -> np.ndarray:
                return np.asarray(lsqr(K, T, atol=1e-10, btol=1e-10, iter_lim=500)[0])

        def solve(T: np.ndarray) -> np.ndarray:
            w = out.copy()
            w[columns] = scale * inner(heavy * T)
            return w

        return solve

    def _clipped(self, w: np.ndarray) -> np.ndarray:
        """Multipliers of inequalities at most 0, and free variables left alone."""
        w = np.where(self.rows.geq, np.minimum(w, 0.0), w)
        return self.rows.free_repaired(w)

    def _scaled(self, w: np.ndarray) -> np.ndarray | None:
        """W with ``A*(w) >= I``, or None."""
        M = self.A.matrix(w).tocsr()
        least = min((self._smallest(M[block][:, block]) for block in self.blocks), default=0.0)
        size = float(np.abs(M.data).max(initial=0.0))
        if not least > 1e-9 * size:
            return None
        w = w / (least * (1 - MARGIN) - 1e-14 * size)
        return w if np.isfinite(w).all() else None

    @staticmethod
    def _smallest(M: sp.csr_array) -> float:
        if M.shape[0] == 1:
            return float(M.diagonal().real[0])
        if M.shape[0] <= EIGEN_LIMIT:
            return float(np.linalg.eigvalsh(M.toarray())[0])
        from scipy.sparse.linalg import ArpackError, eigsh

        try:
            return float(eigsh(M, 1, which="SA", tol=1e-4, v0=np.ones(M.shape[0]), return_eigenvectors=False)[0])
        except ArpackError:
            return 0.0
