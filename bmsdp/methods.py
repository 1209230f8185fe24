"""Which method runs, and what its outcome means for the caller's problem (floor L6)."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .augmented_lagrangian import augmented_lagrangian
from .cone import Given
from .interior_point import interior_point
from .manifolds import Quadratic, Unconstrained
from .manifolds.constant_rank import rank_report
from .minimize import check_start
from .outcome import estimated, outcome, to_caller
from .penalty import Penalty
from .perturbation import as_perturbation
from .presolved import Presolved, all_equalities, assemble_again
from .problem import Problem
from .result import Certificate, Result, Status
from .smoothed import smoothed
from .staircase import staircase, start_rank
from .theory.rank import barvinok_pataki

METHODS = ("auto", "manifold", "augmented_lagrangian", "interior_point")
FEW = 40  # rows up to which "auto" takes them as a manifold
SMALL_BLOCK = 250  # rows of a block up to which an interior-point method is chosen unasked: beyond, one solve takes minutes
MANY = 6000  # rows of A beyond which it is not
ADVICE = (
    'low-rank methods fail here (no attained multipliers, or no bound on X); method="interior_point" (pip install "bmsdp[cvxpy]") may do, '
    "in minutes for blocks of 300 rows"
)


class Asked(NamedTuple):
    """The keywords of `solve`."""

    method: str
    solver: Any
    warm_start: Any
    perturbation: Any
    seed: Any
    rng: np.random.Generator
    threads: int
    trace_bound: float | None
    options: dict[str, Any]
    report: Callable[[str], None]


def choose(state: Presolved, given: Given, method: str) -> tuple[str, str]:
    """The method, and why."""
    problem = state.problem
    if method == "interior_point":
        return method, "as asked"
    if not problem.terms:
        return "manifold", "the rows state a manifold"
    if method != "auto":
        return method, "as asked"
    parts = getattr(problem.manifold, "parts", [problem.manifold])
    bare = sum(part.n for part in parts if isinstance(part, Unconstrained)) > 0.5 * problem.n
    if bare and state.unbounded and fits_interior_point(given):
        return "interior_point", "no sphere was recognised and nothing bounds the trace"
    m = state.A.m + state.G.m
    if m <= FEW and not state.unbounded and not state.G.m and state.face is None:
        return "manifold", f"{m} rows: a quadratic manifold, if its rank is constant"
    return "augmented_lagrangian", f"{m} rows beside the recognised spheres"


def fits_interior_point(given: Given) -> bool:
    """Whether CVXPY is there and the blocks are small enough for it."""
    largest = max([s.stop - s.start for s in given.cone.psd], default=0)
    return largest <= SMALL_BLOCK and given.A.m + given.A_geq.m <= MANY and importlib.util.find_spec("cvxpy") is not None


def quadratic(state: Presolved, asked: Asked) -> tuple[Problem | None, str]:
    """The problem on a `Quadratic` manifold in presolved coordinates (inequalities with slack rows), or why not."""
    all_equalities(state)
    try:
        manifold = Quadratic(state.A, state.b)
        k = asked.options["rank"] or min(max(start_rank(Problem(state.C, manifold)), barvinok_pataki(manifold.m) + 1), state.A.n)
        report = rank_report(manifold, k, asked.rng)
    except ValueError as error:
        assemble_again(state)
        return None, str(error).split(";")[0]
    if not report.constant:
        assemble_again(state)
        return None, f"the rank of the constraints is not constant (row {report.offender} of the presolved ones)"
    problem = Problem(state.C, manifold, threads=state.problem.C.threads)
    return problem, f"{manifold.m} rows, a quadratic manifold of constant rank {report.rank}"


def run(state: Presolved, given: Given, warm: Any, asked: Asked) -> Result:
    """The result in the caller's coordinates, or an outcome without a solution."""
    chosen, why = choose(state, given, asked.method)
    for note in state.notes:
        asked.report(f"bmsdp: presolve: {note}")
    problem = state.problem
    if chosen == "manifold" and problem.terms:
        other, why = quadratic(state, asked)
        if other is None and asked.method == "manifold":
            raise ValueError(f'method="manifold" cannot be used: {why}; leave method="auto"')
        chosen, problem = ("augmented_lagrangian", state.problem) if other is None else (chosen, other)
    asked.report(f"bmsdp: method {chosen}: {why}")
    if chosen == "interior_point":
        result = by_interior_point(given, asked.options)
    else:
        Y = None if warm is None else started(warm, problem, state.warm, asked, given)
        if problem.terms and isinstance(warm, Result):
            problem = _warm_multipliers(state, problem, warm)
        result = closed(state, given, problem, Y, asked)
    if not result.success and result.status not in (Status.INTERRUPTED, Status.MAX_TIME, Status.MAX_ITER):
        result = conclude(state, given, result, asked)
    if result.status in (Status.LOCALLY_OPTIMAL, Status.STALLED) and result.certificate is not None:
        result = estimated(given, result, asked.options)
    kept = {"method": result.options.get("method", chosen), "why": why, "presolve": list(state.notes)}
    return dataclasses.replace(result, options=result.options | kept)


