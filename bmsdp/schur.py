"""Rows that no constraint sees, eliminated from a sparse cost: its Schur complement as an operator (floor L1).

With ``C = [[A, B*], [B, D]]`` and D positive definite, ``min_Z <C, [Y; Z][Y; Z]*> = <A - B* D^{-1} B, YY*>``, attained at
``Z = -D^{-1} B Y``; and ``C - blkdiag(M, 0) >= 0`` if and only if ``A - B* D^{-1} B - M >= 0``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .operators import UNIT, Operator, SparseOperator, as_operator


class SchurOperator(Operator):
    """``A - B* D^{-1} B`` of a sparse Hermitian C whose first n rows are kept; products with C and one pair of sparse triangular solves.

    Parameters
    ----------
    C : sparse array or SparseOperator, (n + f) x (n + f)
    n : int
        The rows kept; f >= 1 others are eliminated.

    Attributes
    ----------
    whole : SparseOperator
        C.

    Raises
    ------
    ValueError
        Where D was not found to be positive definite.
    """

    def __init__(self, C: Any, n: int):
        whole = as_operator(C)
        M = whole.matrix()
        if M is None or not sp.issparse(M) or not 1 <= n < whole.n:
            raise ValueError(f"rows are eliminated from a sparse C and 1 <= n < {whole.n} of them kept; got n = {n}, {type(C).__name__}")
        self.n, self.dtype, self.rounding = int(n), whole.dtype, whole.rounding
        self.whole = SparseOperator(M, whole.rounding)
        self.kept = SparseOperator(sp.csr_array(M[:n, :n]))
        self.across, self.back = SparseOperator(sp.csr_array(M[n:, :n])), SparseOperator(sp.csr_array(M[:n, n:]))
        self.free = sp.csc_array(M[n:, n:])
        solver = definite(self.free)
        if solver is None:
            raise ValueError(f"the {whole.n - n} x {whole.n - n} block of the rows to be eliminated is not positive definite; keep them")
        self.solve = solver.solve

    @property
    def terms(self) -> int:
        return self.whole.terms

    def mul(self, Y: np.ndarray) -> np.ndarray:
        out = self.kept.mul(Y)
        out -= _times(self.back.C, np.ascontiguousarray(self.solve(_times(self.across.C, Y))))
        return out

    def eliminated(self, Y: np.ndarray) -> np.ndarray:
        """``Z = -D^{-1} B Y``, the rows that were eliminated, (f, ...)."""
        return -np.ascontiguousarray(self.solve(_times(self.across.C, Y)))

    def complete(self, Y: np.ndarray) -> np.ndarray:
        """``[Y; Z]``, on all rows of C."""
        return np.concatenate([Y, self.eliminated(Y)])

    def product_size(self, rng: np.random.Generator) -> float:
        """What the rounding error of a product is about, per unit vector and in units of u.

        ``|C|`` on kept rows, and the backward error of the solve, ``D -> D + E``, which costs ``|D^{-1} B|^2 |E|``; norms by a few steps
        of the power method, doubled.
        """
        v, reach = rng.standard_normal(self.n), 0.0
        for _ in range(8):
            v = v / np.linalg.norm(v)
            z = self.solve(self.across.C @ v)
            reach = max(reach, float(np.linalg.norm(z)))
            v = _adjoint(self.across.C) @ self.solve(z)
        rows = abs(self.whole.C).sum(axis=1)
        return float(np.max(rows[: self.n])) * (1 + 2 * reach) + float(np.max(rows[self.n :])) * (2 * reach) ** 2


def _times(M: sp.csr_array, Y: np.ndarray) -> np.ndarray:
    """``M Y`` for a rectangular M, by the compiled kernel where that pays."""
    if Y.ndim == 1 or M.nnz * Y.shape[1] < 20_000 or M.dtype != Y.dtype:
        return M @ Y
    from .kernels import spmm

    out = np.empty((M.shape[0], Y.shape[1]), Y.dtype)
    spmm.csr_mul(M.indptr, M.indices, M.data, Y, out)
    return out


def _adjoint(M: sp.csr_array) -> Any:
    return M.conj().T


def definite(D: sp.csc_array) -> Any:
    """SuperLU's factorisation of a sparse Hermitian matrix without pivoting; None unless its pivots are positive.

    D is taken as definite up to rounding of ``16 n u |D|``: what is exactly singular must not pass for definite.
    """
    from scipy.sparse.linalg import splu

    size = float(abs(D).sum(axis=0).max()) if D.nnz else 0.0
    if not size > 0:
        return None
    try:
        factor = splu(D, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # exactly singular
        return None
    pivots = factor.U.diagonal().real
    return factor if (factor.perm_r == factor.perm_c).all() and (pivots > 16 * D.shape[0] * UNIT * size).all() else None
