"""The Riemannian staircase: minimise at a small rank, certify, escape along negative curvature, grow (floor L5).

Boumal, "A Riemannian low-rank method for optimization over semidefinite matrices with block-diagonal constraints" (2015).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .certificate import certify as prove
from .certificate import provable
from .curvature import ESCAPES, curvature, descent_along, escape_saddle
from .manifolds.base import gaussian, inner
from .minimize import Record, Solver, descend, second_order_report, versions
from .problem import NO_SLACK, LocalModel, Problem
from .rank_reduction import shrunk
from .result import Certificate, Data, Result, Status
from .solvers import Default
from .theory.rank import barvinok_pataki

FIRST_LOOK = 1e-4  # relative gradient at which the first certificate is asked for
CURVED = 1.0  # curvature counts as real when it promises this many times what the gradient does
RESERVE = 0.25  # part of max_time kept for the last certificate, where Lanczos has to give it
SMALL = 0.02  # columns (in the singular basis) this far below the largest count as free for new directions


def start_rank(problem: Problem) -> int:
    """``min(ceil(2 ln(n + 1)), Barvinok-Pataki)``, at least 2 and d + 1 on Stiefel blocks; above 8 in steps of 8 (vector units)."""
    manifold, n = problem.manifold, problem.n
    k = min(int(np.ceil(2 * np.log(n + 1))), barvinok_pataki(manifold.m, complex=problem.C.is_complex))
    k = max(k, 2, manifold.min_rank + 1 if manifold.min_rank > 1 else 1)
    return min(_padded(k), n)


def _padded(k: int) -> int:
    return k if k <= 8 else -(-k // 8) * 8


class _Stair:
    """The state of one staircase: the certificate asked for inside `descend`, and what it decided."""

    def __init__(
        self, tol: float, rigor: str | None, rng: np.random.Generator, record: Record, keep: bool, second_order: tuple[float, float] | None
    ):
        self.tol, self.rigor, self.rng, self.record, self.keep, self.eps = tol, rigor, rng, record, keep, second_order
        self.second_order: dict[str, Any] | None = None
        self.escapes = 0
        self.certificate: Certificate | None = None  # of the last point
        self.best: Certificate | None = None  # the highest bound met: a bound holds whatever point it came from
        self.guesses = 0
        self.curved = False
        self.lower: np.ndarray | None = None  # a start of fewer columns, from where to go on
        self.may_drop, self.dropped = not keep, False
        self.stages: list[dict[str, Any]] = []

    def check(self, model: LocalModel) -> float | None:
        """Certify where `descend` stands: None to stop (proved, or curved), else the gradient to try for next."""
        if self.rigor is None:
            return None
        size = model.grad_norm / model.grad_scale if model.grad_scale > 0 else 0.0
        found = self.prove(model, final=False)
        self.curved = found.gap > self.tol and is_curved(model, found)
        can = provable(model.problem)
        if found.gap <= self.tol or not can and size <= self.tol:
            return None
        if self.curved and (not self.keep or model.grad_norm <= self.critical(model)):
            return None
        if size <= 1e-13:
            return None
        self.lower = self.drop(model, found) if self.may_drop and not self.curved else None
        if self.lower is not None:
            return None
        if not can:
            return 0.1 * size
        scale = max(abs(model.cost), model.cost_scale)
        missing = (model.cost - model.dual_value - min(found.eig_min, 0.0) * model.problem.n) / scale
        if missing <= 0.1 * self.tol and size <= 0.01 * self.tol:
            return None  # the point is good: what lacks is resolution of the eigenvalue bound, which descent cannot mend
        missing = found.gap if np.isfinite(found.gap) else missing
        return size * float(np.clip(np.sqrt(self.tol / max(missing, self.tol)), 0.35, 0.7))

    def drop(self, model: LocalModel, found: Certificate) -> np.ndarray | None:
        """The point at the numerical rank, where that is clear and a quarter of the columns is enough; zero columns fill up vectors.

        Below that saving it does not pay: fewer columns cost their solver its history.
        """
        k = model.Y.shape[1]
        lower = shrunk(model, model.cost - model.dual_value - min(found.eig_min, 0.0) * model.problem.n)
        rank = lower.Y.shape[1] if lower is not None else k
        width = rank if rank <= 2 else -(-rank // 4) * 4 if rank <= 8 else _padded(rank)
        if lower is None or 4 * width > k:
            return None
        self.record.report(f"{k:5d} columns have numerical rank {rank}: going on with {width}")
        return np.pad(lower.Y, ((0, 0), (0, width - rank)))

    def critical(self, model: LocalModel) -> float:
        """The gradient norm that counts as zero at a kept rank."""
        return self.eps[0] if self.eps is not None else min(self.tol, 1e-6) * model.grad_scale

    def saddle(self, model: LocalModel) -> np.ndarray | None:
        """At a kept rank: a lower point along negative curvature of the Hessian; None at a second-order point."""
        eps_H = self.eps[1] if self.eps is not None else 1e-6 * model.problem.norm_C
        steps = 1024 if self.eps is not None else 256
        found = curvature(model, eps_H, self.rng, max_steps=steps, stop=self.record.out_of_time)
        self.record.products += found.products
        self.second_order = second_order_report(model, found, self.critical(model), eps_H, self.escapes)
        if found.value >= -eps_H or self.escapes >= ESCAPES:
            return None
        trial, spent = escape_saddle(model, found)
        self.record.products += spent
        self.escapes += 1
        return None if trial is None else trial.Y

    def prove(self, model: LocalModel, final: bool) -> Certificate:
        assert self.rigor is not None
        record = self.record
        found = prove(model, self.tol, self.rigor, self.rng, final=final, vectors=8, stop=record.out_of_time)
        self.certificate = found
        record.reserve = 0.0 if found.rigor == "verified" or model.problem.cache.get("elimination") is not None else RESERVE
        self.guesses += found.rigor == "probabilistic"
        if self.best is None or found.bound > self.best.bound:
            self.best = found
        self.stages.append({
            "rank": model.Y.shape[1], "products": record.products, "time": record.elapsed, "cost": model.cost, "bound": found.bound,
            "gap": found.gap, "eig_min": found.eig_min, "rigor": found.rigor,
        })  # fmt: skip
        record.report(
            f"{model.Y.shape[1]:5d} {record.products:9d} {record.elapsed:8.2f} {model.cost:18.10g} "
            + (f"{found.bound:18.10g} {found.gap:9.1e}" if np.isfinite(found.bound) else f"{'none yet':>18} {'':>9}")
            + f" {found.eig_min:9.1e}  {found.rigor if np.isfinite(found.bound) else ''}"
        )
        return found


TABLE = " rank  products  seconds               cost              bound       gap   eig_min  bound is"


def staircase(
    problem: Problem,
    solver: Solver | None = None,
    Y: np.ndarray | None = None,
    *,
    rank: int | None = None,
    tol: float = 1e-6,
    certify: str | None = "auto",
    max_iter: int | None = None,
    max_time: float | None = None,
    callback: Callable[[LocalModel, dict[str, Any]], object] | None = None,
    progress: bool | None = None,
    report: Callable[[str], None] | None = None,
    second_order: tuple[float, float] | None = None,
    look: float | None = None,
    rng: Any = None,
) -> Result:
    """Solve to a certified relative gap of ``tol``.

    Parameters
    ----------
    solver : Solver, optional
        `Default` when absent.
    Y : ndarray, n x k, optional
        Feasible start.
    rank : int, optional
        Kept when given; else it starts at `start_rank` and grows by half, or as many columns as there are negative Ritz vectors.
    certify : str or None
        Rigor of the certificate; None for none.
    report : callable, optional
        Receives the lines of a fixed-width table, one a certificate.
    second_order : (eps_g, eps_H), optional
        At a kept rank: what counts as a second-order point where the gap cannot be proved.  By default a relative gradient of
        ``min(tol, 1e-6)`` and curvature above ``-1e-6 norm_C``, as far as 256 Lanczos steps see it.
    look : float, optional
        Relative gradient at which the first certificate is asked for, 1e-4 or tol by default; less where the solver is faster than that.

    Returns
    -------
    Result
        ``options["stages"]`` is the table of certificates.
    """
    solver = Default() if solver is None else solver
    generator = np.random.default_rng(rng)
    if Y is None:
        Y = problem.random_point(start_rank(problem) if rank is None else rank, generator)
    record = Record(max_iter, max_time, callback, progress, report)
    stair = _Stair(tol, certify, generator, record, rank is not None, second_order)
    record.report(TABLE)
    try:
        model, status = _climb(problem, solver, Y, stair, max(FIRST_LOOK, tol) if look is None else look)
    finally:
        record.close()
    return _finish(problem, model, status, stair, solver, rank)


def _climb(problem: Problem, solver: Solver, Y: np.ndarray, stair: _Stair, look: float) -> tuple[LocalModel, Status]:
    """Descend, certify, escape, until the gap is proved, no stair is left, or a limit is reached."""
    look = look if stair.rigor is not None else stair.tol
    while True:
        model, status = descend(problem, solver, Y, look, stair.record, stair.check)
        if stair.lower is not None and status in (Status.LOCALLY_OPTIMAL, Status.STALLED):
            stair.dropped = True
            Y, stair.lower, look = stair.lower, None, 0.5 * model.grad_norm / model.grad_scale
            continue
        full = Y.shape[1] >= problem.n and free_columns(model.Y) == 0
        if status not in (Status.LOCALLY_OPTIMAL, Status.STALLED) or not stair.curved or full and not stair.keep:
            break
        assert stair.certificate is not None
        if stair.keep:
            lower = stair.saddle(model)
            if lower is None:
                break
            Y, look = lower, stair.critical(model) / model.grad_scale
            continue
        stair.may_drop = stair.may_drop and not stair.dropped  # up again once, then no further down
        Y = escape(model, stair.certificate, stair.rng)
        look = min(look, max(0.3 * model.grad_norm / model.grad_scale, 1e-13))
    limited = status in (Status.MAX_TIME, Status.MAX_ITER, Status.INTERRUPTED)
    known = stair.best is not None and stair.best.bound > -np.inf and stair.record.out_of_time()
    proved = stair.certificate is not None and stair.certificate.gap <= stair.tol
    if stair.rigor is not None and not proved and not (limited and known):
        try:
            stair.prove(model, final=True)
        except KeyboardInterrupt:  # the point stands, without the certificate
            status = Status.INTERRUPTED
    return model, status


def is_curved(model: LocalModel, found: Certificate) -> bool:
    """Whether curvature outside the range of Y promises more than the gradient does (cf. bound G1 of the theory)."""
    if not found.escape.shape[1]:
        return False
    v = np.ascontiguousarray(found.escape[:, :1])
    lost = -inner(v, model.slack_mul(v)) * model.problem.n
    return lost > CURVED * model.grad_norm * np.sqrt(model.trace)


def free_columns(Y: np.ndarray) -> int:
    """How many columns of Y are null, in its singular basis."""
    square = np.linalg.eigvalsh(Y.conj().T @ Y)
    return int(np.sum(square <= SMALL**2 * square[-1]))


def escape(model: LocalModel, certificate: Certificate, rng: np.random.Generator) -> np.ndarray:
    """A feasible point of lower cost: directions V of negative curvature in S added to null columns of Y, or to new ones.

    Where column j of Y is 0, the direction ``v e_j*`` is tangent and the cost changes by ``s^2 v* S v + O(s^4)``.  Y is rotated to its
    singular basis first, so that all null columns show; new columns without a direction get noise, because zero columns
    stay zero.
    """
    problem, (n, k) = model.problem, model.Y.shape
    Y = model.Y @ np.linalg.eigh(model.Y.conj().T @ model.Y)[1][:, ::-1]
    free = free_columns(Y)
    directions = certificate.escape if certificate.escape.shape[1] else certificate.vector[:, None]
    wanted = directions.shape[1]
    new = k if 2 * free >= wanted else min(n, _padded(k + max(wanted, k // 4)))
    first = k - free
    directions = directions[:, : new - first]
    step = np.zeros((n, new), problem.dtype)
    step[:, first:] = 1e-3 * gaussian(rng, (n, new - first), problem.dtype) / np.sqrt(n)
    step[:, first : first + directions.shape[1]] = directions / np.linalg.norm(directions, axis=0)
    step *= np.sqrt(model.trace / directions.shape[1])
    wide = np.concatenate([Y, np.zeros((n, new - k), problem.dtype)], axis=1)
    best, _ = descent_along(problem, wide, step, model.merit)
    return best.Y if best is not None else problem.manifold.retract(wide, step / 2**30)


def _best_bound(model: LocalModel, stair: _Stair) -> Certificate | None:
    """The last certificate, with the highest bound met on the way where that is higher."""
    found, best = stair.certificate, stair.best
    if found is None or best is None or best is found or not best.bound > found.bound:
        return found
    gap_abs = model.cost - best.bound
    return dataclasses.replace(
        found, bound=best.bound, gap=gap_abs / max(abs(model.cost), abs(best.bound), model.cost_scale), gap_abs=gap_abs,
        eig_min_lower=best.eig_min_lower, rigor=best.rigor, gap_rigor="estimate", dual=best.dual,
        failure_probability=best.failure_probability * max(stair.guesses, 1),
    )  # fmt: skip


def _finish(
    problem: Problem, model: LocalModel, status: Status, stair: _Stair, solver: Solver, rank: int | None
) -> Result:
    record, found = stair.record, _best_bound(model, stair)
    if found is not None and found.gap <= stair.tol and model.infeasibility <= stair.tol:
        status = Status.ESTIMATED if found.rigor == "estimate" else Status.CERTIFIED
    elif status in (Status.LOCALLY_OPTIMAL, Status.STALLED) and stair.curved:
        status = Status.RANK_TOO_SMALL
    elif status is Status.LOCALLY_OPTIMAL and found is not None and found.bound > -np.inf:
        status = Status.STALLED
    if found is not None and record.rows:
        record.rows[-1] = (*record.rows[-1][:-1], found.gap)
    message = status.value
    if stair.rigor is None and status is Status.LOCALLY_OPTIMAL:
        message = "critical point; no certificate was asked for"
    if problem.opaque is not None and status is Status.LOCALLY_OPTIMAL:
        message = NO_SLACK.format(problem.opaque)
    options = {"solver": repr(solver), "rank": rank, "tol": stair.tol, "certify": stair.rigor, "stages": stair.stages}
    return Result(
        Y=model.Y, cost=model.cost, bound=found.bound if found else -np.inf, gap=found.gap if found else np.inf,
        dual=found.dual if found else model.mu, dual_geq=np.zeros(0), status=status, message=message, nit=record.nit,
        products=record.products, time=record.elapsed, history=record.history(), certificate=found, options=options,
        versions=versions(), data=Data(problem.C, problem.manifold, problem.manifold.b),
        second_order=stair.second_order,
    )  # fmt: skip
