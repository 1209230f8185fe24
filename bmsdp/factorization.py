r"""Error-bounded factorisations of floating-point Hermitian matrices (floor L1).

`Elimination` analyses a pattern once, `Elimination.factor` runs ``S + diag(t) = L D L*`` in floating point.  If it finishes with
positive pivots, the exact matrix satisfies ``S + diag(t) >= -diag(e)`` with

    e_i = gamma_{c (p_i + 5)} (|L| D |L*| 1)_i,     p_i terms in row i of L,  c = 1 (real), 3 (complex),

because the backward error obeys ``|E| <= gamma (|L| D |L*|)`` entrywise (Higham, Accuracy and Stability, 2nd ed., Lemma 8.4 and
Theorem 10.3; any order of summation, FMA allowed) and a Hermitian matrix is at least minus the diagonal of its absolute row
sums (Gershgorin).  Against the textbook bound ``gamma_{n+1} tr`` per row this counts only the fill that exists: two to four
digits on sparse graphs.  BLAS is assumed free of Strassen-like products, as OpenBLAS, MKL and BLIS are.

``S = M - V V*`` is the Schur complement of ``[[M, V], [V*, I]]``, and is factored as that: sparse M with V as a border, or, for a
diagonal M, by one dense r x r Cholesky (`Arrow`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

UNIT = 2.0**-53
TINY = 2.0**-1000  # far above anything underflow can cost, far below anything that matters
CORE_LIMIT = 8000  # rows of the dense core: 512 MB, 1.7e11 flops
SPARSE_LIMIT = 3e8  # flops of the sparse phase: a second or so


class Elimination:
    """The symbolic part: ordering, elimination tree and storage for one pattern.

    Attributes
    ----------
    flops : float
        Work of one numerical factorisation, the core's BLAS-3 flops counted as one tenth.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, perm: np.ndarray, sparse: int, flops: float):
        from .kernels import elimination as kernel

        self.indptr, self.indices, self.perm, self.sparse = indptr, indices, perm, sparse
        self.core = len(perm) - sparse
        self.flops = flops + self.core**3 / 30
        self.inverse, self.parent, self.pointer, self.terms = kernel.symbolic(indptr, indices, perm, sparse)
        self.terms[sparse:] += np.arange(self.core) + 1

    @classmethod
    def analyse(cls, S: Any) -> Elimination | None:
        """The analysis of the pattern of S (CSR or ndarray); None where a factorisation is not affordable."""
        n = S.shape[0]
        if not sp.issparse(S):
            return None if n > CORE_LIMIT else cls(np.zeros(n + 1, np.int32), np.zeros(0, np.int32), np.arange(n), 0, 0.0)
        from .kernels.elimination import minimum_degree

        perm, slot, work = np.empty(n, np.int64), np.empty(S.nnz, np.int64), np.zeros((13, n + 1), np.int64)
        sparse, flops = minimum_degree(S.indptr, S.indices, SPARSE_LIMIT, perm, slot, work)
        if sparse < 0 or n - sparse > CORE_LIMIT:
            return None
        return cls(S.indptr, S.indices, perm, sparse, flops)

    def factor(self, S: Any, diagonal: np.ndarray) -> Factor:
        """Factor the matrix with the off-diagonal entries of S (of the analysed pattern) and the given diagonal."""
        if not sp.issparse(S):
            core = np.array(S)
            core[np.diag_indices_from(core)] = diagonal
            return Factor(self, np.zeros(0, np.int32), np.zeros(0, core.dtype), np.zeros(0), core, -1)
        from .kernels.elimination import factor

        if not (np.array_equal(S.indptr, self.indptr) and np.array_equal(S.indices, self.indices)):
            raise ValueError("S has another pattern than the one that was analysed")
        rows = np.zeros(self.pointer[-1], np.int32)
        values = np.zeros(self.pointer[-1], S.dtype)
        D = np.zeros(self.sparse)
        core = np.zeros((self.core, self.core), S.dtype)
        tree = (self.perm, self.inverse, self.parent, self.pointer)
        stop = factor(S.indptr, S.indices, S.data, diagonal, *tree, rows, values, D, core)
        return Factor(self, rows, values, D, core, stop)


