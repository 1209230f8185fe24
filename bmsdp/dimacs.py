"""The six DIMACS errors of any primal-dual pair, from the caller's own data (floor L4).

Mittelmann, An independent benchmarking of SDP and SOCP solvers, Math. Program. 95 (2003).  It knows nothing of solvers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .cone import Cone, Given, real_vector
from .factorization import Elimination
from .lanczos import lanczos
from .linear_maps import LinearMap, MatrixMap
from .operators import LowRankPlusSparse, Operator, difference, spectral_norm

DENSE_ROWS = 1000  # rows up to which the eigenvalues of a block are computed in full


class DimacsErrors(NamedTuple):
    """Six relative errors, all 0 at an exact optimal pair.

    Attributes
    ----------
    err1 : float
        Primal infeasibility, ``|A(X) - b|_2 / (1 + max|b|)``.
    err2 : float
        ``max(0, -lambda_min(X)) / (1 + max|b|)``.
    err3 : float
        Dual infeasibility, ``|A*(y) + Z - C|_F / (1 + max|C|)``.
    err4 : float
        ``max(0, -lambda_min(Z)) / (1 + max|C|)``.
    err5 : float
        Duality gap ``(<C, X> - <b, y>) / (1 + |<C, X>| + |<b, y>|)``, of either sign.
    err6 : float
        Complementarity ``<X, Z> / (1 + |<C, X>| + |<b, y>|)``.
    """

    err1: float
    err2: float
    err3: float
    err4: float
    err5: float
    err6: float

    @property
    def worst(self) -> float:
        """The largest in absolute value; NaN where one of them is."""
        return float(np.abs(np.array(self)).max())

    def __repr__(self) -> str:
        says = ("A(X)-b", "-eig X", "A*(y)+Z-C", "-eig Z", "gap", "<X,Z>")
        return "DimacsErrors(" + ", ".join(f"err{i + 1} {e:.1e} [{s}]" for i, (e, s) in enumerate(zip(self, says, strict=True))) + ")"


def dimacs(
    C: Any, A: Any = None, b: Any = None, *, dual: Any, Y: Any = None, X: Any = None, free: Any = None, A_geq: Any = None,
    b_geq: Any = None, dual_geq: Any = None, blocks: Any = None, Z: Any = None,
) -> DimacsErrors:  # fmt: skip
    """The DIMACS errors of the pair (X, dual), recomputed from the data.

    Parameters
    ----------
    C, A, b, A_geq, b_geq, blocks
        As for `bmsdp.solve`; ``A = None`` without blocks and A_geq is a unit diagonal.  "max|b|" is over b and b_geq; "max|C|" is the
        largest entry, for an operator without entries its norm (an estimate, not below).
    dual, dual_geq : array_like, (m,) and (m_geq,)
    Y : ndarray, n x k
        ``X = YY*`` on every block.  Needs no n x n array.
    X : n x n array, in place of Y
    free : array_like, optional
        Free variables, in order; with X they are read from its diagonal by default.
    Z : n x n array, optional
        The dual slack; ``C - A*(dual) - A_geq*(dual_geq)`` by default, where err3 is what is left on rows of free variables.

    Notes
    -----
    A row ``<B, X> >= d`` is ``<B, X> - s = d`` with the slack variable ``s = max(0, <B, X> - d)``, whose dual slack is its multiplier:
    violations count in err1, negative multipliers in err4, ``s z`` in err6.  Eigenvalues of blocks above 1000 rows are Lanczos' values
    minus their residuals.
    """
    given = Given.of(C, A, b, A_geq, b_geq, blocks)
    C, equal, b, geq, b_geq, cone = given
    y, z = real_vector(dual, "dual", equal.m), real_vector(dual_geq, "dual_geq", geq.m)
    primal = Primal.of(Y, X, free, cone, C.n)
    slack = Slack(given, y, z)
    scale_b = 1 + np.abs(np.concatenate([b, b_geq])).max(initial=0.0)
    scale_C = 1 + largest_entry(C)
    room = primal.apply(geq) - b_geq
    s = np.maximum(room, 0)
    cost, value = primal.inner(C.mul), float(b @ y + b_geq @ z)
    Z = None if Z is None else (sp.csr_array(Z) if sp.issparse(Z) else np.asarray(Z))
    low = slack.eig_min(primal.Y) if Z is None else _eig_min_matrix(Z, cone)
    mul = slack.mul if Z is None else lambda V: Z @ V
    scale = 1 + abs(cost) + abs(value)
    return DimacsErrors(
        float(np.linalg.norm(np.concatenate([primal.apply(equal) - b, np.minimum(room, 0)]))) / scale_b,
        max(0.0, -primal.eig_min()) / scale_b,
        (float(np.linalg.norm(slack.on_free)) if Z is None else slack.distance(Z)) / scale_C,
        max(0.0, -low, -z.min(initial=0.0)) / scale_C,
        (cost - value) / scale,
        (primal.inner(mul, with_free=False) + float(s @ z)) / scale,
    )


class Primal:
    """X as ``L R*`` on the blocks, with ``L = R = Y`` or ``L = X, R = I``, and free variables beside it."""

    def __init__(self, L: np.ndarray, Y: np.ndarray | None, free: np.ndarray, cone: Cone):
        self.L, self.Y, self.free, self.cone = L, Y, free, cone

    @classmethod
    def of(cls, Y: Any, X: Any, free: Any, cone: Cone, n: int) -> Primal:
        if (Y is None) == (X is None):
            raise ValueError("pass either the factor Y or the matrix X, one of them")
        given = np.array(X.toarray() if sp.issparse(X) else X) if Y is None else np.array(Y)
        if given.ndim != 2 or given.shape[0] != n or (Y is None and given.shape[1] != n) or given.dtype.kind not in "biufc":
            raise ValueError(f"{'X' if Y is None else 'Y'} has shape {given.shape}; {n} rows of numbers are needed, and {n} columns of X")
        given = given.astype(np.result_type(given.dtype, float))
        if free is None and Y is None:
            free = given[cone.free, cone.free].real
        free = real_vector(np.zeros(len(cone.free)) if free is None else free, "free", len(cone.free))
        given[cone.free] = 0
        if Y is None:  # outside the blocks nothing is X
            part = cone.part
            given[part[:, None] != part] = 0
        return cls(given, None if Y is None else given, free, cone)

    def apply(self, A: LinearMap) -> np.ndarray:
        """``A(X)``."""
        out = self._free_columns(lambda V, U: A.apply(V, U)) if self.free.any() else np.zeros(A.m)
        if self.Y is not None:
            return out + A.apply(self.Y, self.Y)
        if isinstance(A, MatrixMap):
            return out + np.bincount(A.row_of, (np.conj(A.rows.data) * self.L[A.i, A.j]).real, A.m)
        return out + A.apply(self.L, np.eye(len(self.L), dtype=self.L.dtype))

    def inner(self, mul: Callable[[np.ndarray], np.ndarray], with_free: bool = True) -> float:
        """``<M, X>`` for the block-diagonal M that ``mul`` multiplies with."""
        free = with_free and self.free.any()
        extra = float(self._free_columns(lambda V, U: np.array([np.vdot(U, mul(V)).real]))[0]) if free else 0.0
        if self.Y is None:
            return float(np.trace(mul(self.L)).real) + extra
        return float(np.vdot(self.Y, mul(self.Y)).real) + extra

    def _free_columns(self, form: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """A bilinear form of ``diag(x)`` and I on the free rows, whose matrices are diagonal there: one column is enough."""
        V, U = (np.zeros((len(self.L), 1), self.L.dtype) for _ in range(2))
        V[self.cone.free, 0], U[self.cone.free, 0] = self.free, 1
        return form(V, U)

    def eig_min(self) -> float:
        """The least eigenvalue over all blocks where X was given; a factor has none below 0."""
        return 0.0 if self.Y is not None else _eig_min_matrix(self.L, self.cone)


class Slack:
    """``S = C - A*(y) - A_geq*(z)``, as a matrix where there is one."""

    def __init__(self, given: Given, y: np.ndarray, z: np.ndarray):
        self.C, self.cone = given.C, given.cone
        self.parts = [(M, mu) for M, mu in ((given.A, y), (given.A_geq, z)) if M.m]
        self.dtype = np.dtype(complex if given.is_complex else float)
        matrix = self.C.matrix()
        for M, mu in self.parts:
            term = M.matrix(mu)
            matrix = None if matrix is None or term is None else difference(matrix, sp.csr_array(term))
        self.matrix = matrix

    def mul(self, V: np.ndarray) -> np.ndarray:
        if self.matrix is not None:
            return np.asarray(self.matrix @ V)
        V = np.ascontiguousarray(V, np.result_type(V.dtype, self.C.dtype))
        out = self.C.mul(V)
        for M, mu in self.parts:
            out = out - M.adjoint_mul(mu, V)
        return out

    def rows(self, at: slice | np.ndarray) -> np.ndarray:
        """The diagonal block of S in these rows, dense."""
        if self.matrix is not None:
            part = self.matrix[at][:, at]
            return part.toarray() if sp.issparse(part) else np.asarray(part)
        E = np.eye(self.C.n, dtype=self.C.dtype)[:, at]
        return self.mul(E)[at]

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal at the rows of variables, 0 elsewhere."""
        E = np.zeros((self.C.n, 1), self.C.dtype)
        single = np.concatenate([self.cone.nonneg, self.cone.free])
        E[single] = 1
        out = np.zeros(self.C.n)
        out[single] = self.mul(E)[single, 0].real
        return out

    @property
    def on_free(self) -> np.ndarray:
        return self.diagonal[self.cone.free] if len(self.cone.free) else np.zeros(0)

    @property
    def trace(self) -> float:
        """tr S over the blocks and nonnegative variables."""
        matrix = self.matrix
        diagonal = matrix.diagonal() if matrix is not None else np.concatenate([self.rows(at).diagonal() for at in self.cone.psd])
        return float(diagonal.real.sum() - (self.on_free.sum() if matrix is not None else 0))

    def distance(self, Z: Any) -> float:
        """``|S - Z|_F`` with Z = 0 on rows of free variables."""
        single = (self.diagonal - Z.diagonal())[self.cone.nonneg]
        total = float(np.linalg.norm(self.on_free)) ** 2 + float(np.linalg.norm(single)) ** 2
        for rows in self.cone.psd:
            part = Z[rows][:, rows]
            part = part.toarray() if sp.issparse(part) else part
            total += float(np.linalg.norm(self.rows(rows) - part)) ** 2
        return math.sqrt(total)

    def eig_min(self, Y: np.ndarray | None = None) -> float:
        """A number not above the least eigenvalue over all blocks, for large ones up to Lanczos' failure; Y near the kernel helps."""
        low = float(self.diagonal[self.cone.nonneg].min(initial=math.inf)) if len(self.cone.nonneg) else math.inf
        for rows in self.cone.psd:
            if rows.stop - rows.start <= DENSE_ROWS:
                low = min(low, float(np.linalg.eigvalsh(self.rows(rows))[0]))
                continue
            known = eig_min_factored(self.matrix[rows][:, rows]) if sp.issparse(self.matrix) else None
            if known is not None:
                low = min(low, known)
                continue
            low = min(low, eig_min_below(self._on(rows), rows.stop - rows.start, self.dtype, None if Y is None else Y[rows]))
        return low

    def _on(self, rows: slice) -> Callable[[np.ndarray], np.ndarray]:
        if self.matrix is not None:
            part = self.matrix[rows][:, rows]
            return lambda v: np.asarray(part @ v)

        def mul(v: np.ndarray) -> np.ndarray:
            V = np.zeros((self.C.n, *v.shape[1:]), v.dtype)
            V[rows] = v
            return self.mul(V.reshape(self.C.n, -1))[rows].reshape(v.shape)

        return mul


