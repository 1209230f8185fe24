"""Small and ill-conditioned problems handed to Clarabel through CVXPY in LMI form, with a bound that is proved (floor L6).

``max <b, y> + <b_geq, z>``, z >= 0, ``S = C - A*(y) - A_geq*(z)`` positive semidefinite on every block, nonnegative or zero on the rows
of variables: m unknowns, where the primal form has n^2.  X comes from the duals of the blocks.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .cone import Given
from .dimacs import Primal, Slack, largest_entry
from .least_squares import System, newton_primal
from .linear_maps import MatrixMap, as_matrix_map
from .shift import trace_shift
from .verified import lower_bound

# of Clarabel's linear systems, attempt by attempt: its default 1e-8 is robust, less of it is up to 10^4 times more accurate
REGULARIZATION = (1e-8, 1e-13, 1e-13, 1e-8, 1e-11, 1e-13)
FACTORS = (100.0, 1000.0, 10.0)  # traces of X and S that the solver is shown in later attempts: its tolerances are absolute


@dataclass(frozen=True)
class InteriorPoint:
    """What `interior_point` found.

    Attributes
    ----------
    Y : ndarray, n x k
        ``X = YY*`` on every block; zero on rows of free variables.
    free, dual, dual_geq : ndarray
    bound : float
        Not above the optimum, proved from ``dual`` and ``dual_geq``; -inf where that failed.
    status : str
        "solved", "inaccurate", "infeasible" or "unbounded" (of ``min <C, X>``; as the solver says, no proof), "failed".
    shift : float
        The bound's dual is that of ``C - shift I``.
    solves : int
    time : float
        Seconds.
    """

    Y: np.ndarray = field(repr=False)
    free: np.ndarray = field(repr=False)
    dual: np.ndarray = field(repr=False)
    dual_geq: np.ndarray = field(repr=False)
    bound: float
    status: str
    shift: float
    solves: int
    time: float


def import_cvxpy() -> Any:
    """The cvxpy module; ImportError naming the extra where it is absent."""
    try:
        import cvxpy
    except ImportError:
        raise ImportError('method="interior_point" needs CVXPY and Clarabel; pip install "bmsdp[cvxpy]" brings them') from None
    return cvxpy


class LMI:
    """The data of the LMI form: ``c - M v`` for all blocks at once, v = (y, z), scaled so that ``max|C| = max|b| = 1``."""

    def __init__(self, given: Given, blocks: Any):
        given = given._replace(A=as_matrix_map(given.A), A_geq=as_matrix_map(given.A_geq))
        self.given, self.blocks, cone, n = given, blocks, given.cone, given.C.n
        maps: list[Any] = [M for M in (given.A, given.A_geq) if M.m]
        empty = MatrixMap(sp.csr_array((0, n * n)), n)
        self.map = MatrixMap.stack(maps) if maps else empty
        self.rhs, self.m = np.concatenate([given.b, given.b_geq]), given.A.m
        self.size_C, self.size_b = largest_entry(given.C), float(np.abs(self.rhs).max(initial=0.0))
        self.scale_C, self.scale_b = self.size_C or 1.0, self.size_b or 1.0
        M = self.map
        order = np.argsort(cone.part[M.i], kind="stable")
        self._entries = (M.i[order], M.j[order], M.row_of[order], M.rows.data[order], cone.part[M.i[order]])

    def rows(self, at: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The entries ``(i, j, row, value)`` of a block, counted from its first row; ``at`` may also be diagonal places."""
        i, j, row, value, part = self._entries
        if isinstance(at, slice):
            use = slice(*np.searchsorted(part, [at.start, at.start + 1]))
            return i[use] - at.start, j[use] - at.start, row[use], value[use]
        place = np.full(self.map.n, -1)
        place[at] = np.arange(len(at))
        use = place[i] >= 0
        return place[i[use]], place[j[use]], row[use], value[use]

    def block(self, at: slice) -> tuple[np.ndarray, sp.csr_array]:
        """``(c, M)`` of one positive semidefinite block of s rows: s^2 rows, or 4 s^2 of its real embedding."""
        i, j, row, value = self.rows(at)
        s, C = at.stop - at.start, dense_block(self.given, at)
        if self.given.is_complex:
            C = np.block([[C.real, -C.imag], [C.imag, C.real]])
            i, j, row = np.concatenate([i, i + s, i + s, i]), np.concatenate([j, j + s, j, j + s]), np.tile(row, 4)
            value = np.concatenate([value.real, value.real, value.imag, -value.imag])
            s *= 2
        M = sp.csr_array((value.real, (i * s + j, row)), shape=(s * s, max(self.map.m, 1)))
        return C.real.ravel(), M

    def variables(self, at: np.ndarray) -> tuple[np.ndarray, sp.csr_array]:
        """``(c, M)`` of variables on the diagonal."""
        i, _, row, value = self.rows(at)
        E = np.zeros((self.map.n, 1), self.given.C.dtype)
        E[at] = 1
        return self.given.C.mul(E)[at, 0].real, sp.csr_array((value.real, (i, row)), shape=(len(at), max(self.map.m, 1)))

    def primal(self, duals: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        """``(Y, free)`` from the multipliers of the blocks, of the nonnegative and of the free variables."""
        cone, n = self.given.cone, self.map.n
        *blocks, nonneg, free = duals
        parts = [(at, _root(_matrix(X, self.given.is_complex))) for at, X in zip(cone.psd, blocks, strict=True)]
        k = max([1, *(root.shape[1] for _, root in parts)])
        Y = np.zeros((n, k), complex if self.given.is_complex else float)
        for at, root in parts:
            Y[at, : root.shape[1]] = root
        if nonneg is not None:
            Y[cone.nonneg, 0] = np.sqrt(np.maximum(nonneg, 0))
        return Y, np.zeros(0) if free is None else free


def _matrix(X: np.ndarray | None, is_complex: bool) -> np.ndarray:
    assert X is not None
    X = (X + X.T) / 2
    if not is_complex:
        return X
    s = len(X) // 2
    return X[:s, :s] + X[s:, s:] + 1j * (X[s:, :s] - X[:s, s:])


def _root(X: np.ndarray) -> np.ndarray:
    """L with ``LL*`` the nearest positive semidefinite matrix to X, columns that are rounding left out."""
    values, vectors = np.linalg.eigh(X)
    keep = values > 1e-14 * max(values[-1], 0.0)
    return np.asarray(vectors[:, keep] * np.sqrt(values[keep]))[:, ::-1]


def dense_block(given: Given, at: slice) -> np.ndarray:
    """The diagonal block of C, dense."""
    matrix = given.C.matrix()
    if matrix is None:
        return given.C.mul(np.eye(given.C.n, dtype=given.C.dtype)[:, at])[at]
    part = matrix[at, at]
    return part.toarray() if sp.issparse(part) else np.asarray(part)


def solve_lmi(
    lmi: LMI, shift: float, tol: float, max_time: float | None, *, ball: bool = False, regularization: float = 1e-8
) -> tuple[str, np.ndarray, list[np.ndarray | None]]:
    """``(status, v, duals)`` of the LMI with ``C - shift I``, or over ``|v|_2 <= 1``; NaN where the solver returned none."""
    cp = import_cvxpy()
    cone, m_all = lmi.given.cone, lmi.map.m
    v = cp.Variable(max(m_all, 1))
    constraints: list[Any] = []
    for at in cone.psd:
        c, M = lmi.block(at)
        s = math.isqrt(len(c))
        c[:: s + 1] -= shift
        constraints.append(cp.reshape(c / lmi.scale_C - M @ v, (s, s), order="C") >> 0)
    singles: list[Any] = [None, None]
    if len(cone.nonneg):
        c, M = lmi.variables(cone.nonneg)
        singles[0] = (c - shift) / lmi.scale_C - M @ v >= 0
    if len(cone.free):
        c, M = lmi.variables(cone.free)
        singles[1] = c / lmi.scale_C - M @ v == 0
    sign = [v[lmi.m : m_all] >= 0] if m_all > lmi.m else []
    sign += [cp.norm(v) <= 1] if ball else []
    rhs = lmi.rhs / lmi.scale_b if m_all else np.zeros(1)
    problem = cp.Problem(cp.Maximize(rhs @ v), constraints + [c for c in singles if c is not None] + sign)
    settings = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tol) | ({"time_limit": max_time} if max_time else {})
    settings |= {"static_regularization_constant": regularization, "iterative_refinement_max_iter": 10 if regularization >= 1e-8 else 50}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Solution may be inaccurate": the status says so
        try:
            problem.solve(solver=cp.CLARABEL, **settings)
        except cp.error.SolverError:
            return "failed", np.full(m_all, np.nan), []
    words = {"optimal": "solved", "optimal_inaccurate": "inaccurate", "user_limit": "inaccurate"}
    words |= {"infeasible": "unbounded", "unbounded": "infeasible"}
    word = words.get(problem.status.removesuffix("_inaccurate") if "unb" in problem.status or "inf" in problem.status else problem.status)
    if v.value is None or word not in ("solved", "inaccurate"):
        return word or "failed", np.full(m_all, np.nan), []
    duals = [c.dual_value * lmi.scale_b for c in constraints]
    signs = (1.0, -1.0)  # of a maximum, CVXPY's dual of an equation is minus the multiplier
    duals += [None if c is None else s * np.atleast_1d(c.dual_value) * lmi.scale_b for s, c in zip(signs, singles, strict=True)]
    return word, v.value[:m_all] * lmi.scale_C, duals


