"""``X -> A(X)`` through factors, and maps given by matrices (floor L1)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp


class LinearMap:
    """A real linear map ``A(X)_j = <A_j, X>`` on Hermitian n x n matrices, applied to factors.

    Attributes
    ----------
    n, m : int
        ``X`` is n x n; ``A(X)`` has m real entries.
    """

    n: int
    m: int

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        """``(Re <A_j Y, U>)_j``, so that ``A(YY*) = apply(Y, Y)``."""
        raise NotImplementedError

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        """``A*(mu) V`` with ``A*(mu) = sum_j mu_j A_j``."""
        raise NotImplementedError

    def matrix(self, mu: np.ndarray) -> Any:
        """``A*(mu)`` as a sparse array, or None."""
        return None


class MatrixMap(LinearMap):
    """The map whose m matrices are the rows of ``rows`` (m x n^2 CSR, row j = ``A_j.ravel()`` in C order).

    ``rounding``: the rows are Hermitian up to so many units of u (`as_linear_map` takes 1e-14 for rounding).
    """

    rounding = 0.0

    def __init__(self, rows: sp.csr_array, n: int):
        self.rows, self.n, self.m = rows, n, rows.shape[0]
        self.row_of = np.repeat(np.arange(self.m), np.diff(rows.indptr))
        self.i, self.j = np.divmod(rows.indices.astype(np.int64), n)

    @classmethod
    def stack(cls, maps: Sequence[MatrixMap]) -> MatrixMap:
        """The rows of all maps, one below the other."""
        if len(maps) == 1:
            return maps[0]
        out = cls(sp.csr_array(sp.vstack([A.rows for A in maps], format="csr")), maps[0].n)
        out.rounding = max(A.rounding for A in maps)
        return out

    def take(self, rows: Any) -> MatrixMap:
        """The map of some of the rows."""
        out = MatrixMap(self.rows[rows], self.n)
        out.rounding = self.rounding
        return out

    def places(self, place: np.ndarray, n: int, scale: np.ndarray | None = None) -> MatrixMap:
        """The same rows of an n x n X whose row ``place_i`` was row i; rows with ``place_i < 0`` are left out.  Entries times ``scale``."""
        use = (place[self.i] >= 0) & (place[self.j] >= 0)
        where = self.row_of[use], place[self.i[use]].astype(np.int64) * n + place[self.j[use]]
        data = self.rows.data[use]
        if scale is not None:
            data = data * scale[self.i[use]] * scale[self.j[use]]
        out = MatrixMap(sp.csr_array((data, where), shape=(self.m, n * n)), n)
        out.rounding = self.rounding + (2 if scale is not None else 0)
        return out

    def scaled(self, scale: np.ndarray) -> MatrixMap:
        """Row j times ``scale_j``."""
        out = copy.copy(self)
        out.rows = sp.csr_array((self.rows.data * scale[self.row_of], self.rows.indices, self.rows.indptr), shape=self.rows.shape)
        return out

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        terms = (np.conj(self.rows.data) * np.einsum("pk,pk->p", np.conj(Y[self.j]), U[self.i])).real
        return np.bincount(self.row_of, terms, self.m)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.matrix(mu) @ V

    def matrix(self, mu: np.ndarray) -> sp.csr_array:
        data = np.asarray(mu)[self.row_of] * self.rows.data
        return sp.csr_array((data, (self.i, self.j)), shape=(self.n, self.n))


class Stack(LinearMap):
    """The rows of several maps, one below the other, whatever their kind."""

    def __init__(self, maps: Sequence[LinearMap]):
        self.maps = tuple(maps)
        self.n, self.m = self.maps[0].n, sum(A.m for A in self.maps)
        self.splits = np.cumsum([A.m for A in self.maps])[:-1]

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.concatenate([A.apply(Y, U) for A in self.maps])

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.sum([A.adjoint_mul(part, V) for A, part in zip(self.maps, np.split(mu, self.splits), strict=True)], axis=0)

    def matrix(self, mu: np.ndarray) -> Any:
        parts = [A.matrix(part) for A, part in zip(self.maps, np.split(mu, self.splits), strict=True)]
        return None if any(part is None for part in parts) else sp.csr_array(sum(sp.csr_array(part) for part in parts))


def entries(n: int, i: Any, j: Any) -> MatrixMap:
    """The map ``X -> Re X_ij`` on the places (i_p, j_p): row p is ``(E_ij + E_ji) / 2``.

    Parameters
    ----------
    n : int
    i, j : array_like of int, (m,)
        Places of X, counted from 0, in any triangle.

    Raises
    ------
    ValueError
        For a place outside of X.
    """
    i, j = np.atleast_1d(np.asarray(i)).ravel(), np.atleast_1d(np.asarray(j)).ravel()
    if i.shape != j.shape or (i.size and (i.dtype.kind not in "iu" or j.dtype.kind not in "iu")):
        raise ValueError(f"i and j have {i.size} and {j.size} elements ({i.dtype}, {j.dtype}); equally many integers are needed")
    if i.size and not (0 <= min(i.min(), j.min()) and max(i.max(), j.max()) < n):
        raise ValueError(f"places ({i.min()}..{i.max()}, {j.min()}..{j.max()}) reach outside of X; 0 <= i, j < n = {n} is needed")
    i, j = i.astype(np.int64), j.astype(np.int64)
    row, off = np.arange(len(i)), i != j
    where = (np.concatenate([row, row[off]]), np.concatenate([i * n + j, (j * n + i)[off]]))
    values = np.concatenate([np.where(off, 0.5, 1.0), np.full(int(off.sum()), 0.5)])
    return MatrixMap(sp.csr_array((values, where), shape=(len(i), n * n)), n)


def as_linear_map(A: Any, n: int) -> LinearMap:
    """The map of a sequence of n x n matrices, of one stacked m x n^2 sparse array, or of a `LinearMap` itself.

    Raises ValueError for wrong shapes, entries that are not finite, or an ``A_j`` that is not Hermitian (named).
    """
    if isinstance(A, LinearMap):
        if A.n != n:
            raise ValueError(f"A acts on {A.n} x {A.n} matrices but C is {n} x {n}; they must agree")
        return A
    if sp.issparse(A):
        if A.ndim != 2 or A.shape[1] != n * n:
            raise ValueError(f"stacked A has shape {A.shape}; it must be m x n^2 = m x {n * n}, row j being A_j.ravel()")
        rows = sp.csr_array(A)
    elif (isinstance(A, Sequence) and not isinstance(A, (str, bytes))) or (isinstance(A, np.ndarray) and A.ndim == 3):
        rows = _stack(A, n)
    else:
        raise ValueError(f"A is a {type(A).__name__}; pass a sequence of {n} x {n} matrices, or one stacked m x {n * n} sparse array")
    if not rows.shape[0]:
        raise ValueError("A holds no matrix; pass at least one, or A=None for a unit diagonal")
    if rows.data.dtype.kind not in "biufc":
        raise ValueError(f"A has dtype {rows.dtype}; numbers are needed")
    rows = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    out = MatrixMap(rows, n)
    bad = ~np.isfinite(rows.data)
    if bad.any():
        raise ValueError(f"A_{out.row_of[bad][0]} has an entry that is NaN or infinite; every entry must be finite")
    _check_hermitian(out)
    return out


def as_matrix_map(A: LinearMap) -> MatrixMap:
    """The map with its matrices as rows; ValueError where it shows none."""
    if isinstance(A, MatrixMap):
        return A
    disjoint = _disjoint_rows(A)
    if disjoint is not None:
        return disjoint
    rows = []
    for e in np.eye(A.m):
        matrix = A.matrix(e)
        if matrix is None:
            raise ValueError(f"A is a {type(A).__name__} that shows no matrices; pass matrices, or a manifold")
        rows.append(sp.coo_array(matrix).reshape((1, A.n * A.n)))
    out = sp.csr_array(sp.vstack(rows, format="csr")) if rows else sp.csr_array((0, A.n * A.n))
    out.eliminate_zeros()
    return MatrixMap(out, A.n)


def _disjoint_rows(A: LinearMap) -> MatrixMap | None:
    """The rows of a map whose matrices are diagonal, of ones, on disjoint supports (spheres); None for others."""
    labels = np.arange(1.0, A.m + 1)
    matrix = A.matrix(labels) if A.m else None
    if not isinstance(matrix, sp.dia_array) or not np.array_equal(matrix.offsets, [0]):
        return None
    row = matrix.diagonal().astype(np.int64) - 1
    i = np.flatnonzero(row >= 0)
    again = np.random.default_rng(0).standard_normal(A.m)
    if not np.array_equal(A.matrix(again).diagonal(), np.where(row >= 0, again[row], 0.0)):
        return None
    return MatrixMap(sp.csr_array((np.ones(len(i)), (row[i], i * (A.n + 1))), shape=(A.m, A.n * A.n)), A.n)


def _stack(A: Any, n: int) -> sp.csr_array:
    rows, columns, data, m = [], [], [], len(A)
    for j, A_j in enumerate(A):
        A_j = sp.coo_array(A_j if sp.issparse(A_j) else np.asarray(A_j))
        if A_j.shape != (n, n):
            raise ValueError(f"A[{j}] has shape {A_j.shape} but C is {n} x {n}; every A_j must be {n} x {n}")
        i, c = A_j.coords
        rows.append(np.full(A_j.nnz, j, np.int64))
        columns.append(i.astype(np.int64) * n + c)
        data.append(A_j.data)
    if not m:
        return sp.csr_array((0, n * n))
    stacked = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sp.coo_array(stacked, shape=(m, n * n)).tocsr()


def _check_hermitian(A: MatrixMap) -> None:
    key = A.row_of * (A.n * A.n) + A.i * A.n + A.j if A.m * A.n**2 < 2**62 else None
    data = A.rows.data
    order = np.lexsort((A.j, A.i, A.row_of)) if key is None else np.argsort(key)
    mirror = np.lexsort((A.i, A.j, A.row_of))
    same = (A.i[order] == A.j[mirror]) & (A.j[order] == A.i[mirror]) & (A.row_of[order] == A.row_of[mirror])
    defect = np.abs(data[order] - np.conj(data[mirror]))
    same &= defect <= 1e-14 * np.abs(data[order])
    A.rounding = 100.0 if defect.any() else 0.0
    if not same.all():
        p = order[np.argmin(same)]
        raise ValueError(
            f"A_{A.row_of[p]} is not Hermitian: its entry at ({A.i[p]}, {A.j[p]}) has no equal partner at "
            f"({A.j[p]}, {A.i[p]}); pass (A_j + A_j*) / 2"
        )
