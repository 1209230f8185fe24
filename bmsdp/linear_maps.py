"""``X -> A(X)`` through factors, and maps given by matrices (floor L1)."""

from __future__ import annotations

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

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        terms = (np.conj(self.rows.data) * np.einsum("pk,pk->p", np.conj(Y[self.j]), U[self.i])).real
        return np.bincount(self.row_of, terms, self.m)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.matrix(mu) @ V

    def matrix(self, mu: np.ndarray) -> sp.csr_array:
        data = np.asarray(mu)[self.row_of] * self.rows.data
        return sp.csr_array((data, (self.i, self.j)), shape=(self.n, self.n))


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