def eig_min_factored(S: sp.csr_array) -> float | None:
    """A number below the least eigenvalue of a sparse S, at most twice as far below 0, rounding aside; None where fill-in is heavy."""
    S = sp.csr_array(S)
    S.sort_indices()
    tree, diagonal = Elimination.analyse(S), S.diagonal().real
    if tree is None:
        return None
    size = float(abs(S).sum(axis=1).max(initial=0.0))
    t, failed, held = 1e-13 * size, 0.0, None
    while t <= 4 * size:
        factor = tree.factor(S, diagonal + t)
        if factor.definite:
            held = -(t + float(factor.error_rows().max()))
            if t <= 1e-13 * size:
                return held
            t = math.sqrt(t * failed)
        else:
            v = factor.negative_direction()
            failed = max(failed, t, -float(np.vdot(v, S @ v).real))
            t = 1.5 * failed if held is None else math.sqrt(-held * failed)
        if held is not None and -held <= 2 * failed:
            return held
    return held


def eig_min_below(mul: Callable[[np.ndarray], np.ndarray], n: int, dtype: np.dtype, Y: np.ndarray | None = None) -> float:
    """The least eigenvalue of a Hermitian operator, less its Lanczos residual; directions of Y in its near-kernel are deflated.

    With Q orthonormal, ``a = lambda_min(Q* S Q)``, theta that of the complement and ``e = |(I - QQ*) S Q|``:
    ``lambda_min >= (a + theta)/2 - sqrt((a - theta)^2/4 + e^2)``.
    """
    Q: Any = np.zeros((n, 0), dtype)
    rng = np.random.default_rng(0)
    if Y is not None and Y.any():
        U, sigma, _ = np.linalg.svd(Y.astype(np.result_type(dtype, Y.dtype)), full_matrices=False)
        U = U[:, sigma > 1e-7 * sigma[0]]
        _, size, W = np.linalg.svd(mul(U), full_matrices=False)
        typical = max(float(np.linalg.norm(mul(_unit(rng, n, dtype)))), 1e-300)
        Q = U @ W.conj().T[:, size <= 1e-3 * typical]
        dtype = Q.dtype

    def enough(ritz: Any) -> bool:
        return bool(ritz.residuals[0] <= max(1e-9 * np.abs(ritz.values).max(), 0.01 * ritz.values[0]))

    found = lanczos(mul, n, dtype, rng, 724, deflate=Q, enough=enough)
    theta = float(found.values[0] - found.residuals[0])
    if not Q.shape[1]:
        return theta
    SQ = mul(Q)
    inside = Q.conj().T @ SQ
    a = float(np.linalg.eigvalsh((inside + inside.conj().T) / 2)[0])
    e = float(np.linalg.norm(SQ - Q @ inside, 2))
    return (a + theta) / 2 - math.sqrt((a - theta) ** 2 / 4 + e**2)


