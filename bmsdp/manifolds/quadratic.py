r"""General equality constraints: ``<A_i Y, Y> = b_i`` with any Hermitian A_i, the smooth manifold of Pumir, Jelassi, Boumal (2018).

Assumption 1(b) of the paper: the span of ``A_1 Y, ..., A_m Y`` has one dimension m' <= m on a neighbourhood of the set.  Rows may
therefore be redundant, but must not become so at some points only: `bmsdp.manifolds.rank_report` looks for such.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..constraints import Traces
from ..factorization import UNIT
from ..gram import Gram, GramFactor
from ..linear_maps import MatrixMap
from ..operators import as_operator
from ..pattern_map import PatternMap
from ..slack_form import SlackForm
from .base import Manifold, gaussian

STARTS = 20  # Gaussian starts of a random point
PARTS = (*0.5 ** np.arange(11), 0.0)  # of a step, tried in turn: from a feasible Y the last one leads to Y
FEASIBLE = 1e-13  # relative residual
EPS = 2.0**-52


class Quadratic(Manifold, MatrixMap):
    """``{Y : <A_i Y, Y> = b_i, i = 1..m}`` for the matrices of a `MatrixMap`.

    Parameters
    ----------
    A : MatrixMap
        `bmsdp.linear_maps.as_linear_map` makes one of matrices or stacked rows.
    b : array_like, (m,)
    shift : array_like, (m,), optional
        w with ``A*(w)`` positive definite, which is proved and scaled to ``A*(w) >= I`` here; then ``tr X <= <b, w>``.  Without it,
        diagonal rows of A of one sign bound the rows that they see; rows that nothing bounds leave no bound at all.
    """

    def __init__(self, A: MatrixMap, b: Any, shift: Any = None):
        super().__init__(A.rows, A.n)
        self.rounding, self.b, self.map, self.gram = A.rounding, _right_hand_side(A, b), PatternMap(A), Gram(A)
        if np.iscomplexobj(A.rows.data) and A.rows.data.imag.any():
            self.is_complex = True  # a real A_j constrains complex factors as well
        self.traces, self.w = Traces(self, self.b), None if shift is None else _definite(self, shift)
        self.row_trace = _row_trace(self)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return self.map.apply(Y, U).real

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.map.adjoint_mul(mu, V)

    def matrix(self, mu: np.ndarray) -> Any:
        return MatrixMap.matrix(self, mu) if len(self.map.long) else self.map.matrix(mu)

    def factor(self, Y: np.ndarray) -> GramFactor:
        return self.gram.at(Y)

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return self.gram.scale * (factor or self.factor(Y)).multipliers(G)

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return _feasible(self, (Y + part * U for part in PARTS), "near Y")

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        return from_gaussian(self, k, rng, dtype)

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        return self.traces.cover(e) if self.w is None else float(np.max(e, initial=0.0)) * (1 + 4 * UNIT) * self.w

    def defect(self, Y: np.ndarray) -> np.ndarray:
        Z = gauss_newton(self, Y)[0]
        return np.full(self.n, np.inf) if Z is None else np.linalg.norm(Z - Y, axis=1) + _feasible_within(self, Z)

    @property
    def kappa(self) -> float:
        return np.inf  # no bound over all Y is known


def gauss_newton(M: Quadratic, Y: np.ndarray, tol: float = FEASIBLE, limit: int = 200) -> tuple[np.ndarray | None, float]:
    """A feasible point by ``Y -= A*(G^+ r / 2) Y``, ``r = A(YY*) - b``, damped where r would not fall; the same G while it serves.

    Quadratic convergence where the rank of G is constant.  Returns (None, ``|r|``) where r stays above tol; |r| is relative to
    ``|b| + tr X`` for rows of unit norm.
    """
    s, unit = M.gram.scale, float(np.linalg.norm(M.gram.scale * M.b))
    r, factor, fresh = s * (M.apply(Y, Y) - M.b), None, False
    for _ in range(limit):
        size, scale = float(np.linalg.norm(r)), unit + float(np.linalg.norm(Y)) ** 2
        if not np.isfinite(size) or size <= EPS * scale:
            break
        if factor is None:
            factor, fresh = M.factor(Y), True
        V = factor.normal(factor.solve(r), Y)
        for halvings in range(12 if fresh else 1):
            Z = Y - 2.0 ** -(halvings + 1) * V
            rest = s * (M.apply(Z, Z) - M.b)
            gain = float(np.linalg.norm(rest)) / size
            if gain <= 1 - 0.1 * 2.0**-halvings:
                break
        else:
            if fresh or size <= 1e-14 * scale:
                break
            factor = None
            continue
        Y, r, fresh = Z, rest, False
        if gain > 0.1:
            factor = None
    relative = size / scale if scale > 0 else 0.0
    return (Y, relative) if relative <= tol else (None, relative)


def from_gaussian(M: Quadratic, k: int, rng: np.random.Generator, dtype: Any, tol: float = FEASIBLE, starts: int = STARTS) -> np.ndarray:
    """A feasible point of k columns from random starts; ValueError where none of them leads to one."""
    return _feasible(M, (_gaussian_start(M, k, rng, dtype) for _ in range(starts)), f"of {k} columns from {starts} Gaussian starts", tol)


def _feasible(M: Quadratic, starts: Iterable[np.ndarray], where: str, tol: float = FEASIBLE) -> np.ndarray:
    """The first feasible point that a start leads to; steps that lead nowhere come halved, and then end at no retraction of theirs."""
    least = np.inf
    for Y in starts:
        Z, relative = gauss_newton(M, Y, tol)
        if Z is not None:
            return Z
        least = min(least, relative)
    raise ValueError(
        f"no feasible point found {where}: Gauss-Newton ends at a relative residual of {least:.1e}; allow more columns, start closer, "
        "or look at the constraints: they may contradict each other, or rank_report may find rows that depend on others at some points"
    )


def _right_hand_side(A: MatrixMap, b: Any) -> np.ndarray:
    b = np.array(b, float, ndmin=1)
    if b.shape != (A.m,) or not np.isfinite(b).all():
        raise ValueError(f"b has shape {b.shape} and A has {A.m} rows; one finite number per row is needed")
    empty = (np.bincount(A.row_of, A.rows.data != 0, A.m) == 0) & (b != 0)
    if empty.any():
        j = int(np.argmax(empty))
        raise ValueError(f"row {j} of A is zero but b[{j}] = {b[j]}: 0 = {b[j]} has no solution; remove the row or fix b")
    return b


def _definite(M: Quadratic, w: Any) -> np.ndarray:
    """w scaled to ``A*(w) >= I``, proved by an error-bounded factorisation."""
    w = np.array(w, float)
    if w.shape != (M.m,) or not np.isfinite(w).all():
        raise ValueError(f"shift has shape {w.shape}; {M.m} finite numbers are needed, one per row of A")
    form = SlackForm.of(as_operator(sp.csr_array((M.n, M.n))), M, -w)
    tree = form.analyse() if form is not None else None
    if form is None or tree is None:
        raise ValueError(f"A*(shift) is {M.n} x {M.n} with too much fill-in to prove that it is definite; leave shift None")
    high, low, proved = float(form.diagonal.min()), 0.0, 0.0  # lambda_min <= any diagonal entry
    s = high
    for _ in range(60):
        if not s > 1e-13 * float(np.abs(form.diagonal).max(initial=0.0)):
            break
        factor = form.factor(tree, form.diagonal - s)
        # thrice: for the rounding of w / lambda and of multiples of it as well
        found = s - float(np.max(factor.error_rows() + 3 * form.rounding + 4 * UNIT * np.abs(form.diagonal))) if factor.definite else 0.0
        if found > 0:
            low, proved = s, max(proved, found)
        else:
            high = s
        if low > 0 and high <= 1.02 * low:
            break
        s = (low + high) / 2 if low > 0 else s / 4
    if not proved > 0:
        raise ValueError("A*(shift) is not positive definite; a shift needs A*(w) > 0 (None where there is none)")
    if not M.b @ w > 0:
        raise ValueError(f"A*(shift) is positive definite but <b, shift> = {M.b @ w:.3g} <= 0: no X but 0 is feasible; check A and b")
    return w / proved


def _row_trace(M: Quadratic) -> np.ndarray:
    """A part of the bound ``b_j / a_i`` on ``X_ii`` for each row that the multiplier of j pays for, so that ``<b, shift> = n``."""
    if M.w is not None:
        return np.full(M.n, float(M.b @ M.w) / M.n)
    rows = M.traces.row
    seen = rows >= 0
    shared = np.bincount(rows[seen], minlength=M.m)
    return np.where(seen, M.traces.row_trace / np.maximum(shared[rows], 1), 0.0)


def _gaussian_start(M: Quadratic, k: int, rng: np.random.Generator, dtype: Any) -> np.ndarray:
    """Gaussian rows, those that are bounded of that length, and all scaled to ``min |A(YY*) - b|``."""
    bounded = M.row_trace > 0
    length = np.sqrt(np.where(bounded, M.row_trace, M.row_trace[bounded].mean() if bounded.any() else 1.0) / k)
    Y = length[:, None] * gaussian(rng, (M.n, k), dtype)
    a, b = M.gram.scale * M.apply(Y, Y), M.gram.scale * M.b
    square = float(a @ b) if a @ b > 0 else float(np.linalg.norm(a) * np.linalg.norm(b))
    return Y * np.sqrt(square / float(a @ a)) if square > 0 else Y


def _feasible_within(M: Quadratic, Y: np.ndarray) -> float:
    """How far from Y there is, at most, a point that is feasible in exact arithmetic; inf where that is not proved.

    For rows of unit norm ``|A(UU*)| <= L |U|^2``, ``L = sqrt(m)``.  With ``beta = |J^+|`` and ``eta = beta |r| / 2`` the Newton map
    ``U -> -J^+ (r + A(UU*)) / 2`` contracts the ball of radius ``2 eta`` if ``2 beta L eta < 1`` (Kantorovich).
    """
    if not M.m:
        return 0.0
    scale, length = M.gram.scale, np.linalg.norm(Y, axis=1)
    least = M.factor(Y).smallest()
    if not least > 0:
        return np.inf
    terms = 4 * (Y.shape[1] + np.diff(M.rows.indptr) + 20)
    sizes = np.bincount(M.row_of, np.abs(M.rows.data) * length[M.i] * length[M.j], M.m) + np.abs(M.b)
    rounding = UNIT * float(np.linalg.norm(terms * scale * sizes))
    beta = 1 / np.sqrt(least)
    eta = 0.5 * beta * (float(np.linalg.norm(scale * (M.apply(Y, Y) - M.b))) + rounding) * (1 + 1e-6)
    return 2 * eta if 2 * beta * np.sqrt(M.m) * eta < 0.5 else np.inf
