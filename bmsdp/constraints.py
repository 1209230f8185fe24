"""The caller's rows as one map, and what they say of the size of X (floor L1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from .cone import as_cone, check_blocks
from .facial import two_product
from .factorization import UNIT
from .linear_maps import LinearMap, MatrixMap, as_linear_map, as_matrix_map
from .operators import DenseOperator, LowRankPlusSparse, Operator, SparseOperator

EXPANDED = 4000  # rows up to which a low-rank cost is expanded to see whether it keeps to the blocks


class Constraints:
    """``A(X) = b`` and ``A_geq(X) >= b_geq``, one below the other.

    Attributes
    ----------
    C : Operator
    map : MatrixMap, or a manifold
    b : ndarray, (m + m_geq,)
    m : int
        How many rows are equalities.
    geq : ndarray of bool, (m + m_geq,)
    free : ndarray of int
        Rows of X that are free variables.
    """

    def __init__(self, C: Operator, A: Any, b: Any, A_geq: Any, b_geq: Any, blocks: Any, rows: bool = False):
        """``rows``: the matrices of a manifold are wanted."""
        n, cone = C.n, as_cone(blocks, C.n)
        equal, b = _equalities(n, A, b, default=A_geq is None and blocks is None)
        above, b_geq = _inequalities(n, A_geq, b_geq)
        if not isinstance(equal, MatrixMap) and (rows or above.m or blocks is not None):
            equal = as_matrix_map(equal)
        self.m, self.free = equal.m, cone.free
        self.map: Any = MatrixMap.stack([equal, above]) if above.m and isinstance(equal, MatrixMap) else equal
        self.b, self.geq = np.concatenate([b, b_geq]), np.arange(equal.m + above.m) >= equal.m
        self.C = _within(C) if len(np.unique(cone.part)) > 1 else C
        check_blocks(self.C, equal, above, cone)
        self.own_shift = getattr(equal, "w", None)
        self.is_free = np.zeros(n, bool)
        self.is_free[self.free] = True

    def multipliers(self, dual: Any, dual_geq: Any) -> np.ndarray:
        """One vector for all rows; those of inequalities are clipped at 0."""
        k = len(self.b) - self.m
        y = np.zeros(self.m) if dual is None else real(dual, "dual", self.m)
        z = np.zeros(k) if dual_geq is None else real(dual_geq, "dual_geq", k, "A_geq")
        return np.concatenate([y, np.maximum(z, 0.0)])

    def shift(self, given: Any) -> np.ndarray | None:
        """The caller's (w, w_geq) as one vector, that of inequalities clipped at 0 from above; a manifold may know one itself."""
        k = len(self.b) - self.m
        if given is None:
            return None if self.own_shift is None else np.concatenate([self.own_shift, np.zeros(k)])
        w, w_geq = given if isinstance(given, tuple | list) and len(given) == 2 and np.ndim(given[0]) == 1 else (given, None)
        w = real(w, "shift", self.m)
        return np.concatenate([w, np.minimum(np.zeros(k) if w_geq is None else real(w_geq, "w_geq", k, "A_geq"), 0.0)])

    def free_residual(self, y: np.ndarray, cost: bool = True) -> np.ndarray:
        """``|C_ff - (A*(y))_ff|`` of the free variables, rounded up, 0 where it is exactly 0; ``cost=False``: without C."""
        out, c = np.zeros(len(self.free)), self.C.diagonal() if cost else np.zeros(self.C.n)
        if not len(self.free):
            return out
        assert c is not None and isinstance(self.map, MatrixMap)
        use = self.map.i == self.map.j
        use &= self.is_free[self.map.i]
        place = np.searchsorted(self.free, self.map.i[use])
        high, low = two_product(-y[self.map.row_of[use]], self.map.rows.data.real[use])
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(len(self.free) + 1))
        for f, (s, e) in enumerate(zip(ends, ends[1:], strict=False)):
            terms = np.concatenate([[c[self.free[f]]], high[order[s:e]], low[order[s:e]]])
            tiny = (high[order[s:e]] != 0) & (np.abs(high[order[s:e]]) < 1e-270)
            total = abs(math.fsum(terms)) if np.isfinite(terms).all() else math.inf
            out[f] = math.nextafter(total, math.inf) if total else 0.0
            out[f] += 1e-290 if tiny.any() else 0.0
        return out

    def free_repaired(self, y: np.ndarray) -> np.ndarray:
        """Multipliers near y with ``A*(y) = C`` on the free variables, up to rounding: least squares over the equalities."""
        c = self.C.diagonal()
        if not len(self.free) or not self.m or c is None:
            return y
        entries = (self.map.i == self.map.j) & self.is_free[self.map.i] & (self.map.row_of < self.m)
        places = (np.searchsorted(self.free, self.map.i[entries]), self.map.row_of[entries])
        T = sp.csr_array((self.map.rows.data.real[entries], places), shape=(len(self.free), self.m))
        for _ in range(3):
            size = self.free_residual(y)
            if not size.any():
                break
            other = y.copy()
            other[: self.m] += _least_squares(T, c[self.free] - self._free_part(y))
            if not self.free_residual(other).sum() < size.sum():
                break
            y = other
        return y

    def _free_part(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(self.map.matrix(y).diagonal().real[self.free])

    def free_bounds(self, size: np.ndarray, given: float | None) -> np.ndarray:
        """R with ``|x_f| <= R_f``, from ``X_ii <= size_i`` and equalities that see one free variable whose size is not known.

        ``a x_f = b_j - <A_j, X> - sum of the others``, and ``|X_ik| <= sqrt(X_ii X_kk)``.
        """
        R = np.full(len(self.free), math.inf if given is None else given)
        if not len(self.free) or given is not None:
            return R
        A, m = self.map, self.m
        with np.errstate(invalid="ignore"):
            root = np.sqrt(np.where(self.is_free, 0.0, size))
            terms = np.where(A.rows.data == 0, 0.0, np.abs(A.rows.data) * root[A.i] * root[A.j])
        inside = np.abs(self.b) + np.bincount(A.row_of, np.where(np.isnan(terms), np.inf, terms), A.m)
        entries = np.flatnonzero((A.i == A.j) & self.is_free[A.i] & (A.rows.data != 0) & (A.row_of < m))
        row, f, a = A.row_of[entries], np.searchsorted(self.free, A.i[entries]), np.abs(A.rows.data[entries])
        for _ in range(20):
            unknown = np.bincount(row, ~np.isfinite(R[f]), A.m)
            others = inside + np.bincount(row, a * np.where(np.isfinite(R[f]), R[f], 0.0), A.m)
            use = (unknown[row] == 1) & ~np.isfinite(R[f]) & np.isfinite(others[row])
            if not use.any():
                break
            np.minimum.at(R, f[use], others[row[use]] / a[use] * (1 + 1e-8))
        return R


class Traces:
    """``X_ii <= r_i`` as the caller's own rows state it, and multipliers ``A*(w) >= diag(e)``.

    A row of A with a nonnegative diagonal alone, ``sum_i a_i X_ii = b``, bounds every X_ii it sees by ``b / a_i``; so does an
    inequality ``-sum_i a_i X_ii >= -b``, whose multiplier w is at most 0.
    """

    def __init__(self, A: MatrixMap, b: np.ndarray, geq: np.ndarray | None = None, skip: np.ndarray | None = None):
        """``geq``: which rows are inequalities; ``skip``: rows of X that must not be seen."""
        self.m, n = A.m, A.n
        geq = np.zeros(A.m, bool) if geq is None else geq
        bad = (A.i != A.j) & (A.rows.data != 0)
        if skip is not None:
            bad |= skip[A.i] & (A.rows.data != 0)
        diagonal = np.bincount(A.row_of, bad, A.m) == 0
        value, sign = A.rows.data.real, np.where(geq | (b < 0), -1.0, 1.0)
        negative = (np.bincount(A.row_of, value * sign[A.row_of] < 0, A.m) > 0) | geq & (b > 0)
        use = (diagonal & ~negative)[A.row_of] & (value != 0)
        row, i, a = A.row_of[use], A.i[use], np.abs(value[use])
        r = np.abs(b[row]) / a
        least = np.full(n, np.inf)
        np.minimum.at(least, i, r)
        near = np.flatnonzero(r <= least[i] * (1 + 1e-9))  # of rows that say the same the first one counts
        first = near[np.unique(i[near], return_index=True)[1]]
        self.row_trace, self.row, self.a, self.sign = np.full(n, np.inf), np.full(n, -1), np.ones(n), sign
        self.row_trace[i[first]], self.row[i[first]], self.a[i[first]] = r[first], row[first], a[first]

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        """w with ``A*(w) >= diag(e)``; None where a row with e > 0 has no bound."""
        w, seen = np.zeros(self.m), self.row >= 0
        if (e[~seen] > 0).any():
            return None
        np.maximum.at(w, self.row[seen], e[seen] / self.a[seen] * (1 + 4 * UNIT))
        return w * self.sign


def real(values: Any, name: str, m: int, rows: str = "A") -> np.ndarray:
    """``values`` as m finite floats."""
    values = np.asarray(values)
    if values.dtype.kind == "c" or values.shape != (m,) or not np.isfinite(values.astype(float)).all():
        raise ValueError(f"{name} has shape {values.shape} and must hold {m} finite numbers, real and one per row of {rows}")
    return values.astype(float)


def _equalities(n: int, A: Any, b: Any, default: bool) -> tuple[Any, np.ndarray]:
    """The caller's A as a map, and b."""
    if A is None and default:
        if b is not None and np.shape(b) != (n,):
            raise ValueError(f"b has shape {np.shape(b)} but without A it is the diagonal of X; it must have shape ({n},)")
        rows = sp.csr_array((np.ones(n), np.arange(n, dtype=np.int64) * (n + 1), np.arange(n + 1)), shape=(n, n * n))
        return MatrixMap(rows, n), np.ones(n) if b is None else real(b, "b", n)
    if A is None or not default and _is_empty(A):
        return _no_rows(n), real([] if b is None else b, "b", 0)
    A = as_linear_map(A, n)
    if not isinstance(A, MatrixMap) and not hasattr(A, "cover"):
        raise ValueError(f"A is a {type(A).__name__} that shows no rows; pass its matrices, or a manifold")
    if b is None and not hasattr(A, "b"):
        raise ValueError(f"A has {A.m} rows but b was not given; pass the {A.m} right-hand sides")
    return A, real(getattr(A, "b", None) if b is None else b, "b", A.m)


def _inequalities(n: int, A: Any, b: Any) -> tuple[MatrixMap, np.ndarray]:
    if A is None or _is_empty(A):
        return _no_rows(n), real([] if b is None else b, "b_geq", 0, "A_geq")
    A = as_linear_map(A, n)
    if not isinstance(A, MatrixMap):
        raise ValueError(f"A_geq is a {type(A).__name__} that shows no rows; pass its matrices")
    if b is None:
        raise ValueError(f"A_geq has {A.m} rows but b_geq was not given; pass the {A.m} right-hand sides")
    return A, real(b, "b_geq", A.m, "A_geq")


def _is_empty(A: Any) -> bool:
    if isinstance(A, LinearMap):
        return A.m == 0
    return (A.shape[0] if hasattr(A, "shape") else len(A)) == 0


def _no_rows(n: int) -> MatrixMap:
    return MatrixMap(sp.csr_array((0, n * n)), n)


def _within(C: Operator) -> Operator:
    """C in a form that shows which entries are 0: there is more than one block."""
    if isinstance(C, LowRankPlusSparse):
        base = C.A.matrix()
        if base is None or C.n > EXPANDED:
            raise ValueError(f"C is low rank + sparse with {C.n} rows and several blocks; pass it as a sparse block-diagonal array")
        full = (C.U * C.d) @ C.U.conj().T
        full = (full + full.conj().T) / 2 + (base.toarray() if sp.issparse(base) else base)
        return _Expanded(C, full)
    M = C.matrix()
    if isinstance(M, np.ndarray) and np.count_nonzero(M) < 0.3 * M.size:
        return SparseOperator(sp.csr_array(M), C.rounding)
    return C


class _Expanded(DenseOperator):
    """A low-rank cost in full: `abs_mul`, by which errors are bounded, stays that of its factors."""

    def __init__(self, C: LowRankPlusSparse, full: np.ndarray):
        super().__init__(full, C.rounding + (3 if C.is_complex else 1) * (C.U.shape[1] + 5))
        self.factors = C

    def abs_mul(self, v: np.ndarray) -> np.ndarray:
        reach = self.factors.abs_mul(v)
        assert reach is not None
        return reach


def _least_squares(T: sp.csr_array, residual: np.ndarray) -> np.ndarray:
    """The shortest x with ``|T x - residual|`` least."""
    if T.shape[0] * T.shape[1] <= 2_000_000:
        return np.asarray(np.linalg.lstsq(T.toarray(), residual, rcond=None)[0])
    from scipy.sparse.linalg import lsqr

    return np.asarray(lsqr(T, residual, atol=1e-15, btol=1e-15, iter_lim=2000)[0])