def _unit(rng: np.random.Generator, n: int, dtype: np.dtype) -> np.ndarray:
    v = rng.standard_normal(n).astype(dtype)
    return v / np.linalg.norm(v)


def _eig_min_matrix(M: Any, cone: Cone) -> float:
    """The least eigenvalue over the blocks of a given matrix."""
    low = float(M.diagonal()[cone.nonneg].real.min(initial=math.inf))
    for rows in cone.psd:
        part = M[rows][:, rows]
        part = part.toarray() if sp.issparse(part) else part
        if len(part) <= DENSE_ROWS:
            low = min(low, float(np.linalg.eigvalsh((part + part.conj().T) / 2)[0]))
        else:
            low = min(low, eig_min_below(part.__matmul__, len(part), part.dtype))
    return low


def largest_entry(C: Operator) -> float:
    """``max |C_ij|``; the norm, estimated and rounded up, for an operator without entries."""
    matrix = C.matrix()
    if matrix is not None:
        values = matrix.data if sp.issparse(matrix) else matrix
        return float(np.abs(values).max(initial=0.0))
    if isinstance(C, LowRankPlusSparse) and C.A.matrix() is not None:
        base, worst = C.A.matrix(), 0.0
        for s in range(0, C.n, 256):
            rows = base[s : s + 256]
            full = (C.U[s : s + 256] * C.d) @ C.U.conj().T + (rows.toarray() if sp.issparse(rows) else rows)
            worst = max(worst, float(np.abs(full).max()))
        return worst
    return spectral_norm(C)