class Factor:
    """``P (S + diag(t)) P* = L D L*``, or the place where that broke down.

    Attributes
    ----------
    definite : bool
        All pivots positive.
    """

    def __init__(self, tree: Elimination, rows: np.ndarray, values: np.ndarray, D: np.ndarray, core: np.ndarray, stop: int):
        self.tree, self.rows, self.values, self.D, self.core, self.stop = tree, rows, values, D, core, stop
        self.info = 0
        if stop < 0 and len(core):
            # the lower half of core is the upper half of core.T: LAPACK overwrites that one, the other keeps the input
            from scipy.linalg import get_lapack_funcs

            (potrf,) = get_lapack_funcs(("potrf",), (core,))
            self.diagonal = core.diagonal().copy()
            self.U, self.info = potrf(core.T, lower=0, overwrite_a=1, clean=0)
        self.definite = stop < 0 and self.info == 0

    def error_rows(self) -> np.ndarray:
        """e (n,) with ``S + diag(t) >= -diag(e)`` in exact arithmetic, for a definite factor."""
        from .kernels.elimination import absolute_row_sums

        tree, out = self.tree, np.empty(len(self.tree.perm))
        core_sums = np.zeros(tree.core)
        if tree.core:
            columns = np.empty(tree.core)  # |U| 1, U upper triangular
            for s in range(0, tree.core, 256):
                columns[s : s + 256] = np.triu(np.abs(self.U[s : s + 256]), s).sum(axis=1)
            for s in range(0, tree.core, 256):
                core_sums += np.triu(np.abs(self.U[s : s + 256]), s).T @ columns[s : s + 256]
        absolute_row_sums(tree.pointer, self.rows, self.values, self.D, core_sums, out)
        terms = (3 if np.iscomplexobj(self.core) else 1) * (tree.terms + 5.0)
        gamma = terms * UNIT / (1 - terms * UNIT)
        e = np.empty_like(out)
        e[tree.perm] = gamma * out * (1 + 1e-8) + TINY  # 1e-8 covers the rounding of these sums of positive numbers
        return e

    def negative_direction(self) -> np.ndarray:
        """For an indefinite factor: unit v with ``v* (S + diag(t)) v <= 0`` up to rounding."""
        from scipy.linalg import cho_solve

        from .kernels.elimination import solve_transposed

        tree = self.tree
        x = np.zeros(len(tree.perm), self.core.dtype)
        if self.stop >= 0:
            x[self.stop] = 1
            solve_transposed(tree.pointer[: self.stop + 1], self.rows, self.values, x)
        else:
            r = self.info - 1
            column = self.U[r, :r]  # untouched half: row r of core.T
            w = cho_solve((self.U[:r, :r], False), column.conj(), check_finite=False) if r else column
            x[tree.sparse : tree.sparse + r] = -w.conj() if r else 0
            x[tree.sparse + r] = 1
            solve_transposed(tree.pointer, self.rows, self.values, x)
        v = np.empty_like(x)
        v[tree.perm] = x
        return v / np.linalg.norm(v)

    def solve(self, v: np.ndarray) -> np.ndarray:
        """``(S + diag(t))^{-1} v`` for a definite factor."""
        from scipy.linalg import cho_solve

        from .kernels.elimination import solve_forward, solve_transposed

        tree = self.tree
        x = v[tree.perm].astype(self.core.dtype)
        solve_forward(tree.pointer, self.rows, self.values, x)
        x[: tree.sparse] /= self.D
        if tree.core:
            tail = cho_solve((self.U, False), x[tree.sparse :].conj(), check_finite=False)
            x[tree.sparse :] = tail.conj()
        solve_transposed(tree.pointer, self.rows, self.values, x)
        out = np.empty_like(x)
        out[tree.perm] = x
        return out


class Arrow:
    """The analysis of ``[[diag(m), V], [V*, I]]``, V dense n x r: one r x r Cholesky."""

    def __init__(self, V: np.ndarray):
        self.V, (n, r) = V, V.shape
        self.flops = (1 + 3 * np.iscomplexobj(V)) * (n * r * r + r**3 / 3) / 10


