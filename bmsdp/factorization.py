r"""Error-bounded factorisations of floating-point Hermitian matrices (floor L1).

`Elimination` analyses a pattern once, `Elimination.factor` runs ``S + diag(t) = L D L*`` in floating point.  If it finishes with
positive pivots, the exact matrix satisfies ``S + diag(t) >= -diag(e)`` with

    e_i = gamma_{c (p_i + 5)} (|L| D |L*| 1)_i,     p_i terms in row i of L,  c = 1 (real), 3 (complex),

because the backward error obeys ``|E| <= gamma (|L| D |L*|)`` entrywise (Higham, Accuracy and Stability, 2nd ed., Lemma 8.4 and
Theorem 10.3; any order of summation, FMA allowed) and a Hermitian matrix is at least minus the diagonal of its absolute row
sums (Gershgorin).  Against the textbook bound ``gamma_{n+1} tr`` per row this counts only the fill that exists: two to four
digits on sparse graphs.  BLAS is assumed free of Strassen-like products, as OpenBLAS, MKL and BLIS are.

``S = M - V V* + W W*`` is the Schur complement of ``[[M, V, W], [V*, I, 0], [W*, 0, -I]]`` and is factored as that: sparse M with a
border, or, for a diagonal M without W, by one dense r x r Cholesky (`Arrow`).  The pivots of -I are negative and come before
those of the core; the bound above holds with ``|D|``, and by inertia S is definite when all other pivots are positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

UNIT = 2.0**-53
TINY = 2.0**-1000  # far above anything underflow can cost, far below anything that matters
CORE_LIMIT = 8000  # rows of the dense core: 512 MB, 1.7e11 flops
RESIDUAL_LIMIT = 1e8  # flops of a factorisation whose residual is formed in twice the precision: a few seconds
SPARSE_LIMIT = 3e8  # flops of the sparse phase: a second or so


class Elimination:
    """The symbolic part: ordering, elimination tree and storage for one pattern.

    Attributes
    ----------
    flops : float
        Work of one numerical factorisation, the core's BLAS-3 flops counted as one tenth.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, perm: np.ndarray, sparse: int, flops: float, negative: int = 0):
        from .kernels import elimination as kernel

        self.indptr, self.indices, self.perm, self.sparse, self.negative = indptr, indices, perm, sparse, negative
        self.core = len(perm) - sparse
        self.flops = flops + self.core**3 / 30
        self.inverse, self.parent, self.pointer, self.terms = kernel.symbolic(indptr, indices, perm, sparse)
        self.terms[sparse:] += np.arange(self.core) + 1 + negative

    @classmethod
    def analyse(cls, S: Any, negative: int = 0, limit: float | None = None) -> Elimination | None:
        """The analysis of the pattern of S (CSR or ndarray); None where a factorisation is not affordable.

        ``negative``: so many rows at the end are to have negative pivots (sparse S only).  ``limit``: flops of the sparse phase.
        """
        n = S.shape[0]
        if not sp.issparse(S):
            return None if n > CORE_LIMIT else cls(np.zeros(n + 1, np.int32), np.zeros(0, np.int32), np.arange(n), 0, 0.0)
        from .kernels.elimination import minimum_degree

        perm, slot, work = np.empty(n, np.int64), np.empty(S.nnz, np.int64), np.zeros((13, n + 1), np.int64)
        sparse, flops = minimum_degree(S.indptr, S.indices, SPARSE_LIMIT if limit is None else limit, perm, slot, work, negative)
        if sparse < 0 or n - sparse > CORE_LIMIT:
            return None
        return cls(S.indptr, S.indices, perm, sparse, flops, negative)

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
        All pivots positive, but for those that are to be negative.
    """

    def __init__(self, tree: Elimination, rows: np.ndarray, values: np.ndarray, D: np.ndarray, core: np.ndarray, stop: int):
        self.tree, self.rows, self.values, self.D, self.core, self.stop = tree, rows, values, D, core, stop
        self.info = 0
        if stop < 0 and len(core):
            from scipy.linalg import get_lapack_funcs

            (potrf,) = get_lapack_funcs(("potrf",), (core,))
            if tree.negative:
                core = self._eliminate_negative(potrf, core)
            # the lower half of core is the upper half of core.T: LAPACK overwrites that one, the other keeps the input
            self.U = core
            if len(core):  # LAPACK refuses order 0
                self.U, self.info = potrf(core.T, lower=0, overwrite_a=1, clean=0)
        self.definite = self.stop < 0 and self.info == 0

    def _eliminate_negative(self, potrf: Any, core: np.ndarray) -> np.ndarray:
        """``[[R, B], [B*, -N]]``, ``N = U* U``: the rows of -N go first, and leave ``R + X* X``, ``X = U^{-*} B*``."""
        from scipy.linalg import solve_triangular

        c = len(core) - self.tree.negative
        self.N, info = potrf(-core[c:, c:], lower=0, clean=1)
        if info:
            self.stop = self.tree.sparse + c
            return np.eye(c, dtype=core.dtype)
        self.X = solve_triangular(self.N, core[c:, :c], trans="C")
        return core[:c, :c] + self.X.conj().T @ self.X

    def error_rows(self) -> np.ndarray:
        """e (n,) with ``S + diag(t) >= -diag(e)`` in exact arithmetic, for a definite factor."""
        from .kernels.elimination import absolute_row_sums

        tree, out = self.tree, np.empty(len(self.tree.perm))
        core_sums, c = np.zeros(tree.core), tree.core - tree.negative
        columns = np.empty(c)  # |U| 1, U upper triangular
        for s in range(0, c, 256):
            columns[s : s + 256] = np.triu(np.abs(self.U[s : s + 256]), s).sum(axis=1)
        for s in range(0, c, 256):
            core_sums[:c] += np.triu(np.abs(self.U[s : s + 256]), s).T @ columns[s : s + 256]
        if tree.negative:
            wide = np.concatenate([np.abs(self.X), np.abs(self.N)], axis=1)
            core_sums += wide.T @ wide.sum(axis=1)
        absolute_row_sums(tree.pointer, self.rows, self.values, self.D, core_sums, out)
        terms = (3 if np.iscomplexobj(self.core) else 1) * (tree.terms + 5.0)
        gamma = terms * UNIT / (1 - terms * UNIT)
        e = np.empty_like(out)
        e[tree.perm] = gamma * out * (1 + 1e-8) + TINY  # 1e-8 covers the rounding of these sums of positive numbers
        return e

    def residual_rows(self, S: Any, diagonal: np.ndarray) -> np.ndarray | None:
        """As `error_rows`, from the residual itself, in twice the precision: what rounding did, not what it might have done.

        Row sums of ``|S + diag(t) - G G^T|``, ``G = L D^{1/2}`` as stored: two to four digits less, at thirty times the cost.  For sparse
        real S; None for others, or more than `RESIDUAL_LIMIT` flops.
        """
        tree = self.tree
        c = tree.core
        work = float((np.diff(tree.pointer).astype(float) ** 2).sum()) + c**3 / 3
        if not sp.issparse(S) or np.iscomplexobj(self.core) or tree.negative or work > RESIDUAL_LIMIT:
            return None
        from .kernels.compensated import residual_rows

        n, s = len(tree.perm), tree.sparse
        root = np.sqrt(self.D)
        i, j = np.tril_indices(c)
        columns = np.concatenate([np.arange(s), np.repeat(np.arange(s), np.diff(tree.pointer)), s + j])
        rows = np.concatenate([np.arange(s), self.rows, s + i])
        values = np.concatenate([root, self.values * np.repeat(root, np.diff(tree.pointer)), self.U[j, i] if c else np.zeros(0)])
        G = sp.csc_array((values, (rows, columns)), shape=(n, n))
        G.sort_indices()
        R = sp.csr_array(sp.csc_array((np.arange(G.nnz), G.indices, G.indptr), shape=(n, n)))
        R.sort_indices()
        out = np.empty((2, n))
        arrays = (G.indptr, G.indices, G.data, R.indptr, R.indices, R.data)
        residual_rows(S.indptr, S.indices, S.data, diagonal, tree.perm, tree.inverse, *arrays, out)
        e = np.empty(n)
        e[tree.perm] = out[0] * (1 + 1e-8) + (tree.terms.max() + 10) * 2.0**-100 * out[1] + TINY
        return e

    def negative_direction(self) -> np.ndarray:
        """For an indefinite factor: unit v with ``v* (S + diag(t)) v <= 0`` up to rounding."""
        from scipy.linalg import cho_solve, solve_triangular

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
            if tree.negative:
                c = tree.core - tree.negative
                x[tree.sparse + c :] = solve_triangular(self.N, self.X @ x[tree.sparse : tree.sparse + c])
            solve_transposed(tree.pointer, self.rows, self.values, x)
        v = np.empty_like(x)
        v[tree.perm] = x
        return v / np.linalg.norm(v)

    def solve(self, v: np.ndarray) -> np.ndarray:
        """``(S + diag(t))^{-1} v`` for a definite factor."""
        from scipy.linalg import cho_solve, solve_triangular

        from .kernels.elimination import solve_forward, solve_transposed

        tree = self.tree
        x = v[tree.perm].astype(self.core.dtype)
        solve_forward(tree.pointer, self.rows, self.values, x)
        x[: tree.sparse] /= self.D
        if tree.core:
            c = tree.core - tree.negative
            f, g = x[tree.sparse : tree.sparse + c], x[tree.sparse + c :]
            if tree.negative:
                f = f + self.X.conj().T @ solve_triangular(self.N, g, trans="C")
            f = cho_solve((self.U, False), f.conj(), check_finite=False).conj()
            if tree.negative:
                x[tree.sparse + c :] = solve_triangular(self.N, self.X @ f - solve_triangular(self.N, g, trans="C"))
            x[tree.sparse : tree.sparse + c] = f
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
    """A factor of ``M - V V* + W W*`` from that of its bordered matrix; ``M <= diag(rows)``."""

    def __init__(self, inner: Factor | ArrowFactor, V: np.ndarray, W: np.ndarray, rows: np.ndarray):
        self.inner, self.V, self.W, self.rows = inner, V, W, rows
        self._error = self._bound() if inner.definite else np.zeros(0)
        self.definite = inner.definite and bool(np.isfinite(self._error).all())

    def error_rows(self) -> np.ndarray:
        """What ``M + e - V (I + e')^{-1} V* + W (I - e'')^{-1} W* >= 0`` leaves of S.

        It bounds ``V V*`` by ``(1 + e') (M + e + 2 W W*)`` for ``e'' <= 1/2``, hence S from below in units of M and ``W W*``.
        """
        return self._error

    def _bound(self) -> np.ndarray:
        n, r = self.V.shape
        e, e1, e2 = np.split(self.inner.error_rows(), [n, n + r])
        worst, plus = float(e1.max(initial=0)), float(e2.max(initial=0))
        if not plus <= 0.5:  # nothing is proved
            return np.full(n, np.inf)
        gram = absolute_gram_rows(self.W)
        return e + worst * (1 + 2 * worst) * (self.rows + e + 2 * gram) + 2 * plus * gram

    def negative_direction(self) -> np.ndarray:
        """As `Factor.negative_direction`; no more than a guess where the errors alone were too large, or W was left out of a pivot."""
        x = self.inner.negative_direction()[: len(self.V)] if not self.inner.definite else np.ones(len(self.V), self.V.dtype)
        return np.asarray(x / np.linalg.norm(x))

    def solve(self, v: np.ndarray) -> np.ndarray:
        return self.inner.solve(np.concatenate([v, np.zeros(self.V.shape[1] + self.W.shape[1], v.dtype)]))[: len(v)]


def absolute_gram_rows(V: np.ndarray) -> np.ndarray:
    """``|V| |V|^T 1``, by 1024 rows; not below the exact value."""
    chunks = [V[s : s + 1024] for s in range(0, len(V), 1024)]
    total = np.sum([np.abs(chunk).sum(axis=0) for chunk in chunks], axis=0)
    return np.concatenate([np.abs(chunk) @ total for chunk in chunks]) * (1 + 1e-8)
