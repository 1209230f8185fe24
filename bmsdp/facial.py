r"""Rows that hold every feasible X on a face of the cone, and the change of variables ``Y = V Z`` to it (floor L1).

A row ``<+- u u*, X> = 0`` forces ``X u = 0``, and ``sum_i a_i X_ii = 0`` with ``a_i > 0`` forces ``X_ii = 0``: no feasible X is
definite, such rows have no attained multiplier, and no manifold.  With ``Y = V Z``, V a basis of what is left, both are gone:

    u* Y = 0   <=>   Y_p = - sum_{i != p} conj(u_i / u_p) Y_i,   p = argmax |u_i|.

One row of Y is written in terms of the others, so that constraints that do not see row p stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .linear_maps import MatrixMap
from .operators import DenseOperator, LowRankPlusSparse, Operator, SparseOperator

TOLERANCE = 16 * 2.0**-53  # relative, per entry: what rounding u_i conj(u_j) can cost
SPLIT = 2.0**27 + 1  # Veltkamp's constant


class RankOne(NamedTuple):
    """``A_row = u u* / divisor`` with ``u[support] = values``: the column of A_row through its largest diagonal entry, the divisor.

    ``exact``: the entries as given are this in exact arithmetic; else up to rounding.
    """

    row: int
    divisor: float
    support: np.ndarray
    values: np.ndarray
    exact: bool


class OneSign(NamedTuple):
    """``A_row`` is diagonal, and ``a = A_row[support, support]`` has one sign and no zeros."""

    row: int
    support: np.ndarray
    a: np.ndarray


def zero_rows(A: MatrixMap, among: np.ndarray | None = None) -> list[OneSign]:
    """The rows of A (``among`` those given) that are diagonal with entries of one sign; with ``b_j = 0`` they state ``X_ii = 0``."""
    ask, a = _asked(A, among), A.rows.data.real
    off = np.bincount(A.row_of, (A.i != A.j) & (A.rows.data != 0), A.m) > 0
    signs = [np.bincount(A.row_of, sign * a > 0, A.m) > 0 for sign in (1, -1)]
    out = []
    for row in np.flatnonzero(ask & ~off & (signs[0] != signs[1])):
        entries = slice(A.rows.indptr[row], A.rows.indptr[row + 1])
        use = a[entries] != 0
        out.append(OneSign(int(row), A.i[entries][use], a[entries][use]))
    return out


def rank_one(A: MatrixMap, among: np.ndarray | None = None) -> list[RankOne]:
    """The rows of A (``among`` those given) that are ``+- u u*`` with at least two entries in u.

    Cost: a few passes over the entries of those rows whose number of entries is a square.
    """
    size = np.diff(A.rows.indptr)
    side = np.rint(np.sqrt(size)).astype(np.int64)
    rows = np.flatnonzero(_asked(A, among) & (side * side == size) & (side > 1))
    out: list[RankOne] = []
    for s in np.unique(side[rows]):
        group = rows[side[rows] == s]
        chunk = max(1, int(2e7 // s**2))
        for start in range(0, len(group), chunk):
            out += _rank_one_of_side(A, group[start : start + chunk], int(s))
    return sorted(out)


def _asked(A: MatrixMap, among: np.ndarray | None) -> np.ndarray:
    ask = np.ones(A.m, bool)
    if among is not None:
        ask[:] = False
        ask[among] = True
    return ask


def _rank_one_of_side(A: MatrixMap, rows: np.ndarray, s: int) -> list[RankOne]:
    """Of rows with s^2 entries, those that are one s x s block of rank one."""
    place = (A.rows.indptr[rows].astype(np.int64)[:, None] + np.arange(s * s)).ravel()
    key = A.rows.indices[place].astype(np.int64).reshape(-1, s * s)
    order = np.argsort(key, axis=1, kind="stable") if (np.diff(key, axis=1) < 0).any() else None
    M = A.rows.data[place].reshape(-1, s * s)
    if order is not None:
        key, M = np.take_along_axis(key, order, 1), np.take_along_axis(M, order, 1)
    i, j = np.divmod(key, A.n)
    support = j[:, :s]
    complete = (i.reshape(-1, s, s) == support[:, :, None]).all((1, 2)) & (j.reshape(-1, s, s) == support[:, None, :]).all((1, 2))
    M, rows, support = M.reshape(-1, s, s)[complete], rows[complete], support[complete]
    d = np.einsum("kii->ki", M).real
    good = (d > 0).all(1) | (d < 0).all(1)
    M, rows, support, d = M[good], rows[good], support[good], d[good]
    if not len(rows):
        return []
    p, one = np.argmax(np.abs(d), axis=1), np.arange(len(rows))
    divisor, u, line = d[one, p], M[one, :, p], M[one, p, :]
    near = np.array([_is_product(*each) for each in zip(M, u, divisor, strict=True)])
    exact = near & (line == u.conj()).all(1)
    for k in np.flatnonzero(exact):
        exact[k] = _same_products(M[k], float(divisor[k]), u[k])
    return [RankOne(int(rows[k]), float(divisor[k]), support[k], u[k], bool(exact[k])) for k in np.flatnonzero(near)]


def _is_product(M: np.ndarray, u: np.ndarray, divisor: float) -> bool:
    """Whether ``M = u u* / divisor`` up to rounding."""
    product = u[:, None] * (u.conj() / divisor)
    return bool((np.abs(M - product) <= TOLERANCE * np.abs(product)).all())


def _same_products(M: np.ndarray, divisor: float, u: np.ndarray) -> bool:
    """Whether ``M divisor = u u*`` in exact arithmetic; False where that cannot be told."""
    if (np.rint(M.view(float)) == M.view(float)).all() and np.abs(M).max() < 2**25:  # then so are these products, exactly
        return bool((M * divisor == u[:, None] * u.conj()).all())
    parts = [(M.real, [(u.real, u.real, 1)])]
    if np.iscomplexobj(M):
        parts[0][1].append((u.imag, u.imag, 1))
        parts.append((M.imag, [(u.imag, u.real, 1), (u.real, u.imag, -1)]))
    for left, right in parts:
        terms = list(two_product(left, np.full_like(left, divisor)))
        for a, b, sign in right:
            terms += [-sign * t for t in two_product(np.repeat(a[:, None], len(b), 1), np.repeat(b[None], len(a), 0))]
        if not all(np.isfinite(t).all() for t in terms) or any(((t != 0) & (np.abs(t) < 1e-280)).any() for t in terms):
            return False
        for _ in range(2 * len(terms)):  # error-free sums, until nothing is left
            for q in range(1, len(terms)):
                terms[q], terms[q - 1] = two_sum(terms[q], terms[q - 1])
            if not any(t.any() for t in terms):
                break
        if any(t.any() for t in terms):
            return False
    return True


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(s, e)``: s = fl(a + b) and s + e = a + b exactly (Knuth)."""
    s = a + b
    c = s - a
    return s, (a - (s - c)) + (b - c)


