"""Families of inequalities too large to write down, added as they are violated (floor L6).

A family proposes rows that a point violates; `cutting` solves, asks, adds, and solves again from where it was.  Every round is a
relaxation of the whole: its bound holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .linear_maps import MatrixMap, entries
from .result import Result, Status

ROUNDS = 50
BLOCK = 1024  # rows of X formed at a time
IDLE = 3  # rounds without a multiplier after which a row is dropped, where many are there


class Cuts:
    """A family of inequalities ``<A_j, X> >= b_j``."""

    def violated(self, Y: np.ndarray, tol: float, limit: int) -> tuple[np.ndarray, MatrixMap, np.ndarray]:
        """``(violations, rows, b)`` of at most ``limit`` rows that ``X = YY*`` violates by more than tol, among them the worst."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Nonnegative(Cuts):
    """``Re X_ij >= 0``, on a pattern or everywhere.

    Parameters
    ----------
    pattern : sparse array or ndarray, n x n, optional
        Its nonzeros off the diagonal are the places; all by default.
    """

    pattern: Any = None

    def violated(self, Y: np.ndarray, tol: float, limit: int) -> tuple[np.ndarray, MatrixMap, np.ndarray]:
        n = len(Y)
        i, j, values = self._below(Y, -tol)
        worst = np.argsort(values, kind="stable")[:limit]
        return -values[worst], entries(n, i[worst], j[worst]), np.zeros(len(worst))

    def _below(self, Y: np.ndarray, bar: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = len(Y)
        if self.pattern is not None:
            P = sp.coo_array(self.pattern)
            if P.shape != (n, n):
                raise ValueError(f"the pattern has shape {P.shape} but X is {n} x {n}; they must agree")
            pair = np.unique(np.minimum(P.row, P.col).astype(np.int64) * n + np.maximum(P.row, P.col))
            i, j = np.divmod(pair, n)
            i, j = i[i != j], j[i != j]
            values = np.einsum("pk,pk->p", Y[i], Y[j].conj()).real
            low = values < bar
            return i[low], j[low], values[low]
        found = []
        for s in range(0, n, BLOCK):
            X = (Y[s : s + BLOCK] @ Y.conj().T).real
            i, j = np.nonzero(X < bar)
            keep = i + s < j
            found.append((i[keep] + s, j[keep], X[i[keep], j[keep]]))
        i, j, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return i, j, values


@dataclass(frozen=True, eq=False)
class Triangles(Cuts):
    """The triangle inequalities of the cut polytope, for X with unit diagonal.

    ``X_ij + X_ik + X_jk >= -1`` and ``X_ij - X_ik - X_jk >= -1``, for all triples and permutations: every cut x x^T satisfies them.
    Cost of a round: n^3 / 6 steps and the n x n array X.
    """

    def violated(self, Y: np.ndarray, tol: float, limit: int) -> tuple[np.ndarray, MatrixMap, np.ndarray]:
        from .kernels.triangles import violated_triangles

        n = len(Y)
        if np.iscomplexobj(Y):
            raise ValueError("triangle inequalities are about real cuts and X is complex; pass real C and A")
        worst, place = np.zeros(limit), np.zeros((limit, 4), np.int64)
        kept = violated_triangles(np.ascontiguousarray(Y @ Y.T), tol, worst, place)
        order = np.argsort(worst[:kept], kind="stable")
        worst, (i, j, k, s) = worst[:kept][order], place[:kept][order].T
        sign = np.where(np.stack([s < 2, (s == 0) | (s == 2), (s == 0) | (s == 3)]), 0.5, -0.5)
        pairs = ((i, j), (i, k), (j, k))
        row = np.tile(np.arange(kept), 6)
        where = np.concatenate([a * n + c for a, c in pairs] + [c * n + a for a, c in pairs])
        stacked = sp.csr_array((np.tile(sign.ravel(), 2), (row, where)), shape=(kept, n * n))
        return -1 - worst, MatrixMap(stacked, n), np.full(kept, -1.0)


def cutting(
    solve_with: Callable[[MatrixMap | None, np.ndarray | None, Result | None, float | None], Result], family: Cuts,
    options: dict[str, Any], report: Callable[..., None],
) -> Result:  # fmt: skip
    """Rounds of ``solve_with(rows, b, last result, seconds left)`` until nothing is violated by more than ``tol max X_ii``."""
    start, tol, limit = time.perf_counter(), options["tol"], options["max_time"]
    rows, b, idle = None, np.zeros(0), np.zeros(0, int)
    result: Result | None = None
    for turn in range(ROUNDS):
        left = None if limit is None else max(limit - (time.perf_counter() - start), 1e-3)
        result = solve_with(rows, b if rows is not None else None, result, left)
        if not result.success:
            return result
        size = float(np.max(np.einsum("ik,ik->i", result.Y, result.Y.conj()).real))
        violation, new, b_new = family.violated(result.Y, tol * size, max(2 * len(result.Y), 100))
        worst = float(violation.max(initial=0.0)) / size
        report(f"bmsdp: cuts: round {turn}, {0 if rows is None else rows.m} rows, worst violation {worst:.1e}, bound {result.bound:.10g}")
        if not new.m:
            return dataclasses.replace(result, options=result.options | {"cuts": 0 if rows is None else rows.m, "rounds": turn + 1})
        if rows is None:
            rows, b, idle = new, b_new, np.zeros(new.m, int)
            continue
        idle = np.where(result.dual_geq > 0, 0, idle + 1)
        keep = np.flatnonzero(idle < IDLE)
        known = {_key(rows, r) for r in map(int, keep)}
        fresh = np.array([r for r in range(new.m) if _key(new, r) not in known], int)
        if not len(fresh):  # what is violated is there already: the limit of the solver's accuracy
            return dataclasses.replace(result, options=result.options | {"cuts": rows.m, "rounds": turn + 1, "violation": worst})
        dual_geq = np.concatenate([result.dual_geq[keep], np.zeros(len(fresh))])
        rows, b = MatrixMap.stack([rows.take(keep), new.take(fresh)]), np.concatenate([b[keep], b_new[fresh]])
        idle, result = np.concatenate([idle[keep], np.zeros(len(fresh), int)]), dataclasses.replace(result, dual_geq=dual_geq)
    assert result is not None
    message = f"{ROUNDS} rounds of cuts, and some are still violated; the bound holds, the point is not feasible for all of them"
    return dataclasses.replace(result, status=Status.MAX_ITER, message=message)


def _key(A: MatrixMap, r: int) -> tuple[bytes, bytes]:
    s = slice(A.rows.indptr[r], A.rows.indptr[r + 1])
    order = np.argsort(A.rows.indices[s])
    return A.rows.indices[s][order].astype(np.int64).tobytes(), A.rows.data[s][order].tobytes()
