r"""The slack ``S = C - A*(mu)`` in the form that factorisations want, on all rows or on a face, every rounding accounted for (floor L1)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .facial import Face
from .factorization import UNIT, Arrow, ArrowFactor, BorderedFactor, Elimination, Factor, absolute_gram_rows
from .linear_maps import LinearMap, MatrixMap
from .operators import LowRankPlusSparse, Operator, difference

DENSE_LIMIT = 4000  # rows up to which a low-rank cost, or what a face fills in, is expanded where its structure is no help


class SlackForm:
    """``S = C - A*(mu)`` in the form that factorisations want: S = M, or ``S = M - V V* + W W*``.

    Attributes
    ----------
    matrix : CSR or ndarray
        M off its diagonal; diagonal entries are not read.
    diagonal : ndarray, (n,)
        Of M.
    rounding : ndarray, (n,)
        The exact S differs from the stored one by at most ``diag(rounding)``, in the Loewner order.
    border : pair of ndarray, n x r and n x s, or None
        V and W.
    is_diagonal, is_fragile : bool
        M is diagonal beside a border; and W is not empty: factorisations then want M definite, though S is without.
    """

    def __init__(self, matrix: Any, diagonal: np.ndarray, rounding: np.ndarray, border: tuple[np.ndarray, np.ndarray] | None = None):
        self.matrix, self.diagonal, self.rounding, self.border = matrix, diagonal, rounding, border
        self.is_diagonal = border is not None and _is_diagonal(matrix)
        self.is_fragile = border is not None and self.is_diagonal and bool(border[1].size)

    @classmethod
    def of(cls, C: Operator, A: LinearMap, mu: np.ndarray) -> SlackForm | None:
        """The form of ``C - A*(mu)``; None where C or A*(mu) has no matrix."""
        (matrix, border, expanded), A_mu = _split(C), A.matrix(mu)
        if matrix is None or A_mu is None:
            return None
        sizes, repeated, diagonal_only = absolute_rows(A, A_mu, mu), _multiplicity(A), _is_diagonal(A_mu)
        c, a = matrix.diagonal().real, A_mu.diagonal().real
        rounding = (repeated + 3) * UNIT * (np.abs(c) + sizes) + getattr(A, "rounding", 0.0) * UNIT * sizes
        entries = C.rounding + expanded + (0 if diagonal_only else repeated + 1)
        if entries:
            reach = C.abs_mul(np.ones(C.n))
            assert reach is not None  # C has entries
            rounding = rounding + entries * UNIT * reach
        for V in border or ():
            rounding += 6 * UNIT * absolute_gram_rows(V)
        return cls(matrix if diagonal_only else difference(matrix, A_mu), c - a, rounding, border)

    def on(self, face: ProvedFace) -> SlackForm | None:
        """The form of ``V* S V``; None where that would be large and dense."""
        kept, place = face.kept, np.ix_(face.kept, face.kept)
        if not len(face.pivots):
            matrix = sp.csr_array(self.matrix.tocsr()[kept][:, kept]) if sp.issparse(self.matrix) else self.matrix[place]
            border = None if self.border is None else (self.border[0][kept], self.border[1][kept])
            return SlackForm(matrix, self.diagonal[kept], self.rounding[kept], border)
        dense = self.border is not None or not sp.issparse(self.matrix) or not sp.issparse(face.W)
        if dense and len(self.diagonal) > DENSE_LIMIT:
            return None
        M, rounding = self._full()
        inner = face.congruence(M)
        return SlackForm(inner, inner.diagonal().real, face.spread(rounding) + face.rounding_of(M))

    def _full(self) -> tuple[Any, np.ndarray]:
        """M with its diagonal, the border expanded, and what is to be added to S to cover the rounding."""
        if self.border is None:
            M = self.matrix.copy()
            if sp.issparse(M):
                M = sp.csr_array(M - sp.diags_array(M.diagonal()) + sp.diags_array(self.diagonal))
            else:
                np.fill_diagonal(M, self.diagonal)
            return M, self.rounding
        M = self.matrix.toarray() if sp.issparse(self.matrix) else self.matrix.copy()
        np.fill_diagonal(M, self.diagonal)
        size, rounding = np.abs(M).sum(axis=1), self.rounding
        for V, sign in zip(self.border, (-1, 1), strict=True):
            M = M + sign * (V @ V.conj().T)
            gram = absolute_gram_rows(V)
            size, rounding = size + gram, rounding + 3 * (V.shape[1] + 3) * UNIT * gram
        return (M + M.conj().T) / 2, rounding + 4 * UNIT * size

    def analyse(self, limit: float | None = None) -> Elimination | Arrow | None:
        """The analysis of the pattern; None where a factorisation is not affordable (of a sparse S: in ``limit`` flops)."""
        if self.border is None:
            return Elimination.analyse(self.matrix, limit=limit)
        V, W = self.border
        if self.is_diagonal and not W.shape[1]:
            return Arrow(V) if V.shape[1] <= DENSE_LIMIT else None
        return Elimination.analyse(self._bordered, W.shape[1])

    def factor(self, tree: Elimination | Arrow, diagonal: np.ndarray) -> Factor | BorderedFactor:
        """The factorisation of S with this diagonal of M in place of its own."""
        if self.border is None:
            assert isinstance(tree, Elimination)
            return tree.factor(self.matrix, diagonal)
        V, W = self.border
        if isinstance(tree, Arrow):
            return BorderedFactor(ArrowFactor(V, diagonal), V, W, np.abs(diagonal))
        inner = tree.factor(self._bordered, np.concatenate([diagonal, np.ones(V.shape[1]), -np.ones(W.shape[1])]))
        size = np.abs(diagonal) + np.asarray(abs(self.matrix).sum(axis=1)).ravel()
        return BorderedFactor(inner, V, W, size * (1 + 1e-8))

    def residual_rows(self, factor: Factor | BorderedFactor, diagonal: np.ndarray) -> np.ndarray | None:
        """`Factor.residual_rows` of a factor with this diagonal; None where it has none."""
        return factor.residual_rows(self.matrix, diagonal) if isinstance(factor, Factor) else None

    def quotient(self, v: np.ndarray) -> float:
        """``v* S v``."""
        off = self.matrix @ v - self.matrix.diagonal() * v + self.diagonal * v
        inside = float(np.vdot(v, off).real)
        for V, sign in zip(self.border or (), (-1, 1), strict=False):
            inside += sign * float(np.linalg.norm(V.conj().T @ v)) ** 2
        return inside

    @cached_property
    def _bordered(self) -> sp.csr_array:
        """``[[M, V, W], [V*, I, 0], [W*, 0, -I]]``, the same for all shifts."""
        assert self.border is not None
        V, W = (sp.csr_array(part) for part in self.border)
        I, J = sp.eye_array(V.shape[1]), sp.eye_array(W.shape[1])
        rows = [[self.matrix, V, W], [V.conj().T, I, None], [W.conj().T, None, -J]]
        out = sp.csr_array(sp.block_array(rows, format="csr"))
        out.sort_indices()
        return out


def _split(C: Operator) -> tuple[Any, tuple[np.ndarray, np.ndarray] | None, int]:
    """``(M, (V, W), p)`` with ``C = M - V V* + W W*`` where that helps; else C in full, a low rank expanded with p u relative error."""
    if not isinstance(C, LowRankPlusSparse):
        return C.matrix(), None, 0
    base, r = C.A.matrix(), C.U.shape[1]
    if base is None:
        return None, None, 0
    arrow = _is_diagonal(base) and 2 * r < C.n and (C.d <= 0).all()
    if arrow or C.n > DENSE_LIMIT and sp.issparse(base):
        V, W = (C.U[:, part] * np.sqrt(np.abs(C.d[part])) for part in (C.d < 0, C.d > 0))
        return base, (V, W), 0
    if C.n > DENSE_LIMIT:
        return None, None, 0
    full = (C.U * C.d) @ C.U.conj().T
    full += base
    full = (full + full.conj().T) / 2
    return full, None, (3 if C.is_complex else 1) * (r + 5)


def _is_diagonal(M: Any) -> bool:
    """Whether the pattern of M is diagonal: its values may differ at the next point."""
    if not sp.issparse(M) or isinstance(M, sp.dia_array):
        return isinstance(M, sp.dia_array)
    M = M.tocoo()
    return bool((M.row == M.col).all())


def absolute_rows(A: LinearMap, A_mu: Any, mu: np.ndarray) -> np.ndarray:
    """Row sums of ``sum_j |mu_j| |A_j|``."""
    if isinstance(A, MatrixMap):
        return np.bincount(A.i, np.abs(mu)[A.row_of] * np.abs(A.rows.data), A.n)
    return np.asarray(abs(A_mu).sum(axis=1)).ravel()


def _multiplicity(A: LinearMap) -> int:
    """How many A_j have an entry in one place, at most."""
    if not isinstance(A, MatrixMap):
        return 1
    return int(np.unique(A.i * A.n + A.j, return_counts=True)[1].max(initial=1))


class ProvedFace:
    """A `Face` whose V is known up to entrywise errors; its U must be exact.

    Attributes
    ----------
    kept, pivots, W
        Those of the face.
    error : ndarray or CSR array, like W
        The exact W is within this of W, entrywise.
    """

    def __init__(self, face: Face):
        self.n, self.kept, self.pivots, self.W = face.n, face.kept, face.pivots, face.W
        self.field = 3 if np.iscomplexobj(self.W) else 1
        self.face, self.error = face, _basis_error(face)
        self.size = abs(self.W)

    @property
    def known(self) -> bool:
        """Whether the errors are small."""
        error = self.error.data if sp.issparse(self.error) else self.error
        return bool((error <= 1e-3).all())

    def congruence(self, M: Any) -> Any:
        """``V* M V``, dense or sparse as W and M are."""
        return self.face.congruence(M)

    def spread(self, d: np.ndarray) -> np.ndarray:
        """e with ``V* diag(d) V <= diag(e)`` for the exact V and d >= 0: row sums of ``|V|* d |V|``."""
        reach = self.size + self.error
        across = np.asarray(reach.sum(axis=1)).ravel()
        return np.asarray(d[self.kept] + reach.T @ (d[self.pivots] * across)) * (1 + 1e-8)

    def rounding_of(self, M: Any) -> np.ndarray:
        """Row sums of the error of `congruence`, against the exact M in the exact basis."""
        size, ones = abs(M), np.ones(len(self.kept))
        v, e = self._up(ones, self.size), np.zeros(self.n)
        v[self.kept] = 1
        e[self.pivots] = self.error @ ones
        gamma = (3 if np.iscomplexobj(M) else self.field) * (2 * len(self.pivots) + 12) * UNIT
        both = size @ (v + e)
        rows = gamma * self._down(both, self.size) + self.error.T @ both[self.pivots] + self._down(size @ e, self.size)
        return np.asarray(rows) * (1 + 1e-8)

    def _up(self, z: np.ndarray, W: Any) -> np.ndarray:
        out = np.zeros(self.n)
        out[self.kept], out[self.pivots] = z, W @ z
        return out

    def _down(self, v: np.ndarray, W: Any) -> np.ndarray:
        return np.asarray(v[self.kept] + W.T @ v[self.pivots])


def _basis_error(face: Face) -> Any:
    """Bounds on ``|P^{-1} (P W + K)|``, the error of W, with ``[P K]`` the pivot and kept columns of U."""
    if not len(face.pivots):
        return np.zeros(face.W.shape)
    P, r, c = face.U[:, face.pivots], len(face.pivots), 3 if np.iscomplexobj(face.U) else 1
    if sp.issparse(face.W):
        K, W = sp.csr_array(face.U[:, face.kept]), face.W
    else:
        K, W = face.U[:, face.kept], face.W
    gamma = c * (r + 4) * UNIT
    size = abs(sp.csr_array(P)) if sp.issparse(W) else abs(P)
    residual = abs(sp.csr_array(P) @ W + K if sp.issparse(W) else P @ W + K) + gamma * (size @ abs(W) + abs(K))
    if np.count_nonzero(P) == r and (P.diagonal() != 0).all():  # a quotient per entry
        scale = (1 + 1e-8) / np.abs(P.diagonal())
        return sp.csr_array(sp.diags_array(scale) @ residual) if sp.issparse(residual) else scale[:, None] * residual
    G = np.linalg.inv(P)
    alpha = float((np.abs(np.eye(r) - G @ P) + gamma * (np.abs(G) @ np.abs(P) + np.eye(r))).sum(axis=1).max())
    first = np.abs(G) @ (residual.toarray() if sp.issparse(residual) else residual)
    if not alpha <= 0.5:
        return np.full(first.shape, np.inf)
    return (first + 2 * alpha * first.max(axis=0)) * (1 + 1e-8)
