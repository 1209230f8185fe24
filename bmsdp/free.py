r"""Free variables, solved for in equality rows (floor L6).

With ``D`` the coefficients of the free variables x in the equality rows, pivot rows P and ``M = D_P`` invertible,
``x = M^{-1} (b_P - A_P(X))``.  Put into all other rows and the cost:

    A_R <- A_R - K A_P,  K = D_R M^{-1};     C <- C - A_P*(y0),  y0 = M^{-T} c;     y_P = y0 - K^T y_R - (E M^{-1})^T z

with E the coefficients in the inequalities; those that see further free variables get slacks first.  A variable of which the cost
alone is left becomes the difference of two nonnegative ones: the problem is unbounded, if it is feasible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from .linear_maps import MatrixMap
from .operators import LowRankPlusSparse, Operator, SumOperator, as_operator

if TYPE_CHECKING:
    from .presolved import Presolved

ROUNDING = 2.0**-44  # relative size of what cancellation leaves
INDEPENDENT = 1e-11  # relative size of a pivot that counts


def _coefficients(A: MatrixMap, free: np.ndarray) -> sp.csr_array:
    """m x f: what stands at the diagonal places of the free variables."""
    place = np.full(A.n, -1)
    place[free] = np.arange(len(free))
    use = (A.i == A.j) & (place[A.i] >= 0)
    return sp.csr_array((A.rows.data[use].real, (A.row_of[use], place[A.i[use]])), shape=(A.m, len(free)))


def _pivots(D: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Rows P and columns Q with ``D[P, Q]`` square, invertible and as large as the rank."""
    from scipy.linalg import qr

    seen = np.flatnonzero(np.diff(D.indptr))
    dense = D[seen].toarray()
    if not dense.size or not dense.any():
        return np.zeros(0, int), np.zeros(0, int)
    R, order = qr(dense.T, mode="r", pivoting=True)
    d = np.abs(np.diag(R[: min(R.shape), : min(R.shape)]))
    rank = int(np.sum(d > INDEPENDENT * d[0]))
    P = np.sort(order[:rank])
    columns = qr(dense[P], mode="r", pivoting=True)[1][:rank]
    return seen[P], np.sort(columns)


def eliminate_free(state: Presolved, free: np.ndarray) -> None:
    """Take the free variables (indices of rows of X) out of the problem."""
    from .presolved import Point, as_equalities

    D, E = _coefficients(state.A, free), _coefficients(state.G, free)
    diagonal = state.C.diagonal()
    if diagonal is None:
        raise ValueError("free variables need the diagonal of C, and C is an operator that only multiplies; pass its entries")
    c = diagonal[free]
    P, Q = _pivots(D)
    M = D[P][:, Q].toarray()
    T = np.linalg.solve(M, D[P].toarray()) if len(P) else np.zeros((0, len(free)))
    others = np.setdiff1d(np.arange(len(free)), Q)
    cost = c - T.T @ c[Q]
    seen = np.abs(E.toarray() - E[:, Q].toarray() @ T)[:, others] > 1e-12 * np.abs(E.data).max(initial=0.0)
    if seen.any():  # an inequality with a slack is an equality to solve for them
        as_equalities(state, np.flatnonzero(seen.any(axis=1)))
        return eliminate_free(state, free)
    split = others[np.abs(cost[others]) > 1e-10 * np.abs(c).max(initial=0.0)]
    state.notes.append(
        f"{len(free)} free variables: {len(Q)} eliminated" + (f", {len(split)} split" if len(split) else "")
        + (f", {len(others) - len(split)} without effect" if len(others) > len(split) else "")
    )
    if len(split):
        _split(state, free[split])
    n, m, N = state.A.n, state.A.m, len(free)
    keep = np.setdiff1d(np.arange(n), np.delete(free, split))
    if not len(keep):
        raise ValueError("all variables are free: a linear system, no semidefinite program; add a semidefinite or nonnegative block")
    place = np.full(n, -1)
    place[keep] = np.arange(len(keep))
    A, G = state.A.places(place, len(keep)), state.G.places(place, len(keep))
    R = np.setdiff1d(np.arange(m), P)
    K, H = (np.linalg.solve(M.T, X[:, Q].toarray().T).T if len(P) else np.zeros((X.shape[0], 0)) for X in (D[R], E))
    y0, A_P, b_P = np.linalg.solve(M.T, c[Q]) if len(P) else np.zeros(0), A.take(P), state.b[P]
    state.C = _less(_kept(state.C, keep), A_P.matrix(y0))
    state.A, state.b = _combined(A.take(R), K, A_P), _rest(state.b[R], K, b_P)
    state.G, state.g = _combined(G, H, A_P), _rest(state.g, H, b_P)
    state.eq, state.constant = state.eq[R], state.constant + float(y0 @ b_P)

    def back(point: Point) -> Point:
        y, Y = np.zeros(m), np.zeros((n, point.Y.shape[1]), point.Y.dtype)
        y[R], y[P] = point.y, y0 - K.T @ point.y - H.T @ point.z
        Y[keep] = point.Y
        x = np.zeros(N)
        if len(P):
            x[Q] = np.linalg.solve(M, b_P - A_P.apply(point.Y, point.Y))
        if len(split):
            size = np.einsum("ik,ik->i", Y.conj(), Y).real
            x[split] = size[free[split]] - size[n - len(split) :]
            if len(P):
                x[Q] -= T[:, split] @ x[split]
            Y[free[split]] = 0
            Y = np.ascontiguousarray(Y[: n - len(split)])
        return Point(Y, x, y, point.z)

    state.undo.append(back)
    state.enter.append(lambda Y: np.ascontiguousarray(Y[keep]))