def two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(p, e)``: p = fl(a b) and p + e = a b exactly, barring under- and overflow (Dekker)."""
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, a2 * b2 - (((p - a1 * b1) - a2 * b1) - a1 * b2)


def _split(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        c = SPLIT * a
        high = c - (c - a)
    return high, a - high


class Face:
    """``{Y : u_j* Y = 0, Y_i = 0 for i in zeros}`` as ``Y = V Z`` with free Z.

    Attributes
    ----------
    n : int
    kept, pivots, zeros : ndarray of int
        The rows of Y that are those of Z, those that follow, ``Y[pivots] = W @ Z``, and those that vanish; each ascending but ``pivots``.
    W : ndarray or CSR array, len(pivots) x len(kept)
    used : list of int
        Which u gave the pivots, in their order: the others depend on them.
    U : ndarray, len(pivots) x n
        Their conjugates, without the columns of ``zeros``.
    """

    def __init__(self, n: int, us: Sequence[Any] = (), zeros: Any = ()):
        """``us``: vectors (n,) or `RankOne`; ``zeros``: indices."""
        self.n, self.zeros = n, np.unique(np.asarray(zeros, np.int64))
        rows = [self._conjugate(u) for u in us]
        R, self.used, pivots = self._reduced(rows)
        self.pivots = np.array(pivots, np.int64)
        left = np.ones(n, bool)
        left[self.zeros] = left[self.pivots] = False
        self.kept = np.flatnonzero(left)
        self.U = np.array([rows[j] for j in self.used]).reshape(-1, n)
        W = -R[:, self.kept]
        if len(pivots):  # one step of refinement
            P = self.U[:, self.pivots]
            W = W - np.linalg.solve(P, P @ W + self.U[:, self.kept])
        self.W: Any = W if not len(pivots) or np.count_nonzero(W) > 0.2 * W.size else sp.csr_array(W)

    def _conjugate(self, u: Any) -> np.ndarray:
        if isinstance(u, RankOne):
            full = np.zeros(self.n, u.values.dtype)
            full[u.support] = u.values
        else:
            full = np.array(u)
        full[self.zeros] = 0
        return full.conj()

    def _reduced(self, rows: list[np.ndarray]) -> tuple[np.ndarray, list[int], list[int]]:
        """Gauss-Jordan elimination, the largest entry of each row its pivot."""
        dtype = np.result_type(float, *(row.dtype for row in rows))
        R, used, pivots = np.zeros((len(rows), self.n), dtype), [], []  # type: ignore[var-annotated]
        for j, row in enumerate(rows):
            r = len(used)
            x = row - row[pivots] @ R[:r]
            p = int(np.argmax(np.abs(x)))
            if not abs(x[p]) > 1e-10 * np.abs(row).max(initial=0.0):
                continue
            x = x / x[p]
            touched = np.flatnonzero(R[:r, p])
            R[touched] -= np.outer(R[touched, p], x)
            R[r], x[p] = x, 1
            used.append(j)
            pivots.append(p)
        return R[: len(used)], used, pivots

    @property
    def r(self) -> int:
        """How many rows of Y are gone."""
        return self.n - len(self.kept)

    @property
    def V(self) -> sp.csr_array:
        """The basis, n x (n - r)."""
        places = np.concatenate([self.kept, self.pivots, self.zeros])
        parts = [sp.eye_array(len(self.kept)), sp.csr_array(self.W), sp.csr_array((len(self.zeros), len(self.kept)))]
        return sp.csr_array(sp.vstack(parts, format="csr")[np.argsort(places)])

    def lift(self, Z: np.ndarray) -> np.ndarray:
        """``Y = V Z``."""
        Y = np.zeros((self.n, *Z.shape[1:]), np.result_type(Z, self.W))
        Y[self.kept] = Z
        Y[self.pivots] = self.W @ Z
        return Y

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        """``V* G``."""
        return np.asarray(G[self.kept] + self.W.conj().T @ G[self.pivots])

    def restrict(self, Y: np.ndarray) -> np.ndarray:
        """The Z of a Y on the face."""
        return np.ascontiguousarray(Y[self.kept])

    def cost(self, C: Operator) -> Operator:
        """``V* C V``: dense for dense C, sparse or low rank + sparse for sparse C, and an operator of products for any other."""
        if isinstance(C, LowRankPlusSparse):
            base, U, d = self.cost(C.A), self.adjoint(C.U), C.d
            if isinstance(base, LowRankPlusSparse):
                dtype = np.result_type(base.U, U)
                return LowRankPlusSparse(base.A, np.hstack([base.U.astype(dtype), U]), np.concatenate([base.d, d]))
            return LowRankPlusSparse(base, U, d) if base.matrix() is not None else _Reduced(C, self)
        M = C.matrix()
        if M is None:
            return _Reduced(C, self)
        if not sp.issparse(M):
            return DenseOperator(self.congruence(M), C.rounding)
        kept = sp.csr_array(M[self.kept][:, self.kept])
        if not len(self.pivots):
            return SparseOperator(kept, C.rounding)
        if sp.issparse(self.W):
            return SparseOperator(self.congruence(M), C.rounding)
        if 8 * len(self.pivots) > len(self.kept):
            return DenseOperator(self.congruence(M), C.rounding)
        F = self._half(M)
        a = math.sqrt(float(np.abs(F).max(initial=0.0)) / float(np.abs(self.W).max())) or 1.0
        left, right = a * self.W.conj().T, F.conj().T / a
        d = np.repeat([0.5, -0.5], len(self.pivots))
        return LowRankPlusSparse(SparseOperator(kept, C.rounding), np.hstack([left + right, left - right]), d)

    def _half(self, M: Any) -> np.ndarray:
        """F with ``V* M V = M[kept, kept] + W* F + F* W``."""
        cross, inner = M[self.pivots][:, self.kept], M[self.pivots][:, self.pivots]
        half = cross + inner @ self.W / 2
        return half.toarray() if sp.issparse(half) else np.asarray(half)

    def congruence(self, M: Any) -> Any:
        """``V* M V``, exactly Hermitian: sparse where M and W are, else dense."""
        if sp.issparse(M) and (sp.issparse(self.W) or not len(self.pivots)):
            return _hermitian(self.V.conj().T @ M @ self.V)
        kept = M[np.ix_(self.kept, self.kept)] if not sp.issparse(M) else M[self.kept][:, self.kept].toarray()
        if not len(self.pivots):
            return np.ascontiguousarray(kept)
        half = self.W.conj().T @ self._half(M)
        return np.ascontiguousarray(kept + (half + half.conj().T))

    def rows(self, A: MatrixMap) -> MatrixMap:
        """``V* A_j V``, row by row: those that see no pivot only lose their entries in ``zeros``."""
        place = np.full(self.n, -1)
        place[self.kept] = np.arange(len(self.kept))
        is_pivot = np.zeros(self.n, bool)
        is_pivot[self.pivots] = True
        touched = np.bincount(A.row_of, is_pivot[A.i] | is_pivot[A.j], A.m) > 0
        k = len(self.kept)
        use = (place[A.i] >= 0) & (place[A.j] >= 0) & ~touched[A.row_of]
        row, column, data = [A.row_of[use]], [place[A.i[use]] * k + place[A.j[use]]], [A.rows.data[use]]
        for j in np.flatnonzero(touched):
            entries = slice(A.rows.indptr[j], A.rows.indptr[j + 1])
            inner = sp.csr_array((A.rows.data[entries], (A.i[entries], A.j[entries])), shape=(self.n, self.n))
            M = sp.coo_array(self.congruence(inner))
            row.append(np.full(M.nnz, j))
            column.append(M.coords[0].astype(np.int64) * k + M.coords[1])
            data.append(M.data)
        stacked = np.concatenate(data), (np.concatenate(row), np.concatenate(column))
        out = MatrixMap(sp.coo_array(stacked, shape=(A.m, k * k)).tocsr(), k)
        out.rounding = A.rounding
        return out


class _Reduced(Operator):
    """``V* C V`` by products."""

    def __init__(self, C: Operator, face: Face):
        self.C, self.face, self.n = C, face, len(face.kept)
        self.dtype = np.result_type(C.dtype, face.W.dtype)

    def mul(self, Y: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.face.adjoint(self.C.mul(self.face.lift(Y))))


def _hermitian(M: Any) -> sp.csr_array:
    out = sp.csr_array((M + M.conj().T) / 2)
    out.sort_indices()
    return out
