"""The proof of one lower bound: the face its rows leave, the shift its slack needs, and the multipliers that pay (floor L1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .constraints import Constraints, Traces
from .facial import Face, OneSign, RankOne, rank_one, zero_rows
from .factorization import TINY, UNIT, BorderedFactor, Factor
from .linear_maps import MatrixMap
from .operators import Operator, SparseOperator
from .slack_form import ProvedFace, SlackForm, absolute_rows

NO_MATRIX = (
    "a verified bound needs the entries of C, and C is an operator that only multiplies: pass C as an array, a sparse array or "
    "LowRankPlusSparse(A, U, d), or ask for certify='probabilistic'"
)
TOO_DENSE = "a verified bound needs a factorisation of C - A*(mu), and there is too much fill-in for one; ask for certify='probabilistic'"


@dataclass(frozen=True)
class VerifiedBound:
    """What `lower_bound` proved.

    Attributes
    ----------
    bound : float
        Not above the optimum, in exact arithmetic, for the data as given; -inf where nothing bounds the trace.
    dual, dual_geq : ndarray, (m,) and (m_geq,)
        ``<b, dual> + <b_geq, dual_geq> >= bound``, ``dual_geq >= 0``, and ``C - A*(dual) - A_geq*(dual_geq)`` is positive semidefinite,
        exactly (up to ``excess`` where a trace bound paid, ``residual`` on free variables, and for the rows of ``unattained``).
    estimate : float
        The bound without what rounding cost.
    shift : float
        t: the smallest eigenvalue of S, relative to ``diag(1/r)``, was found to be at least about -t.
    rounding : float
        ``estimate - bound``, what the errors cost.
    excess : float
        ``C - A*(dual) >= -excess I``: 0 unless only ``trace_bound`` limits X.
    factorisations : int
    reason : str
        Why the bound is -inf.
    residual : float
        Largest ``|S_ff|`` of a free variable; bounds on these variables paid for it.
    unattained : tuple of int
        Rows (of A, then of A_geq) with ``A_j >= 0`` and ``b_j = 0``: S is positive semidefinite where these rows let X live, and the
        bound rests on that alone.  No multiplier need be large enough for the rest: with those in ``dual`` S is semidefinite up to
        about 1e-8 of its size.
    """

    bound: float
    dual: np.ndarray = field(repr=False)
    estimate: float
    shift: float
    rounding: float
    excess: float
    factorisations: int
    dual_geq: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))
    reason: str = ""
    residual: float = 0.0
    unattained: tuple[int, ...] = ()


FINITE = 1e-8  # relative: how far S may be from semidefinite under finite multipliers of facial rows, which go with its inverse


def facial_rows(rows: Constraints) -> tuple[list[OneSign], list[RankOne]]:
    """The rows that state ``X_ii = 0``, once others have been used, and those that state ``X u = 0``."""
    A: Any = rows.map
    zeros: list[OneSign] = []
    done = np.zeros(rows.map.n, bool)
    if not isinstance(A, MatrixMap) or (rows.b != 0).all():
        return [], []
    sees = np.bincount(A.row_of, rows.is_free[A.i] & (A.rows.data != 0), A.m) > 0
    among = np.flatnonzero((rows.b == 0) & ~sees)
    while len(among):
        new = [row for row in zero_rows(A, among) if not rows.geq[row.row] or row.a[0] < 0]
        if not new:
            break
        zeros += new
        done[np.concatenate([row.support for row in new])] = True
        left = A.rows.copy()
        left.data[done[A.i] | done[A.j]] = 0
        left.eliminate_zeros()
        A = MatrixMap(left, A.n)
    return zeros, [row for row in rank_one(A, among) if not rows.geq[row.row] or row.divisor < 0] if len(among) else []


class _Payer(NamedTuple):
    """Who pays for rows whose trace no row bounds: ``tr X <= R``, by w with ``A*(w) >= theta I`` where that is not None."""

    R: float
    w: np.ndarray | None = None
    theta: float = 1.0


class Proof:
    """One program and the face its rows leave; `run` proves a bound from given multipliers.

    Attributes
    ----------
    finite : ndarray
        After `run`: its multipliers before shifts were paid, those of facial rows large enough to make S almost semidefinite.
    """

    def __init__(self, rows: Constraints, facial: tuple[list[OneSign], list[RankOne]], trace_bound: float | None, w: np.ndarray | None):
        self.rows, self.trace_bound, self.w, self.count = rows, trace_bound, w, 0
        self.zeros, ranks = facial
        gone = np.concatenate([*(row.support for row in self.zeros), rows.free])
        face = Face(rows.C.n, ranks, gone)
        self.basis = ProvedFace(face)
        if not self.basis.known:
            face, ranks = Face(rows.C.n, (), gone), []
            self.basis = ProvedFace(face)
        self.face, self.ranks = face, [ranks[j] for j in face.used]
        self.unattained = tuple(sorted([row.row for row in self.zeros] + [row.row for row in self.ranks]))
        self.traces: Any = Traces(rows.map, rows.b, rows.geq, rows.is_free) if isinstance(rows.map, MatrixMap) else rows.map
        r = np.array(self.traces.row_trace, float)
        if not isinstance(self.traces, Traces):
            r[r <= 0] = np.inf  # rows of a manifold that nothing bounds
        self.r = r[face.kept]
        self.open = ~np.isfinite(self.r)

    def run(self, y: np.ndarray, tried: int = 0) -> VerifiedBound:
        """The bound from multipliers y; ``tried``: factorisations before."""
        rows, self.count = self.rows, tried
        y = y.copy()
        y[list(self.unattained)] = 0
        self.finite = y = rows.free_repaired(y)
        whole, form = self._forms(rows.C, y)
        tree = form.analyse() if len(form.diagonal) else None
        if tree is None and len(form.diagonal):
            raise ValueError(TOO_DENSE)
        payer, why = self._payer() if self.open.any() else (None, "")
        weight = self._weight(payer)
        t, error, factor = self._definite(form, tree, weight, payer)
        if factor is None and len(form.diagonal):
            return self._failed(y, t, why or "no multiple of the trace bounds makes C - A*(dual) positive semidefinite")
        needed = (t * weight + error) * (1 + 4 * UNIT)
        excess = float(needed[self.open].max(initial=0.0))
        if excess > 0 and payer is None:
            return self._failed(y, t, why)
        if self.unattained:
            self._finite_multipliers(y, whole, self._margin(form, tree, t * weight))
        return self._summed(y, t, weight, needed, excess, payer)

    def _forms(self, C: Operator, y: np.ndarray) -> tuple[SlackForm, SlackForm]:
        """``C - A*(y)`` on all rows and on the face."""
        if isinstance(self.rows.map, MatrixMap) and self.rows.map.rows.dtype.kind == "c" and not C.is_complex:
            C = C.as_complex()
        whole = SlackForm.of(C, self.rows.map, y)
        if whole is None:
            raise ValueError(NO_MATRIX)
        form = whole if len(self.face.kept) == self.face.n else whole.on(self.basis)
        if form is None:
            raise ValueError(TOO_DENSE)
        return whole, form

    def _payer(self) -> tuple[_Payer | None, str]:
        """Who pays for the rows that no row bounds, the cheaper one; or why nobody does."""
        i = int(self.face.kept[np.argmax(self.open)])
        why = f"no row of A bounds the trace of X where row {i} is, and that of C - A*(dual) has to be paid for; pass trace_bound or shift"
        given = None if self.trace_bound is None else _Payer(self.trace_bound)
        if self.w is None:
            return given, why
        theta = self._smallest(self.w)
        if not theta > 0:
            return given, "shift was not proved to be positive definite, A*(w) + A_geq*(w_geq) >= I; pass another shift, or trace_bound"
        R = float(self.rows.b @ self.w) / theta
        R = R if R > 0 else 1.0  # then only X = 0 can be feasible, and R is no more than a unit
        return (given, why) if given is not None and given.R <= R else (_Payer(R, self.w, theta), why)

    def _smallest(self, w: np.ndarray) -> float:
        """theta with ``A*(w) >= theta I`` on the face, at most 1; 0 where that was not proved."""
        n = self.rows.C.n
        _, form = self._forms(SparseOperator(sp.csr_array((n, n))), -w)
        tree = form.analyse()
        if tree is None:
            return 0.0
        for theta in (1 - 1e-7, 1 - 1e-4, 0.99, 0.9, 0.5, 0.1, 0.01):
            self.count += 1
            factor = form.factor(tree, form.diagonal - theta)
            if factor.definite:
                error = factor.error_rows() + form.rounding + 4 * UNIT * (np.abs(form.diagonal) + 1)
                if float(error.max()) < theta / 2:
                    return float((theta - error.max()) * (1 - 4 * UNIT))
        return 0.0

    def _weight(self, payer: _Payer | None) -> np.ndarray:
        """``1 / r``; where somebody has to pay, one unit for all rows: the bounded ones cost less than it."""
        r = self.r
        if self.open.any() and payer is not None:
            r = np.full(len(r), payer.R)
        elif self.trace_bound is not None:
            r = np.minimum(r, self.trace_bound)
        weight = 1 / np.where(r > 0, r, np.inf)
        weight[r == 0] = 1e8 * weight.max(initial=0.0)  # X_ii = 0: shifts there cost nothing
        return weight

    def _definite(self, form: SlackForm, tree: Any, weight: np.ndarray, payer: _Payer | None) -> tuple[float, np.ndarray, Any]:
        """``(t, e, factor)``: ``S + t diag(weight) >= -diag(e)``, with e = 0 on rows that no row bounds if that can be had."""
        if tree is None:
            return 0.0, np.zeros(0), None
        t, error, factor, count = _definite_shift(form, tree, weight)
        self.count += count
        if factor is None or not self.open.any() or payer is not None and t > 0:
            return t, error, factor
        exact = form.residual_rows(factor, form.diagonal + t * weight)
        raised, bump = t, np.where(self.open, 2 * (error if exact is None else exact + form.rounding), 0.0)
        for _ in range(40):  # S is definite, not only semidefinite, on rows that no row bounds: its smallest eigenvalue there pays
            self.count += 1
            diagonal = form.diagonal + raised * weight - bump
            inner = form.factor(tree, diagonal)
            if inner.definite:
                exact = form.residual_rows(inner, diagonal)
                e = (inner.error_rows() if exact is None else exact) + form.rounding + 4 * UNIT * (np.abs(diagonal) + bump)
                if (e <= bump)[self.open].all():
                    return raised, np.where(self.open, 0.0, e), inner
                bump = np.where(self.open, np.maximum(1.25 * e, bump), 0.0)
                continue
            v = inner.negative_direction()
            paid = float(np.abs(v) ** 2 @ weight)
            if not paid > 1e-12 * float(weight.max(initial=0.0)):  # no t helps: negative on the rows that no row bounds
                break
            curvature = -form.quotient(v) + float(np.abs(v) ** 2 @ bump)
            raised = max(1.05 * curvature / paid, 2 * raised, TINY / float(weight.max()))
        return t, error, factor

    def _summed(
        self, y: np.ndarray, t: float, weight: np.ndarray, needed: np.ndarray, excess: float, payer: _Payer | None
    ) -> VerifiedBound:
        """Multipliers that pay for what is needed, and the bound they give."""
        rows, b = self.rows, self.rows.b
        w, cheap = (self._covered(np.where(self.open, 0.0, e - paid)) for e, paid in ((needed, excess), (t * weight, 0.0)))
        if payer is not None and self.open.any():
            cheap = np.zeros(len(b))  # t pays for all rows at once
        by_shift = payer is not None and payer.w is not None and excess > 0
        if by_shift:
            assert payer is not None and payer.w is not None
            w = w + self._multiple(y, w, excess, payer) * payer.w
            cheap, excess = t * float(weight[0]) / payer.theta * payer.w, 0.0
        final = y - w
        residual = rows.free_residual(final)
        R = rows.free_bounds(self._sizes(payer), self.trace_bound) if residual.any() else np.zeros(len(residual))
        if not np.isfinite(R[residual > 0]).all():
            f = int(rows.free[np.argmax((residual > 0) & ~np.isfinite(R))])
            why = f"C - A*(dual) is not 0 on the free variable in row {f}, and nothing bounds that; pass trace_bound or other multipliers"
            return self._failed(y, t, why)
        slip = 4 * UNIT * float(np.abs(b) @ np.abs(final))
        trace = 0.0 if self.trace_bound is None else self.trace_bound
        paid = [-slip, -excess * trace * (1 + 4 * UNIT)]
        bound = sum_down(np.concatenate([b * final, paid, -residual * np.where(residual > 0, R, 0.0) * (1 + 4 * UNIT)]))
        estimate = math.fsum(b * (y - cheap)) - (0.0 if by_shift else float((t * weight)[self.open].max(initial=0.0)) * trace)
        for row in self.unattained:
            final[row] = self.finite[row]
        most = float(residual.max(initial=0.0))
        return self._answer(bound, final, estimate, t, excess, most, "")

    def _covered(self, e: np.ndarray) -> np.ndarray:
        """w with ``A*(w) >= diag(e)`` on the face."""
        full = np.zeros(self.rows.C.n)
        full[self.face.kept] = np.maximum(e, 0.0) * (1 + 4 * UNIT)
        w = self.traces.cover(full)
        assert w is not None
        return np.asarray(w)

    def _multiple(self, y: np.ndarray, w: np.ndarray, excess: float, payer: _Payer) -> float:
        """c with ``c theta >= excess`` and what rounding ``y - w - c payer.w`` costs, which is no diagonal matrix."""
        assert payer.w is not None
        c = excess / payer.theta * (1 + 8 * UNIT)
        size = np.abs(y) + np.abs(w)
        for _ in range(60):
            slip = self.basis.spread(4 * UNIT * absolute_rows(self.rows.map, None, size + c * np.abs(payer.w))) * (1 + 1e-8)
            enough = (excess + float(slip.max(initial=0.0))) / payer.theta * (1 + 8 * UNIT)
            if c >= enough:
                return c
            c = enough * (1 + 1e-6)
        return math.inf

    def _sizes(self, payer: _Payer | None) -> np.ndarray:
        """(n,) bounds on X_ii, as far as known."""
        size = np.full(self.rows.C.n, np.inf)
        size[self.face.kept] = self.r
        size[self.face.zeros] = 0.0
        if payer is None:
            return size
        if payer.w is None:
            return np.minimum(size, payer.R)
        # theta tr X <= <b, w> + sum omega_f |x_f|, and the bounds on x_f are concave in tr X: what holds strictly at R holds beyond
        omega = self.rows.free_residual(payer.w, cost=False)
        R = payer.R * (1 + 1e-8)
        if omega.any():
            R *= 2
            x = self.rows.free_bounds(np.minimum(size, R), self.trace_bound)
            least = payer.theta * R * (1 - 1e-8) - float(omega[omega > 0] @ x[omega > 0]) * (1 + 1e-8)
            if not least > max(float(self.rows.b @ payer.w), 0.0) * (1 + 1e-8):
                return size
        return np.minimum(size, R)

    def _margin(self, form: SlackForm, tree: Any, added: np.ndarray) -> Any:
        """A factor of ``V* S V`` made definite by a margin; None on an empty face."""
        if tree is None:
            return None
        size = float(np.max(np.abs(form.diagonal) + np.asarray(abs(form.matrix).sum(axis=1)).ravel()))
        self.count += 1
        factor = form.factor(tree, form.diagonal + added + FINITE * size)
        return factor if factor.definite else None

    def _finite_multipliers(self, y: np.ndarray, whole: SlackForm, factor: Any) -> None:
        """Multipliers of the facial rows: twice what the Schur complement of the face in S asks for."""
        if factor is None and len(self.face.kept):
            return
        face = self.face
        owner: list[RankOne | OneSign] = [*self.ranks, *(row for row in self.zeros for _ in row.support)]
        gone = np.concatenate([face.pivots, *(row.support for row in self.zeros)])
        if len(gone) * len(face.kept) > 2e7:
            return
        M, _ = whole._full()
        cross = M[face.kept][:, gone]
        if len(face.pivots):
            cross = cross + face.W.conj().T @ M[face.pivots][:, gone]
        cross, inner = (part.toarray() if sp.issparse(part) else np.asarray(part) for part in (cross, M[gone][:, gone]))
        K = -inner
        if factor is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # a pivot may be denormal
                K = K + cross.conj().T @ np.array([factor.solve(np.ascontiguousarray(column)) for column in cross.T]).T
            if not np.isfinite(K).all():
                return
        r = len(face.pivots)
        if r:
            P = np.linalg.inv(face.U[:, face.pivots])
            K = K.astype(np.result_type(K, P))
            K[:, :r] = K[:, :r] @ P
            K[:r] = P.conj().T @ K[:r]
        needs = 2 * np.abs(K).sum(axis=1)
        finite = y.copy()
        for need, row in zip(needs, owner, strict=True):
            a = 1 / row.divisor if isinstance(row, RankOne) else float(row.a[np.argmin(np.abs(row.a))])
            tau = max(float(need) / abs(a), abs(finite[row.row]))
            finite[row.row] = -math.copysign(tau, a)
        self.finite = finite

    def _failed(self, y: np.ndarray, t: float, reason: str) -> VerifiedBound:
        return self._answer(-math.inf, y, -math.inf, t, math.inf, 0.0, reason)

    def _answer(
        self, bound: float, final: np.ndarray, estimate: float, t: float, excess: float, residual: float, reason: str
    ) -> VerifiedBound:
        m, rounding = self.rows.m, estimate - bound if np.isfinite(bound) else 0.0
        return VerifiedBound(bound, final[:m], estimate, t, rounding, excess, self.count, final[m:], reason, residual, self.unattained)


def _definite_shift(form: SlackForm, tree: Any, weight: np.ndarray) -> tuple[float, np.ndarray, Factor | BorderedFactor | None, int]:
    """``(t, e, factor, factorisations)``: ``S + t diag(weight) >= -diag(e)``; t = inf and no factor where no t was found.

    A factorisation that breaks down shows a direction of nonpositive curvature, so the next t is above its quotient.
    """
    rows = np.asarray(abs(form.matrix).sum(axis=1)).ravel() + np.abs(form.diagonal) + form.rounding / UNIT
    size = float(np.max(rows / np.where(weight > 0, weight, np.inf), initial=0.0))
    t, failed, found, growth, refined = 0.0, 0.0, None, 3.0, 0
    for count in range(1, 61):  # noqa: B007 (returned)
        diagonal = form.diagonal + t * weight
        factor = form.factor(tree, diagonal)
        if factor.definite:
            found = t, factor.error_rows() + form.rounding + 4 * UNIT * np.abs(diagonal), factor
            if t <= 1e-14 * size:
                break
        else:
            v = factor.negative_direction()
            failed = max(failed, t, -form.quotient(v) / max(float(np.abs(v) ** 2 @ weight), 1e-300))
        if found is not None:  # between what failed and what held
            if found[0] <= 1.02 * failed or refined >= 8:
                break
            t, refined = math.sqrt(failed * found[0]) if failed > 0 else found[0] / 10, refined + 1
        elif not failed < 1e250 or not weight.any() or not t <= 1e6 * size:
            break
        else:
            t, growth = max(1.02 * failed, growth * t, 1e-15 * size, TINY / float(weight.max())), min(growth**2, 1e4)
    return (*found, count) if found is not None else (math.inf, form.rounding, None, count)


def sum_down(terms: np.ndarray) -> float:
    """A number not above the exact sum of the floats ``terms``."""
    total = math.fsum(terms)  # correctly rounded; exactly 0 for no terms at all
    return math.nextafter(total, -math.inf) if np.any(terms) else total


def sum_up(terms: np.ndarray) -> float:
    """A number not below the exact sum of the floats ``terms``."""
    return -sum_down(-np.asarray(terms))