def closed(state: Presolved, given: Given, problem: Problem, Y: np.ndarray | None, asked: Asked) -> Result:
    """The result in the caller's terms, from a closer one where the gap is small only beside the constant that presolve took out."""
    method, tol = augmented_lagrangian if problem.terms else staircase, asked.options["tol"]
    mode: Any = "ignore" if state.unbounded else "warn"
    with np.errstate(over=mode, invalid=mode):
        inner = solved(method, problem, Y, asked)
    result = to_caller(state, given, inner)
    if not inner.success or result.success or not state.constant or asked.perturbation is not None:
        return result
    closer = max(0.3 * tol * min(abs(result.cost) / max(abs(inner.cost), abs(inner.bound)), 1.0), 1e-12)
    asked.report(f"bmsdp: once more to {closer:.1e}: the cost is small beside {state.constant:.3g}, which presolve took out")
    if problem.terms:
        problem = _warm_multipliers(state, problem, result)
    inner = solved(method, problem, inner.Y, asked._replace(options=asked.options | {"tol": closer}))
    again = to_caller(state, given, dataclasses.replace(inner, options=inner.options | {"tol": tol}))
    return again if again.gap < result.gap else result


def solved(method: Callable[..., Result], problem: Problem, Y: np.ndarray | None, asked: Asked) -> Result:
    """The staircase or the augmented Lagrangian, with a perturbation where that was asked for."""
    common = {"report": asked.report, "rng": asked.rng, **asked.options}
    if asked.perturbation is None:
        return method(problem, asked.solver, Y, **common)
    if method is not staircase:
        raise ValueError("perturbation needs constraints that form a manifold; these rows are held by an augmented Lagrangian")
    return smoothed(problem, asked.solver, Y, as_perturbation(asked.perturbation), **common)


def started(
    warm: Any, problem: Problem, enter: Callable[[np.ndarray], np.ndarray], asked: Asked, given: Given | None = None
) -> np.ndarray:
    """A feasible start in internal coordinates, with ``rank`` columns if that was given."""
    own = problem if given is None else Problem(given.C if not problem.C.is_complex else given.C.as_complex(), Unconstrained(given.C.n))
    Y, rank, rng = check_start(own, warm.Y if isinstance(warm, Result) else warm, "warm_start"), asked.options["rank"], asked.rng
    if rank is not None and Y.shape[1] > rank:
        raise ValueError(f"warm_start has {Y.shape[1]} columns but rank = {rank}; raise rank or drop columns")
    least = max(rank or 0, problem.manifold.min_rank, Y.shape[1])
    Y = enter(Y)
    if least > Y.shape[1]:  # new columns get noise: zero columns would stay zero
        more = rng.standard_normal((problem.n, least - Y.shape[1])) * 1e-2 * np.linalg.norm(Y) / np.sqrt(Y.size)
        Y = np.concatenate([Y, more.astype(problem.dtype)], axis=1)
    empty = np.asarray(~Y.any(axis=1))
    if empty.any():
        Y = np.where(empty[:, None], problem.random_point(Y.shape[1], rng), Y)
    return problem.manifold.retract(np.ascontiguousarray(Y, problem.dtype), np.zeros_like(Y, problem.dtype))


def described(problem: Problem) -> str:
    """What was recognised, in a line."""
    manifold, field = problem.manifold, "complex Hermitian" if problem.C.is_complex else "real symmetric"
    parts = [type(p).__name__ for p in getattr(manifold, "parts", [manifold])]
    kind = type(problem.C).__name__.removesuffix("Operator").lower() or "operator"
    beside = "".join(f" and {len(term.b)} general rows" for term in problem.terms if isinstance(term, Penalty))
    return f"n = {problem.n}, m = {manifold.m}, {field} {kind} C, manifold {' x '.join(parts)}{beside}"