def _split(state: Presolved, rows: np.ndarray) -> None:
    """``x = x+ - x-``: x+ keeps its row of X, x- gets a new one at the end.  Undone by the caller."""
    n, p = state.A.n, len(rows)
    minus = np.full(n + p, -1, np.int64)
    minus[rows] = n + np.arange(p)

    def widened(A: MatrixMap) -> MatrixMap:
        wide = A.places(np.arange(n), n + p)
        use = (wide.i == wide.j) & (minus[wide.i] >= 0)
        where = (wide.row_of[use], minus[wide.i[use]] * (n + p + 1))
        return MatrixMap(sp.csr_array(wide.rows + sp.csr_array((-wide.rows.data[use], where), shape=wide.rows.shape)), n + p)

    state.A, state.G = widened(state.A), widened(state.G)
    C = state.C.matrix()
    if C is None:
        raise ValueError("free variables that depend on each other need the entries of C; pass C as an array or a sparse array")
    wide = sp.csr_array(C)
    wide.resize((n + p, n + p))
    diagonal = np.zeros(n + p)
    diagonal[n:] = -sp.csr_array(C).diagonal()[rows].real
    state.C = as_operator(sp.csr_array(wide + sp.diags_array(diagonal)))
    state.enter.append(lambda Y: np.concatenate([Y, np.zeros((p, Y.shape[1]), Y.dtype)]))


def _kept(C: Operator, keep: np.ndarray) -> Operator:
    """The rows and columns ``keep``."""
    from .facial import Face

    return Face(C.n, zeros=np.setdiff1d(np.arange(C.n), keep)).cost(C)


def _less(C: Operator, A: sp.csr_array) -> Operator:
    """``C - A``."""
    if not A.nnz:
        return C
    if isinstance(C, LowRankPlusSparse):
        return LowRankPlusSparse.of(_less(C.A, A), C.U, C.d)
    M = C.matrix()
    if M is None:
        return SumOperator(C, as_operator(-A))
    return as_operator(sp.csr_array(M - A) if sp.issparse(M) else np.asarray(M - A.toarray()))


def _combined(A: MatrixMap, K: np.ndarray, B: MatrixMap) -> MatrixMap:
    """Rows ``A - K B``, entries that are rounding left out."""
    if not K.size or not np.any(K):
        return A
    left = sp.csr_array(K)
    rows, size = sp.csr_array(A.rows - left @ B.rows), abs(A.rows) + abs(left) @ abs(B.rows)
    rows = sp.csr_array(rows.multiply(abs(rows) > ROUNDING * size))
    rows.eliminate_zeros()
    out = MatrixMap(rows, A.n)
    out.rounding = A.rounding + B.rounding + 4
    return out


def _rest(b: np.ndarray, K: np.ndarray, b_P: np.ndarray) -> np.ndarray:
    """``b - K b_P``, 0 where that is rounding."""
    out = b - K @ b_P
    return np.where(np.abs(out) > ROUNDING * (np.abs(b) + np.abs(K) @ np.abs(b_P)), out, 0.0)
