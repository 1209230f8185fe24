"""Rays that prove a problem infeasible or unbounded, checked from the caller's data (floor L6).

Infeasible: y, z >= 0 with ``A*(y) + A_geq*(z) <= 0`` (0 on free variables) and ``<b, y> + <b_geq, z> = 1``.  Least squares finds it: at a
minimiser X of ``|b - A(X)|^2 + |max(0, b_geq - A_geq(X))|^2`` the residual r is such a (y, z), up to scale, because the gradient
``-A*(r)`` is positive semidefinite and ``<A*(r), X> = 0``.  Unbounded: Z with ``A(Z) = 0, A_geq(Z) >= 0, <C, Z> = -1``, the same least
squares with residual 0.  Both run over a factor (`bmsdp.least_squares`), are polished by Newton steps, and, where that is not accurate
enough and CVXPY is there, start again from Clarabel.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .cone import Given, real_vector
from .dimacs import Primal, Slack, largest_entry
from .least_squares import System, fit, fits_exactly, newton_dual, newton_primal
from .linear_maps import MatrixMap, as_matrix_map
from .operators import as_operator
from .shift import trace_shift
from .verified import VerifiedBound, lower_bound

ROUNDING = 1e-12  # what counts as zero, relative to the terms that cancel in it
LARGEST = 1e4  # size of a ray, relative to the data, above which it may as well be a solution that is far away
INTERIOR_ROWS = 80  # rows of a block up to which Clarabel is asked


@dataclass(frozen=True)
class InfeasibilityRay:
    """Multipliers that leave no room for a feasible X.

    Attributes
    ----------
    dual, dual_geq : ndarray
        Scaled to ``<b, dual> + <b_geq, dual_geq> = 1``; ``dual_geq >= 0``.
    excess : float
        A number not below the largest eigenvalue of ``A*(dual) + A_geq*(dual_geq)`` on all blocks; every feasible X has trace of
        at least ``1 / excess`` (with free variables ``excess tr X + free_residual sum |x_f| >= 1``), none exists for ``excess <= 0``.
    free_residual : float
        Its largest entry on rows of free variables, in absolute value.
    size : float
        ``sum_j |y_j| |A_j|_F max_i(|b_i| / |A_i|_F)``, at least 1; large for what is feasible but far away.
    proved : bool
        `bmsdp.verified.lower_bound` proves that the cost 0 exceeds 0 on the feasible set: there is no feasible X.
    """

    dual: np.ndarray = field(repr=False)
    dual_geq: np.ndarray = field(repr=False)
    excess: float
    free_residual: float
    size: float
    proved: bool
    weight: float = field(repr=False, default=0.0)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """What `Result.ray` holds."""
        return {"dual": self.dual, "dual_geq": self.dual_geq}

    @property
    def good(self) -> bool:
        """Proved, or zero up to rounding and of moderate size."""
        return self.proved or self.defect <= ROUNDING * self.weight and self.size <= LARGEST

    @property
    def defect(self) -> float:
        """How far from a ray in exact arithmetic: the positive part of `excess`, or `free_residual`."""
        return max(self.excess, self.free_residual, 0.0)

    def __str__(self) -> str:
        if self.proved:
            return "a ray in the multipliers proves that no X is feasible"
        least = f"at least {1 / self.defect:.1e}" if self.defect > 0 else "beyond any bound"
        return f"a ray in the multipliers shows, up to rounding, that no X is feasible: its trace would be {least}"


@dataclass(frozen=True)
class UnboundednessRay:
    """A direction in which the cost falls for ever: ``X + t ZZ*`` is feasible where X is.

    Attributes
    ----------
    Y : ndarray, n x r
        The factor Z, scaled to ``<C, ZZ*> = -1`` (with `free`).
    free : ndarray
    residual : float
        ``max_j |A_j(Z)| / (|A_j|_F tr Z)`` and violations of ``A_geq(Z) >= 0`` likewise; every dual feasible (y, z) has
        ``sum_j |y_j| |A_j|_F + sum_i z_i |A_geq,i|_F >= 1 / (residual trace)``.
    trace : float
        ``|Y|^2 + sum |free|``.
    size : float
        ``max|C| trace``.
    proved : bool
        Newton's method converges from here to an exact ray (Kantorovich), rounding of the residual itself aside.
    """

    Y: np.ndarray = field(repr=False)
    free: np.ndarray = field(repr=False)
    residual: float
    trace: float
    size: float
    proved: bool

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """What `Result.ray` holds."""
        return {"Y": self.Y, "free": self.free}

    @property
    def good(self) -> bool:
        """Zero up to rounding, and of moderate size."""
        return self.residual <= ROUNDING and self.size <= LARGEST

    def __str__(self) -> str:
        known = "" if self.proved else ", up to rounding,"
        return f"the cost falls{known} along a direction Z with A(Z) = 0 (relative residual {self.residual:.1e}), where any X is feasible"


def infeasibility_ray(
    C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None, *, cvxpy: bool | None = None,
    max_iter: int = 3000,
) -> InfeasibilityRay | None:  # fmt: skip
    """Multipliers that prove that no X is feasible, or None: then nothing is said.

    Parameters
    ----------
    C, A, b, A_geq, b_geq, blocks
        As for `bmsdp.solve`; of C only the size counts.
    cvxpy : bool, optional
        Whether Clarabel may be asked; None: where it is installed and the blocks are small.
    max_iter : int
        L-BFGS iterations.
    """
    given = _with_matrices(Given.of(C, A, b, A_geq, b_geq, blocks))
    system = System.of(given)
    if not system.m_all or not system.beta:
        return None
    checker, r = _Checker(given), system.residual(*fit(system, max_iter))
    if float(r @ r) <= 1e-16:
        return None
    found = checker.search(r)
    if found is None and _may_ask(given, cvxpy):
        v = _clarabel_dual(given, system)
        found = None if v is None else checker.search(v)
    return found


def check_infeasibility_ray(
    C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None, *, dual: Any, dual_geq: Any = None
) -> InfeasibilityRay | None:
    """The quality of any multipliers as a ray; None where ``<b, dual> + <b_geq, max(0, dual_geq)>`` is not positive."""
    given = _with_matrices(Given.of(C, A, b, A_geq, b_geq, blocks))
    y, z = real_vector(dual, "dual", given.A.m), real_vector(dual_geq, "dual_geq", given.A_geq.m)
    return _Checker(given).look(y, z)


class _Checker:
    """Rays of infeasibility of one problem."""

    def __init__(self, given: Given):
        n = given.C.n
        cost = sp.csr_array((n, n), dtype=complex if given.is_complex else float)
        self.given, self.system = given._replace(C=as_operator(cost)), System.of(given)

    @cached_property
    def trace_shift(self) -> Any:
        given = self.given
        return trace_shift(given.A, given.b, given.A_geq, given.b_geq, given.C.n, given.blocks)

    def look(self, y: np.ndarray, z: np.ndarray) -> InfeasibilityRay | None:
        z = np.maximum(z, 0)
        value = float(self.given.b @ y + self.given.b_geq @ z)
        if not (np.isfinite(value) and value > 0):
            return None
        y, z = y / value, z / value
        slack = Slack(self.given, y, z)
        weight = float(np.abs(np.concatenate([y, z])) @ self.system.norms)
        free = float(np.abs(slack.on_free).max(initial=0.0))
        excess = -slack.eig_min() if self.given.cone.psd or len(self.given.cone.nonneg) else 0.0
        proved = self.proof(y, z, excess) is not None
        return InfeasibilityRay(y, z, excess, free, weight * self.system.beta, proved, weight)

    def proof(self, y: np.ndarray, z: np.ndarray, excess: float) -> VerifiedBound | None:
        """The proof that ``min <0, X>`` over the feasible set is above 0, if there is one."""
        given = self.given
        rows: dict[str, Any] = {"A_geq": given.A_geq, "b_geq": given.b_geq, "dual_geq": z, "blocks": given.blocks}
        try:
            found = lower_bound(given.C, given.A, given.b, y, **rows)
            if not found.bound > 0 and excess <= 1e-3 and self.trace_shift is not None:
                found = lower_bound(given.C, given.A, given.b, y, shift=self.trace_shift, **rows)
        except ValueError:  # too much fill-in
            return None
        return found if found.bound > 0 else None

    def search(self, v: np.ndarray) -> InfeasibilityRay | None:
        """The best ray near v (in the units of the system): as it is, polished, or as the proof has it."""
        best, m, norms = None, self.system.m, self.system.norms
        for kernel in (None, 1e-5, 1e-4, 1e-3, 1e-6, 1e-2):
            w = v if kernel is None else newton_dual(self.system, v, kernel)
            found = None if w is None else self.look(w[:m] / norms[:m], w[m:] / norms[m:])
            if found is None or not found.good:
                continue
            if found.proved and found.defect > 0:  # the proof's multipliers are negative semidefinite in exact arithmetic
                sure = self.proof(found.dual, found.dual_geq, found.excess)
                other = None if sure is None else self.look(sure.dual, sure.dual_geq)
                found = other if other is not None and other.good and other.defect < found.defect else found
            if best is None or found.defect < best.defect:
                best = found
            if best.defect <= ROUNDING * best.weight:
                break
        return best


def unboundedness_ray(
    C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None, *, cvxpy: bool | None = None,
    max_iter: int = 3000,
) -> UnboundednessRay | None:  # fmt: skip
    """A direction in which the cost falls for ever, or None: then nothing is said.

    Parameters are those of `infeasibility_ray`; b and b_geq do not count.  The cost is unbounded if, besides, any X is feasible.
    """
    given = _with_matrices(Given.of(C, A, b, A_geq, b_geq, blocks))
    row = _cost_row(given)
    if row is None or not row.rows.nnz:
        return None
    system = System.homogeneous(given, row)
    Y, free = fit(system, max_iter)
    found = _polished(given, system, Y, free)
    if found is None and _may_ask(given, cvxpy):
        point = _clarabel_primal(given)
        found = None if point is None else _polished(given, system, *point)
    return found


def _polished(given: Given, system: System, Y: np.ndarray, free: np.ndarray) -> UnboundednessRay | None:
    Y, free = newton_primal(system, Y, free)
    args = (given.C, given.A, given.b, given.A_geq, given.b_geq, given.blocks)
    found = check_unboundedness_ray(*args, Y=Y, free=free)
    return found if found is not None and found.good else None


def check_unboundedness_ray(
    C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None, *, Y: Any, free: Any = None
) -> UnboundednessRay | None:
    """The quality of any ``Z = YY*`` (and free variables) as a direction; None where the cost does not fall along it."""
    given = _with_matrices(Given.of(C, A, b, A_geq, b_geq, blocks))
    Z = Primal.of(Y, None, free, given.cone, given.C.n)
    fall = -Z.inner(given.C.mul)
    assert Z.Y is not None
    if not (np.isfinite(fall) and fall > 0):
        return None
    Z = Primal.of(Z.Y / np.sqrt(fall), None, Z.free / fall, given.cone, given.C.n)
    assert Z.Y is not None
    trace = float(np.linalg.norm(Z.Y)) ** 2 + float(np.abs(Z.free).sum())
    norms = System.of(given).norms
    off = np.concatenate([np.abs(Z.apply(given.A)), np.maximum(-Z.apply(given.A_geq), 0)])
    residual = float(np.max(off / (norms * trace), initial=0.0))
    row = _cost_row(given)
    proved = row is not None and fits_exactly(System.homogeneous(given, row), Z.Y, Z.free)
    return UnboundednessRay(Z.Y, Z.free, residual, trace, largest_entry(given.C) * trace, proved)


def _with_matrices(given: Given) -> Given:
    return given._replace(A=as_matrix_map(given.A), A_geq=as_matrix_map(given.A_geq))


def _cost_row(given: Given) -> MatrixMap | None:
    """C as a row; None where it has no entries, or too many."""
    C, n = given.C.matrix(), given.C.n
    if C is None and n <= 2000:
        C = given.C.mul(np.eye(n, dtype=given.C.dtype))
    return None if C is None else MatrixMap(sp.csr_array(sp.coo_array(C).reshape((1, n * n))), n)


def _may_ask(given: Given, cvxpy: bool | None) -> bool:
    largest = max([s.stop - s.start for s in given.cone.psd], default=0) * (2 if given.is_complex else 1)
    if cvxpy is None:
        return largest <= INTERIOR_ROWS and importlib.util.find_spec("cvxpy") is not None
    return cvxpy


def _clarabel_dual(given: Given, system: System) -> np.ndarray | None:
    """``max <b, v>`` over the cone of rays and the unit ball, in the units of the system."""
    from .interior_point import LMI, solve_lmi

    n = given.C.n
    A, A_geq = system.map.take(np.arange(system.m)), system.map.take(np.arange(system.m, system.m_all))
    zero = Given(as_operator(sp.csr_array((n, n))), A, system.rhs[: system.m], A_geq, system.rhs[system.m :], given.cone)
    status, v, _ = solve_lmi(LMI(zero, given.blocks), 0.0, 1e-9, None, ball=True)
    return v if status in ("solved", "inaccurate") and float(system.rhs @ v) > 1e-7 else None


def _clarabel_primal(given: Given) -> tuple[np.ndarray, np.ndarray] | None:
    """``min <C, X>`` over directions of unit trace (``sum |x_f|`` included), where that is negative."""
    from .interior_point import LMI, solve_lmi

    cone, n, f = given.cone, given.C.n, len(given.cone.free)
    where = np.concatenate([np.arange(n), cone.free])  # x_f = x+ - x-: the second copies go to the end
    sign = np.concatenate([np.ones(n), -np.ones(f)])

    def widened(M: Any) -> MatrixMap:
        E = sp.csr_array((sign[n:], (cone.free * n + cone.free, (n + np.arange(f)) * (n + f + 1))), shape=(n * n, (n + f) ** 2))
        rows = sp.csr_array((M.rows.data, (M.row_of, M.i * (n + f) + M.j)), shape=(M.m, (n + f) ** 2))
        return MatrixMap(sp.csr_array(rows + M.rows @ E), n + f)

    row, N = _cost_row(given), n + f
    assert row is not None and len(where) == N
    trace = MatrixMap(sp.csr_array((-np.ones(N), (np.zeros(N, int), np.arange(N) * (N + 1))), shape=(1, N * N)), N)
    blocks = [("nonneg" if kind == "free" else kind, size) for kind, size in given.blocks or [("psd", n)]] + ([("nonneg", f)] if f else [])
    C = sp.csr_array(widened(row).rows.reshape((N, N)))
    A_geq = MatrixMap.stack([widened(given.A_geq), trace]) if given.A_geq.m else trace
    wide = Given.of(C, widened(given.A), np.zeros(given.A.m), A_geq, np.append(np.zeros(given.A_geq.m), -1.0), blocks)
    lmi = LMI(wide, blocks)
    status, _, duals = solve_lmi(lmi, 0.0, 1e-9, None)
    if status not in ("solved", "inaccurate"):
        return None
    Y, _ = lmi.primal(duals)
    size = np.einsum("ij,ij->i", Y.conj(), Y).real
    free = size[cone.free] - size[n:]
    Y = Y[:n].copy()
    Y[cone.free] = 0
    keep = np.linalg.norm(Y, axis=0) > 1e-5 * np.linalg.norm(Y, axis=0).max(initial=0.0)
    keep[0] = True
    fall = -Primal.of(Y, None, free, cone, n).inner(given.C.mul)
    return (Y[:, keep] / np.sqrt(fall), free / fall) if fall > 1e-7 * largest_entry(given.C) else None