def _warm_multipliers(state: Presolved, problem: Problem, warm: Result) -> Problem:
    """The problem with the multipliers of an earlier result, where its rows are these."""
    m, m_geq = state.sizes
    if len(warm.dual) != m or len(warm.dual_geq) != m_geq:
        return problem
    *others, term = problem.terms
    assert isinstance(term, Penalty)
    own = state.eq[state.rest] if len(state.rest) else np.zeros(0, np.int64)
    y = np.where(own >= 0, warm.dual[np.maximum(own, 0)], 0.0) if m else np.zeros(len(own))
    nu = np.concatenate([y, warm.dual_geq[state.geq]]) / term.scale
    return Problem(
        problem.C, problem.manifold, [*others, term.at(nu, warm.options.get("sigma", term.sigma))], cost_scale=problem.cost_scale,
        threads=problem.C.threads,
    )  # fmt: skip


def by_interior_point(given: Given, options: dict[str, Any]) -> Result:
    """Clarabel's answer, with the bound that is proved from its dual."""
    tol = options["tol"]
    found = interior_point(*given.arguments, tol=tol, max_time=options["max_time"])
    words = {"infeasible": Status.INFEASIBLE, "unbounded": Status.UNBOUNDED}
    if found.status not in ("solved", "inaccurate"):
        return outcome(given, words.get(found.status, Status.STALLED), f"interior point: {found.status}", options, found.time)
    from .check import primal_of

    cost, violation = primal_of(given, found.Y, found.free)
    gap_abs = cost - found.bound
    gap = gap_abs / max(abs(cost), abs(found.bound), 1e-300) if np.isfinite(found.bound) else np.inf
    proved = abs(gap) <= tol and violation <= tol
    status = Status.CERTIFIED if proved else Status.STALLED
    n = given.C.n
    proof = Certificate(
        bound=found.bound, gap=gap, gap_abs=gap_abs, eig_min=np.nan, eig_min_lower=0.0 if np.isfinite(found.bound) else -np.inf,
        vector=np.zeros(n), rigor="verified" if np.isfinite(found.bound) else "estimate", gap_rigor="estimate",
        failure_probability=0.0 if np.isfinite(found.bound) else np.nan, dual=found.dual, dual_geq=found.dual_geq,
    )  # fmt: skip
    base = outcome(given, status, status.value, options, found.time)
    return dataclasses.replace(
        base, Y=found.Y, free=found.free, cost=cost, bound=found.bound, gap=gap, dual=found.dual, dual_geq=found.dual_geq,
        certificate=proof, nit=found.solves,
    )  # fmt: skip


def conclude(state: Presolved, given: Given, result: Result, asked: Asked) -> Result:
    """Without a certificate: is the problem infeasible or unbounded, or one for an interior-point method?"""
    from .rays import infeasibility_ray, unboundedness_ray

    tol, says = asked.options["tol"], result.status
    if says is Status.INFEASIBLE or says is not Status.UNBOUNDED and result.options.get("infeasibility", 0.0) > tol:
        ray = infeasibility_ray(*given.arguments)
        if ray is not None:
            return _with_ray(result, given, Status.INFEASIBLE, ray, asked)
    if says is Status.UNBOUNDED or state.unbounded and says is not Status.INFEASIBLE:
        down = unboundedness_ray(*given.arguments)
        if down is not None:
            return _with_ray(result, given, Status.UNBOUNDED, down, asked)
    if says in (Status.INFEASIBLE, Status.UNBOUNDED):  # the solver says so, but no ray could be checked
        message = f"{result.message}; no ray could be checked"
        return dataclasses.replace(result, status=Status.STALLED, message=message, cost=np.nan, bound=-np.inf)
    kept = asked.method != "auto" or asked.options["rank"] is not None or not state.problem.terms and not state.unbounded
    if kept or says not in (Status.STALLED, Status.LOCALLY_OPTIMAL) or not result.options.get("stages"):
        return result
    if fits_interior_point(given):
        asked.report("bmsdp: the low-rank method stalls: handing over to an interior-point method")
        other = by_interior_point(given, asked.options)
        if other.success or abs(other.gap) < abs(result.gap):
            return dataclasses.replace(other, options=other.options | {"method": "interior_point"})
    elif result.options.get("hopeless", False):
        return dataclasses.replace(result, message=f"{result.message}; {ADVICE}")
    return result


def _with_ray(result: Result, given: Given, status: Status, ray: Any, asked: Asked) -> Result:
    asked.report(f"bmsdp: {status.name}: {ray}")
    found = outcome(given, status, f"{status.value.split(';')[0]}; {ray}", asked.options, result.time, ray.parts)
    return dataclasses.replace(found, options=result.options | found.options, nit=result.nit, products=result.products)
