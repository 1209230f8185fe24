"""An independent look at a result: DIMACS errors from the caller's data, the bound proved again, CVXPY's answer (floor L6)."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cone import Given
from .dimacs import DimacsErrors, Primal, Slack, dimacs
from .interior_point import InteriorPoint, interior_point
from .linear_maps import as_matrix_map
from .result import Result
from .verified import lower_bound

CVXPY_ROWS = 200  # rows up to which CVXPY is asked unless told otherwise


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes
    ----------
    errors : DimacsErrors
        Of ``result.Y``, ``result.dual`` and the like, recomputed from ``result.data``.
    cost, dual_value : float
        ``<C, X>`` and ``<b, dual> + <b_geq, dual_geq>``, recomputed.
    slack_eig_min : float
        A number not above the least eigenvalue of the slack over all blocks (for large ones up to Lanczos' failure); 0 or more is a
        feasible dual, rounding aside.
    free_residual : float
        Largest ``|S_ff|`` of a free variable.
    bound : float
        `bmsdp.verified.lower_bound` of this dual; -inf where nothing bounds what it lacks, NaN where C has no entries or too many.
    reference : InteriorPoint or None
        Clarabel's answer through CVXPY, with its own proved bound.
    difference : float
        ``(cost - reference cost) / max(1, |cost|, |reference cost|)``; NaN without a reference.
    """

    errors: DimacsErrors
    cost: float
    dual_value: float
    slack_eig_min: float
    free_residual: float
    bound: float
    reference: InteriorPoint | None
    reference_cost: float
    difference: float

    def ok(self, tol: float = 1e-6) -> bool:
        """Whether all DIMACS errors are at most ``tol``, no proved bound is above the cost, and CVXPY, if asked, agrees to ``10 tol``."""
        above = self.bound - self.cost > tol * (1 + abs(self.cost))
        differs = abs(self.difference) > 10 * tol
        return self.errors.worst <= tol and not above and not differs

    def __str__(self) -> str:
        lines = [str(self.errors), f"cost {self.cost:.10g}, dual value {self.dual_value:.10g}, proved bound {self.bound:.10g}"]
        lines.append(f"slack: eigenvalues >= {self.slack_eig_min:.2e}, free rows <= {self.free_residual:.2e}")
        if self.reference is not None:
            lines.append(f"CVXPY (Clarabel): {self.reference.status}, cost {self.reference_cost:.10g}, difference {self.difference:.1e}")
        return "\n".join(lines)


def check(result: Result, *, cvxpy: bool | None = None) -> Report:
    """Recompute what a result claims from the data it was given, and ask CVXPY.

    Parameters
    ----------
    result : Result
        With its data: as `bmsdp.solve` returns it, not loaded from a file.
    cvxpy : bool, optional
        True: ask CVXPY (Clarabel), False: do not; None: where it is installed and X has at most 200 rows.

    Raises
    ------
    ValueError
        For a result without data.
    ImportError
        For ``cvxpy=True`` where it is not installed.
    """
    data = result.data
    if data is None:
        raise ValueError("this result was loaded from a file and holds no data; check the one that bmsdp.solve returned")
    A_geq, b_geq, blocks = (getattr(data, name, None) for name in ("A_geq", "b_geq", "blocks"))
    if A_geq is None or not A_geq.m:
        A_geq, b_geq = None, None
    given = Given.of(data.C, data.A, data.b, A_geq, b_geq, blocks)
    free = getattr(result, "free", np.zeros(0))
    errors = dimacs(
        data.C, data.A, data.b, Y=result.Y, free=free, dual=result.dual, A_geq=A_geq, b_geq=b_geq, dual_geq=result.dual_geq, blocks=blocks
    )
    cost, _ = primal_of(given, result.Y, free)
    slack = Slack(given, result.dual, result.dual_geq)
    reference, reference_cost = None, math.nan
    wanted = given.C.n <= CVXPY_ROWS and importlib.util.find_spec("cvxpy") is not None if cvxpy is None else cvxpy
    if wanted:
        reference = interior_point(data.C, data.A, data.b, A_geq, b_geq, blocks, tol=1e-7)
        if reference.status in ("solved", "inaccurate"):
            reference_cost, _ = primal_of(given, reference.Y, reference.free)
    return Report(
        errors=errors, cost=cost, dual_value=float(given.b @ result.dual + given.b_geq @ result.dual_geq),
        slack_eig_min=slack.eig_min(result.Y), free_residual=float(np.abs(slack.on_free).max(initial=0.0)),
        bound=_bound(given, result), reference=reference, reference_cost=reference_cost,
        difference=(cost - reference_cost) / max(1.0, abs(cost), abs(reference_cost)),
    )  # fmt: skip


def primal_of(given: Given, Y: np.ndarray, free: Any = None) -> tuple[float, float]:
    """``<C, X>`` and the violation of all rows, ``|(A(X) - b, min(0, A_geq(X) - b_geq))|_2 / (1 + max|b|)``."""
    X = Primal.of(Y, None, free, given.cone, given.C.n)
    rows = np.concatenate([X.apply(given.A) - given.b, np.minimum(X.apply(given.A_geq) - given.b_geq, 0)])
    scale = 1 + np.abs(np.concatenate([given.b, given.b_geq])).max(initial=0.0)
    return X.inner(given.C.mul), float(np.linalg.norm(rows) / scale)


def _bound(given: Given, result: Result) -> float:
    A = given.A if hasattr(given.A, "cover") and not given.A_geq.m and given.blocks is None else as_matrix_map(given.A)
    rows: dict[str, Any] = {"A_geq": given.A_geq, "b_geq": given.b_geq, "dual_geq": result.dual_geq} if given.A_geq.m else {}
    try:
        return lower_bound(given.C, A, given.b, result.dual, blocks=given.blocks, **rows).bound
    except ValueError:
        return math.nan
