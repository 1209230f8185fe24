"""Constraint matrices for speed: entries of X on one pattern, and rank-one rows kept as vectors (floor L1)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import scipy.sparse as sp

from .facial import rank_one
from .linear_maps import LinearMap, MatrixMap
from .operators import LowRankPlusSparse, Operator, SparseOperator, SumOperator, as_operator, difference

LONG = 400  # entries from which a rank-one row is kept as its vector


class PatternMap(LinearMap):
    """The rows of a `MatrixMap`, in the same order, applied through compiled kernels.

    ``A(X) = Re conj(B) x`` with ``x = X[i, j]`` on the p places of the upper triangle that any sparse row touches, and
    ``s_j |u_j* Y|^2`` for rank-one rows ``A_j = s_j u_j u_j*`` of many entries.

    Attributes
    ----------
    i, j : ndarray, (p,)
        The places, i <= j, sorted.
    B : csr_array, m x p
        Coefficients; those off the diagonal count twice.
    U : ndarray, n x r
        The vectors of the rank-one rows.
    long : ndarray, (r,)
        Their rows.
    sign : ndarray, (r,)
    """

    def __init__(self, A: MatrixMap, is_complex: bool = False):
        self.n, self.m = A.n, A.m
        found = rank_one(A, np.flatnonzero(np.diff(A.rows.indptr) >= LONG))
        self.long = np.array([one.row for one in found], np.int64)
        self.sign = 1 / np.array([one.divisor for one in found], float)
        kind = np.complex128 if is_complex or A.rows.dtype.kind == "c" else np.float64
        self.U = np.zeros((A.n, len(found)), kind)
        for column, one in enumerate(found):
            self.U[one.support, column] = one.values
        short = np.ones(A.m, bool)
        short[self.long] = False
        use = short[A.row_of] & (A.i <= A.j)
        key, place = np.unique(A.i[use] * A.n + A.j[use], return_inverse=True)
        self.i, self.j = (part.astype(np.int64) for part in np.divmod(key, A.n))
        twice = np.where(A.i[use] == A.j[use], 1.0, 2.0)
        self.B = sp.csr_array((A.rows.data[use] * twice, (A.row_of[use], place.ravel())), shape=(A.m, len(key)))
        self.BT = self.B.T.tocsr()
        self.is_plain = self.B.nnz == self.m == len(key) and bool((self.B.indices == np.arange(self.m)).all()) and kind is np.float64
        self._assemble()

    def scaled(self, scale: np.ndarray) -> PatternMap:
        """Row j times ``scale_j``."""
        out = copy.copy(self)
        D = sp.diags_array(scale)
        out.B, out.BT, out.sign = sp.csr_array(D @ self.B), sp.csr_array(self.BT @ D), self.sign * scale[self.long]
        return out

    def _assemble(self) -> None:
        """Where the entry of every place goes in the CSR form of ``A*(mu)``."""
        p, off = np.arange(len(self.i)), self.i != self.j
        rows, columns = np.concatenate([self.i, self.j[off]]), np.concatenate([self.j, self.i[off]])
        order = np.lexsort((columns, rows))
        self._source = np.concatenate([p, p[off]])[order]
        self._flip = np.concatenate([np.zeros(len(p), bool), np.ones(int(off.sum()), bool)])[order]
        self._halve = np.where(off, 0.5, 1.0)[self._source]
        index = np.int32 if len(order) < 2**31 else np.int64
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.n))]).astype(index)
        zeros = np.zeros(len(order), self.U.dtype)
        self._template = sp.csr_array((zeros, columns[order].astype(index), indptr), shape=(self.n, self.n))
        self._template.has_canonical_format = True

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        from .kernels.sampled import cross_entries, gram_entries

        x = np.zeros(len(self.i), Y.dtype)
        if len(x) and U is Y:
            gram_entries(self.i, self.j, Y, x)
        elif len(x):
            cross_entries(self.i, self.j, Y, U, x)
        if self.is_plain:
            out = self.B.data * x
        elif self.B.dtype.kind == "c":
            out = (self.B.conj() @ x).real
        else:
            out = self.B @ (x.real if x.dtype.kind == "c" else x)
        if len(self.long):
            left = self.U.conj().T @ Y
            right = left if U is Y else self.U.conj().T @ U
            out[self.long] = self.sign * np.einsum("rk,rk->r", left.conj(), right).real
        return np.asarray(out)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.operator(mu).mul(V)

    def matrix(self, mu: np.ndarray) -> Any:
        return None if len(self.long) else self.sparse(mu)

    def sparse(self, mu: np.ndarray) -> sp.csr_array:
        """The part of ``A*(mu)`` on the pattern."""
        entries = mu * self.B.data if self.is_plain else self.BT @ mu
        data = entries[self._source] * self._halve
        if data.dtype.kind == "c":
            data[self._flip] = data[self._flip].conj()
        elif self.U.dtype.kind == "c":
            data = data.astype(np.complex128)
        out = copy.copy(self._template)  # SciPy's constructor checks what is known here, at the price of a small product
        out.data = data
        return out

    def operator(self, mu: np.ndarray) -> Operator:
        """``A*(mu)``."""
        base = SparseOperator(self.sparse(mu), rounding=4.0)
        if not len(self.long):
            return base
        return LowRankPlusSparse.of(base, self.U, self.sign * mu[self.long])


def cost_with(C: Operator, A: PatternMap, z: np.ndarray) -> Operator:
    """``C - A*(z)`` as an operator with entries where C has some."""
    base = C.A if isinstance(C, LowRankPlusSparse) else C
    matrix = base.matrix()
    if matrix is None:
        return SumOperator(C, A.operator(-z))
    U, d = A.U, -A.sign * z[A.long]
    if isinstance(C, LowRankPlusSparse):
        U, d = np.concatenate([C.U, U], axis=1), np.concatenate([C.d, d])
    base = as_operator(difference(matrix, A.sparse(z)))  # entries that cancel stay: the pattern is analysed once
    return LowRankPlusSparse.of(base, U, d) if d.size else base