def interior_point(
    C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None, *, tol: float = 1e-6,
    max_time: float | None = None, attempts: int = 6,
) -> InteriorPoint:  # fmt: skip
    """Solve with Clarabel, and prove a bound.

    Where the slack of the solver's dual is not positive definite, as a factorisation with error bounds sees it, the cost becomes
    ``C - shift I`` with growing shifts; where X or S came out large or small, the data are scaled by their traces.

    Parameters
    ----------
    C, A, b, A_geq, b_geq, blocks
        As for `bmsdp.solve`; ``A = None`` without blocks and A_geq is a unit diagonal.
    tol : float
        Relative gap and DIMACS errors aimed at.
    max_time : float, optional; seconds
    attempts : int
        Solves, at most.

    Raises
    ------
    ImportError
        Without CVXPY.
    """
    import_cvxpy()
    start, lmi = time.perf_counter(), LMI(Given.of(C, A, b, A_geq, b_geq, blocks), blocks)
    state, shift, low, growth, solves, plan = _State(lmi, tol), 0.0, 0.0, 1.0, 0, list(REGULARIZATION)
    best = math.inf
    while plan and solves < attempts:
        left = None if max_time is None else max_time - (time.perf_counter() - start)
        if left is not None and left <= 0:
            break
        if low and solves > 1:  # the second attempt is the first again, more accurate: it may need no shift
            shift, growth, low = max(shift, low * growth), 2 * growth, 0.0
        regularization, solves = plan.pop(0), solves + 1
        status, v, duals = solve_lmi(lmi, shift, min(1e-8, tol / 100) if solves == 1 else 1e-9, left, regularization=regularization)
        if status not in ("solved", "inaccurate"):
            if solves == 1:
                state.status = status
            if status != "failed" and len(state.points) == 1:  # nothing but rays so far
                break
            plan = [r for r in plan if r != regularization]
            continue
        wanted, trace_S, trace_X = state.take(status, v, duals, shift)
        if state.latest <= 10 * best:  # what a poor solve lacks is no guide
            low, best = wanted, min(best, state.latest)
        if state.done or state.idle >= 3:
            break
        if solves > 1 and state.latest > 10 * tol:  # with other scales than these, not only with a shift
            factor = FACTORS[(solves - 1) % len(FACTORS)]
            lmi.scale_C, lmi.scale_b = max(trace_S / factor, 1e-9 * lmi.size_C), max(trace_X / factor, 1e-9 * lmi.size_b)
    return state.result(solves, time.perf_counter() - start)