class ArrowFactor:
    """``[[diag(m), V], [V*, I]] = L D L*``, with the methods of `Factor`; storage r x r and 256 rows of V."""

    CHUNK = 256  # rows: shorter sums have smaller error bounds

    def __init__(self, V: np.ndarray, m: np.ndarray):
        from scipy.linalg import get_lapack_funcs

        self.V, self.m = V, m
        self.stop, self.info = (-1 if (m > 0).all() else int(np.argmin(m > 0))), 0
        if self.stop < 0:
            core = np.eye(V.shape[1], dtype=V.dtype)
            for W, m_rows in self._chunks():
                W = W / np.sqrt(m_rows)[:, None]
                core -= W.conj().T @ W
            (potrf,) = get_lapack_funcs(("potrf",), (core,))
            self.core = core
            self.U, self.info = potrf(core, lower=0, clean=1)
        self.definite = self.stop < 0 and self.info == 0

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for s in range(0, len(self.m), self.CHUNK):
            yield self.V[s : s + self.CHUNK], self.m[s : s + self.CHUNK]

    def error_rows(self) -> np.ndarray:
        """e (n + r,): the matrix is at least ``-diag(e)``, as for `Factor.error_rows`."""
        n, r = self.V.shape
        columns, rows = np.zeros(r), np.empty(n)
        for s, (V, m) in zip(range(0, n, self.CHUNK), self._chunks(), strict=True):
            size = np.abs(V)
            total = size.sum(axis=1)
            rows[s : s + self.CHUNK] = m + total
            columns += size.T @ (1 + total / m)
        U = np.abs(self.U)
        columns += 1 + U.T @ U.sum(axis=1)
        terms = (3 if np.iscomplexobj(self.V) else 1) * (self.CHUNK + n / self.CHUNK + r + 16.0)
        return terms * UNIT / (1 - terms * UNIT) * np.concatenate([rows, columns]) * (1 + 1e-8) + TINY

    def negative_direction(self) -> np.ndarray:
        """x with a nonpositive quadratic form, up to rounding."""
        from scipy.linalg import solve_triangular

        n, r = self.V.shape
        x = np.zeros(n + r, self.V.dtype)
        if self.stop >= 0:
            x[self.stop] = 1
            return x
        j = self.info - 1  # the leading j x j part of the core is U* U, row j broke down
        y = x[n:]
        y[j] = 1
        if j:
            U = self.U[:j, :j]
            y[:j] = -solve_triangular(U, solve_triangular(U, self.core[:j, j], trans="C"))
        x[:n] = -(self.V @ y) / self.m
        return x / np.linalg.norm(x)

    def solve(self, v: np.ndarray) -> np.ndarray:
        """The inverse applied to v (n + r,)."""
        from scipy.linalg import cho_solve

        n = len(self.m)
        top = v[:n] / self.m
        y = cho_solve((self.U, False), v[n:] - self.V.conj().T @ top, check_finite=False)
        return np.concatenate([top - (self.V @ y) / self.m, y])


class BorderedFactor:
    """A factor of ``M - V V*`` from that of ``[[M, V], [V*, I]]``, whose Schur complement it is."""

    def __init__(self, inner: Factor | ArrowFactor, V: np.ndarray, rows: np.ndarray):
        self.inner, self.V, self.rows, self.definite = inner, V, rows, inner.definite

    def error_rows(self) -> np.ndarray:
        """``M + e - V (I + e')^{-1} V* >= 0`` bounds ``V V*`` by ``(1 + e') (M + e)``, hence S from below, with ``M <= diag(rows)``."""
        e, n = self.inner.error_rows(), len(self.V)
        worst = float(e[n:].max())
        return e[:n] + worst * (1 + 2 * worst) * (self.rows + e[:n])

    def negative_direction(self) -> np.ndarray:
        x = self.inner.negative_direction()[: len(self.V)]
        return x / np.linalg.norm(x)

    def solve(self, v: np.ndarray) -> np.ndarray:
        return self.inner.solve(np.concatenate([v, np.zeros(self.V.shape[1], v.dtype)]))[: len(v)]


def absolute_gram_rows(V: np.ndarray) -> np.ndarray:
    """``|V| |V|^T 1``, by 1024 rows; not below the exact value."""
    chunks = [V[s : s + 1024] for s in range(0, len(V), 1024)]
    total = sum(np.abs(chunk).sum(axis=0) for chunk in chunks)
    return np.concatenate([np.abs(chunk) @ total for chunk in chunks]) * (1 + 1e-8)
