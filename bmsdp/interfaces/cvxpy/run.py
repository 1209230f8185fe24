"""From a `Program` to an `Outcome`: translate, `bmsdp.solve`, recover; statuses, options and warm starts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dimacs import DimacsErrors, dimacs
from ...result import Result, Status
from ...sdp import solve
from .conic import Program
from .merge import merged
from .standard import translate

OPTIONS = frozenset(
    "rank tol rng max_time method solver perturbation certify threads trace_bound callback progress warm_start form".split()
)
SUITABLE = {
    Status.CERTIFIED: "optimal",
    Status.ESTIMATED: "optimal",
    Status.RANK_TOO_SMALL: "optimal_inaccurate",
    Status.LOCALLY_OPTIMAL: "optimal_inaccurate",
    Status.STALLED: "optimal_inaccurate",
    Status.MAX_ITER: "user_limit",
    Status.MAX_TIME: "user_limit",
    Status.INTERRUPTED: "user_limit",
    Status.INFEASIBLE: "infeasible",
    Status.UNBOUNDED: "unbounded",
}
VIOLATION = 1e-3
OTHER = {"infeasible": "unbounded", "unbounded": "infeasible"}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What CVXPY is told: a status of its own, a solution where there is one, and the result it came from."""

    status: str
    value: float
    solution: Any
    result: Any
    setup_time: float
    solve_time: float
    iterations: int | None


def status_of(status: Status, form: str) -> str:
    """CVXPY's word for a status; an infeasible dual is an unbounded primal, and the other way round."""
    word = SUITABLE[status]
    return OTHER.get(word, word) if form == "dual" else word


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """ValueError for what `bmsdp.solve` does not take from here."""
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise ValueError(f"{unknown[0]} = {options[unknown[0]]!r} is no option of bmsdp; it takes {', '.join(sorted(OPTIONS))}")
    return dict(options)


def run(program: Program, options: dict[str, Any], *, verbose: bool = False, cache: dict[str, Any] | None = None) -> Outcome:
    """Solve a program.

    Parameters
    ----------
    program : Program
    options : dict
        Keywords of `bmsdp.solve`, and ``form``: "auto", "primal" or "dual", see `translate`.
    verbose : bool
    cache : dict, optional
        Kept between the solves of one problem: the last result, from which a problem of the same shape starts.
    """
    options, start = check_options(options), time.perf_counter()
    if program.contradiction:
        return refused(program.contradiction, start)
    smaller, restore = merged(program)
    if smaller.contradiction:
        return refused(smaller.contradiction, start)
    form = translate(smaller, options.pop("form", "auto"))
    outcome = solve_form(form, lambda solution: float(smaller.c @ solution.x), options, verbose=verbose, cache=cache, start=start)
    return outcome if outcome.solution is None else dataclasses.replace(outcome, solution=restore(outcome.solution))


def refused(contradiction: str, start: float) -> Outcome:
    """The outcome of a problem with a row that cannot hold."""
    return Outcome("infeasible", np.inf, None, {"message": contradiction}, time.perf_counter() - start, 0.0, None)


def solve_form(
    form: Any, value: Callable[[Any], float], options: dict[str, Any], *, verbose: bool, cache: dict[str, Any] | None, start: float
) -> Outcome:  # fmt: skip
    """Solve a standard form and recover its solution, whose value is ``value(solution)``; the clock ran from ``start``."""
    setup = time.perf_counter() - start
    if options.get("warm_start") is None:
        options = options | {"warm_start": None if cache is None else _last(cache, form, options.get("rank"))}
    result = solve_standard(form, options, verbose)
    note = {"form": form.form, "blocks": form.layout.blocks or [form.layout.n], "rows": len(form.b)}
    note["inequalities"] = 0 if form.A_geq is None else form.A_geq.shape[0]
    result = dataclasses.replace(result, options=result.options | {"cvxpy": note})
    status = status_of(result.status, form.form)
    if status == "optimal_inaccurate":
        status, note["errors"] = _judged(form, result, options.get("tol", 1e-6))
    if cache is not None and status not in OTHER:
        cache["form"], cache["result"] = _shape(form), result
    if status in OTHER:
        return Outcome(status, np.inf if status == "infeasible" else -np.inf, None, result, setup, result.time, result.nit)
    start = time.perf_counter()
    solution = form.recover(result)
    setup += time.perf_counter() - start
    return Outcome(status, value(solution), solution, result, setup, result.time, result.nit)


def _judged(form: Any, result: Any, tol: float) -> tuple[str, DimacsErrors]:
    """Whether a point without a proof is good, from the DIMACS errors of the data.

    "optimal" where all of them are at most tol, as with solvers that prove nothing. SolverError where the variables violate the
    constraints by more than `VIOLATION`: such a point is no solution of any accuracy.
    """
    errors = dimacs(
        form.C, form.A, form.b, dual=result.dual, Y=result.Y, free=result.free, A_geq=form.A_geq, b_geq=form.b_geq,
        dual_geq=result.dual_geq if form.A_geq is not None else None, blocks=form.blocks,
    )  # fmt: skip
    if errors.worst <= tol:
        return "optimal", errors
    violation = max(errors.err1, errors.err2) if form.form == "primal" else max(errors.err3, errors.err4)
    if not violation <= VIOLATION:
        from cvxpy.error import SolverError

        raise SolverError(
            f"BMSDP stopped at a point that violates the constraints by {violation:.1e} ({result.status.name}: {result.message}); "
            'try method="interior_point", form="primal" or "dual", a higher rank, or solver=cp.CLARABEL'
        )
    return "optimal_inaccurate", errors


def solve_standard(form: Any, options: dict[str, Any], verbose: bool) -> Result:
    """`bmsdp.solve` of a standard form."""
    extra: dict[str, Any] = {"A_geq": form.A_geq, "b_geq": form.b_geq, "blocks": form.blocks}
    return solve(form.C, form.A, form.b, verbose=int(verbose), **extra, **options)


def _shape(form: Any) -> tuple[Any, ...]:
    """Equal for standard forms whose results can start one another."""
    return form.form, tuple(form.layout.sizes), form.layout.nonneg, form.layout.free, bool(form.layout.imag.any()), len(form.b)


def _last(cache: dict[str, Any], form: Any, rank: int | None) -> Result | None:
    result = cache.get("result")
    if result is None or cache["form"] != _shape(form) or (rank is not None and result.Y.shape[1] > rank):
        return None
    return result