class _Point(NamedTuple):
    Y: np.ndarray
    free: np.ndarray
    cost: float
    residual: float
    status: str


class _State:
    """All primal points so far, and the best proved dual."""

    def __init__(self, lmi: LMI, tol: float):
        n, m = lmi.map.n, lmi.map.m
        self.lmi, self.tol, self.status, self.shift = lmi, tol, "failed", 0.0
        self.system, self.idle, self.before = System.of(lmi.given), 0, math.inf
        self.points = [_Point(np.zeros((n, 1)), np.zeros(len(lmi.given.cone.free)), math.nan, math.inf, "failed")]
        self.v, self.bound, self.lack, self.settled = np.full(m, np.nan), -math.inf, math.inf, False
        self.latest = math.inf  # residual and gap of the latest solve alone

    def take(self, status: str, v: np.ndarray, duals: list[np.ndarray | None], shift: float) -> tuple[float, float, float]:
        """``(shift wanted, tr S, tr X)`` of one solve."""
        lmi, given = self.lmi, self.lmi.given
        v[lmi.m :] = np.maximum(v[lmi.m :], 0)
        Y, free = lmi.primal(duals)
        for point in ((Y, free), refined(self.system, Y, free)):
            X = Primal(point[0], point[0], point[1], given.cone)
            rows = np.concatenate([X.apply(given.A) - given.b, np.minimum(X.apply(given.A_geq) - given.b_geq, 0)])
            residual = float(np.linalg.norm(rows)) / (1 + lmi.size_b)
            self.points.append(_Point(*point, X.inner(given.C.mul), residual, status))
        slack, cost = Slack(given, v[: lmi.m], v[lmi.m :]), self.points[-1].cost
        low = slack.eig_min(Y)
        lack = (max(-low, 0.0) + float(np.abs(slack.on_free).max(initial=0.0))) / max(lmi.size_C, 1e-300)
        lack += abs(cost - float(lmi.rhs @ v)) / max(abs(cost), 1e-300)
        bound, exact = self.proved(v)
        if bound > self.bound or self.bound == -math.inf and lack < self.lack:
            self.v, self.bound, self.lack, self.shift = exact, bound, lack, shift
        # equations of free variables hold up to rounding: a shift is no help there
        # not tight: a bound on the trace paid for an indefinite S, and that may cost far more than a shift
        tight = np.isfinite(bound) and bound >= float(lmi.rhs @ v) - 0.3 * self.tol * max(abs(cost), abs(bound))
        settled = bool(tight) or len(slack.on_free) > 0 and low > 1e-12 * lmi.size_C
        self.settled = self.settled or settled
        value, now = float(lmi.rhs @ v), self.error(self.best)
        self.latest = min(max(p.residual, abs(p.cost - value) / max(abs(p.cost), abs(value), 1e-300)) for p in self.points[-2:])
        self.idle, self.before = (0 if now < 0.5 * self.before else self.idle + 1), min(now, self.before)
        wanted = 0.0 if settled else shift + 1.2 * max(-low, 1e-12 * lmi.size_C)
        return wanted, slack.trace, float(np.linalg.norm(Y)) ** 2 + float(np.abs(free).sum())

    @cached_property
    def trace_shift(self) -> Any:
        """Multipliers that bound the trace of X, if there are any."""
        given = self.lmi.given
        return trace_shift(given.A, given.b, given.A_geq, given.b_geq, given.C.n, self.lmi.blocks)

    def proved(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """``(bound, multipliers)`` by `bmsdp.verified.lower_bound`; -inf where nothing is proved."""
        given, m = self.lmi.given, self.lmi.m
        rows: dict[str, Any] = {"A_geq": given.A_geq, "b_geq": given.b_geq, "dual_geq": v[m:], "blocks": self.lmi.blocks}
        try:
            found = lower_bound(given.C, given.A, given.b, v[:m], **rows)
            if not np.isfinite(found.bound) and self.trace_shift is not None:
                found = lower_bound(given.C, given.A, given.b, v[:m], shift=self.trace_shift, **rows)
        except ValueError:  # no entries of C, or too much fill-in
            return -math.inf, v
        return (found.bound, np.concatenate([found.dual, found.dual_geq])) if np.isfinite(found.bound) else (-math.inf, v)

    @property
    def value(self) -> float:
        """The bound, or the dual value where nothing is proved."""
        return self.bound if np.isfinite(self.bound) else float(self.lmi.rhs @ self.v)

    def error(self, point: _Point) -> float:
        """The larger of residual and relative gap."""
        gap = abs(point.cost - self.value) / max(abs(point.cost), abs(self.value), 1e-9 * self.lmi.size_C, 1e-300)
        return max(point.residual, gap) if np.isfinite(gap) else math.inf

    @property
    def best(self) -> _Point:
        return min(self.points, key=self.error)

    @property
    def done(self) -> bool:
        return self.settled and self.error(self.best) <= 0.3 * self.tol

    def result(self, solves: int, seconds: float) -> InteriorPoint:
        m, best = self.lmi.m, self.best
        status = best.status if best.status != "failed" else self.status
        return InteriorPoint(best.Y, best.free, self.v[:m], self.v[m:], self.bound, status, self.shift, solves, seconds)


def refined(system: System, Y: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X moved onto its rows by the shortest steps."""
    beta = system.beta or 1.0
    Y, free = newton_primal(system, Y / math.sqrt(beta), free / beta, steps=8)
    return Y * math.sqrt(beta), free * beta
