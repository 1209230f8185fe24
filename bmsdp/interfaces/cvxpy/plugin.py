"""The conic solver that CVXPY calls."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .conic import Program, read_conic
from .run import Outcome, run


def BMSDP(*, direct_cones: bool = False) -> Any:
    """A solver for ``problem.solve(solver=BMSDP(), rank=..., tol=..., rng=..., max_time=..., method=..., verbose=...)``.

    Linear objectives under linear and semidefinite constraints, real and Hermitian, and what CVXPY itself rewrites as such.
    The `bmsdp.Result` is ``problem.solver_stats.extra_stats``: of the problem itself, or of its dual where
    ``result.options["cvxpy"]["form"]`` says so; ``form="primal"`` or ``"dual"`` asks for one. A second solve of the same
    problem starts from the first one's result, unless ``warm_start=False``.

    Parameters
    ----------
    direct_cones : bool
        Let CVXPY (where it can, from 1.9.3 on) tell which entries of a variable form a matrix, instead of listing
        all of them as rows. The answer is the same.

    Notes
    -----
    Optimal: certified, or all DIMACS errors at most tol. Optimal inaccurate: critical or stalled, neither of these; where the
    variables violate the constraints by more than 1e-3, SolverError. User limit: a time or iteration limit, or Ctrl-C; the best point
    so far is kept, which may violate the constraints of a problem whose dual was solved.
    """
    return _solver_class(direct_cones)()


class _Bridge:
    """What is ours of the solver; the rest is CVXPY's ConicSolver."""

    MIP_CAPABLE = False
    REQUIRES_CONSTR = True
    SUPPORTED_CONSTRAINTS: list[Any]
    DIMS: str
    svec = False

    def __eq__(self, other: object) -> bool:
        """All alike, so that CVXPY keeps its compiled problem and warm start between ``solve(solver=BMSDP())`` calls."""
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def name(self) -> str:
        return "BMSDP"

    def import_solver(self) -> None:
        pass

    def cite(self, data: Any) -> str:
        return ""

    def can_solve(self, problem_form: Any) -> bool:
        if super().can_solve(problem_form):  # type: ignore[misc]
            return True
        from cvxpy.error import SolverError

        raise SolverError(_refusal(self.SUPPORTED_CONSTRAINTS, problem_form))

    def apply(self, problem: Any) -> Any:
        data, inverse = super().apply(problem)  # type: ignore[misc]
        data["dir_cones"] = list(getattr(problem, "dir_cones", []))
        return data, inverse

    def solve_via_data(self, data: Any, warm_start: bool, verbose: bool, solver_opts: Any, solver_cache: Any = None) -> dict[str, Any]:
        import cvxpy.settings as s

        program = read_conic(data[s.A], data[s.B], data[s.C], data[self.DIMS], svec=self.svec, direct=data["dir_cones"])
        options = {key: value for key, value in solver_opts.items() if key != "use_quad_obj"}
        cache = solver_cache.setdefault(self.name(), {}) if warm_start and solver_cache is not None else None
        outcome = run(program, options, verbose=verbose, cache=cache)
        answer = {s.STATUS: outcome.status, s.VALUE: outcome.value, "outcome": outcome, "direct_duals": {}}
        if outcome.solution is not None:
            answer |= _rows(outcome, program, data["dir_cones"], data[self.DIMS].nonneg)
        return answer

    def invert(self, solution: Any, inverse_data: Any) -> Any:
        import cvxpy.settings as s

        out, outcome = super().invert(solution, inverse_data), solution["outcome"]  # type: ignore[misc]
        out.dual_vars.update(solution["direct_duals"])
        out.attr.update({s.SOLVE_TIME: outcome.solve_time, s.SETUP_TIME: outcome.setup_time, s.NUM_ITERS: outcome.iterations})
        out.attr[s.EXTRA_STATS] = outcome.result
        return out


@functools.cache
def _solver_class(direct: bool) -> type:
    from cvxpy import constraints
    from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver

    known: dict[str, Any] = {"SUPPORTED_CONSTRAINTS": [*ConicSolver.SUPPORTED_CONSTRAINTS, constraints.PSD]}
    if direct and hasattr(ConicSolver, "DIR_CONE_KINDS"):
        from cvxpy.utilities.psd_utils import TriangleKind

        known = {
            "SUPPORTED_CONSTRAINTS": [*ConicSolver.SUPPORTED_CONSTRAINTS, constraints.SvecPSD],
            "PSD_TRIANGLE_KIND": TriangleKind.UPPER,
            "PSD_SQRT2_SCALING": True,
            "DIR_CONE_KINDS": frozenset({"psd_triangle", "nonneg"}),
            "svec": True,
        }
    return type("BMSDPSolver", (_Bridge, ConicSolver), known)


def _rows(outcome: Outcome, program: Program, direct: list[Any], nonneg: int) -> dict[str, Any]:
    """The solution in CVXPY's rows; those of direct cones by constraint."""
    solution = outcome.solution
    matrices = [block.dual_rows(Z) for block, Z in zip(program.blocks, solution.Z, strict=True)]
    listed = len(matrices) - sum(cone.kind != "nonneg" for cone in direct)
    rows, less, given = np.concatenate([solution.less[:nonneg], *matrices[:listed]]), solution.less[nonneg:], matrices[listed:]
    duals: dict[Any, list[np.ndarray]] = {}
    for cone in direct:
        if cone.kind == "nonneg":
            own, less = np.split(less, [len(cone.indices)])
        else:
            own = given.pop(0)
        duals.setdefault(cone.constr_id, []).append(own)
    together = {key: np.concatenate(parts) for key, parts in duals.items()}
    return {"primal": solution.x, "eq_dual": solution.equal, "ineq_dual": rows, "direct_duals": together}


def _refusal(supported: list[Any], problem_form: Any) -> str:
    if problem_form.is_mixed_integer():
        return "the problem has integer variables, and BMSDP has none; relax them, or pass another solver"
    known = {kind.__name__ for kind in supported} | {"PSD", "SOC", "NonNeg", "Zero", "Equality", "Inequality"}
    other = sorted({kind.__name__ for kind in problem_form.cones(quad_obj=False)} - known)
    if not other:
        return "the problem has no constraint; BMSDP needs one, such as X >> 0"
    return (
        f"the problem needs the cones {', '.join(other)}, and BMSDP knows linear and semidefinite constraints only; "
        "state it with these, or pass solver=cp.CLARABEL"
    )
