"""What a solver's outcome means in the caller's terms: points, multipliers, bounds proved again, statuses (floor L6)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from .cone import Given
from .linear_maps import MatrixMap, as_matrix_map
from .minimize import versions
from .presolved import Infeasible, Point, Presolved
from .result import Data, Result, Status
from .verified import lower_bound

FACE_LOSS = 1e-8  # relative loss of a bound on the way back up to which larger multipliers of rows that force a face are not tried


def to_caller(state: Presolved, given: Given, result: Result) -> Result:
    """Point, multipliers and certificate in the caller's rows; a verified bound is proved again from the caller's own data."""
    point = state.back(Point(result.Y, np.zeros(0), result.dual, result.dual_geq))
    data = data_of(given)
    out = dataclasses.replace(
        result, Y=point.Y, free=point.free, dual=point.y, dual_geq=np.maximum(point.z, 0.0), cost=result.cost + state.constant,
        bound=result.bound + state.constant, data=data,
    )  # fmt: skip
    proof = result.certificate
    if proof is None:
        return out
    bound, rigor, dual, dual_geq = proof.bound + state.constant, proof.rigor, point.y, out.dual_geq
    if state.same and np.array_equal(dual[dual != 0], result.dual[result.dual != 0]):
        return dataclasses.replace(out, certificate=dataclasses.replace(proof, dual=dual))
    if proof.rigor == "verified" or not np.isfinite(bound) and out.options["certify"] in ("auto", "verified"):
        bound, rigor, dual, dual_geq = _verified_again(state, given, bound, dual, dual_geq)
    if not np.isfinite(bound):
        return dataclasses.replace(out, certificate=dataclasses.replace(proof, dual=point.y))
    gap_abs = proof.gap_abs + (proof.bound + state.constant - bound) if np.isfinite(proof.bound) else out.cost - bound
    scale = max(abs(out.cost), abs(bound), 1.5e-8 * state.problem.norm_C * float(np.linalg.norm(point.Y)) ** 2)
    same = bound == proof.bound
    gap = proof.gap if same else gap_abs / scale if scale > 0 else proof.gap
    proof = dataclasses.replace(proof, bound=bound, gap=gap, gap_abs=gap_abs, dual=dual, rigor=rigor, dual_geq=dual_geq)
    if len(result.history["gap"]):
        result.history["gap"][-1] = gap
    out = dataclasses.replace(out, bound=bound, gap=gap, dual=dual, dual_geq=dual_geq, certificate=proof)
    return judged(out)


def judged(result: Result) -> Result:
    """The status that gap and rigor in the caller's terms allow."""
    proof, tol = result.certificate, result.options["tol"]
    assert proof is not None
    if result.status.success and not abs(result.gap) <= tol:
        return dataclasses.replace(result, status=Status.STALLED, message=Status.STALLED.value)
    if result.status is Status.LOCALLY_OPTIMAL and abs(result.gap) <= tol and result.options.get("infeasibility", 0.0) <= tol:
        status = Status.ESTIMATED if proof.rigor == "estimate" else Status.CERTIFIED
        return dataclasses.replace(result, status=status, message=status.value)
    if result.status is Status.CERTIFIED and proof.rigor == "estimate":
        return dataclasses.replace(result, status=Status.ESTIMATED, message=Status.ESTIMATED.value)
    return result


def estimated(given: Given, result: Result, options: dict[str, Any]) -> Result:
    """ESTIMATED where all optimality errors are small, though no bound is proved: what S lacks is paid for by this X, twice."""
    from .dimacs import Slack, dimacs

    tol, m_geq = options["tol"], given.A_geq.m
    if options["certify"] not in ("auto", "estimate") or not np.isfinite(result.Y).all() or not np.isfinite(result.cost):
        return result
    above = {"A_geq": given.A_geq, "b_geq": given.b_geq, "dual_geq": result.dual_geq} if m_geq else {}
    errors = dimacs(given.C, given.A, given.b, Y=result.Y, free=result.free, dual=result.dual, blocks=given.blocks, **above)
    if not errors.worst <= tol:
        return result
    slack = Slack(given, result.dual, result.dual_geq)
    lacks = max(0.0, -slack.eig_min(result.Y)) * float(np.linalg.norm(result.Y)) ** 2 + float(np.abs(slack.on_free) @ np.abs(result.free))
    bound = float(given.b @ result.dual + given.b_geq @ result.dual_geq) - 2 * lacks
    gap_abs = result.cost - bound
    gap = gap_abs / max(abs(result.cost), abs(bound), 1e-300)
    if not abs(gap) <= tol:
        return result
    known = {"bound": bound, "gap": gap, "gap_abs": gap_abs, "rigor": "estimate", "gap_rigor": "estimate", "failure_probability": np.nan}
    proof = dataclasses.replace(result.certificate, dual=result.dual, dual_geq=result.dual_geq, **known)  # type: ignore[type-var]
    status = Status.ESTIMATED
    return dataclasses.replace(result, bound=bound, gap=gap, certificate=proof, status=status, message=status.value)


def _verified_again(
    state: Presolved, given: Given, bound: float, y: np.ndarray, z: np.ndarray
) -> tuple[float, str, np.ndarray, np.ndarray]:
    """A verified bound once more, from the caller's own rows: the way back from internal coordinates rounds.

    A trace_bound that has a multiplier is an inequality more.
    """
    A_geq, b_geq, dual_geq = given.A_geq, given.b_geq, z
    if state.trace_dual > 0:
        bounded = np.setdiff1d(np.arange(given.C.n, dtype=np.int64), given.cone.free)
        row = sp.csr_array((-np.ones(len(bounded)), (np.zeros(len(bounded), int), bounded * (given.C.n + 1))), shape=(1, given.C.n**2))
        A_geq = MatrixMap.stack([as_matrix_map(A_geq), MatrixMap(row, given.C.n)])
        b_geq, dual_geq = np.append(b_geq, -(state.trace_bound or 0.0)), np.append(z, state.trace_dual)
    y_face, z_face = _vectors(given, *state.forcing)
    z_face = np.append(z_face, np.zeros(len(dual_geq) - len(z_face)))
    best, scale = None, float(state.problem.norm_C)
    for often in [0.0, *(scale * 10.0 ** np.arange(2, 9, 2))] if y_face.any() or z_face.any() else [0.0]:  # no attained multiplier
        try:
            sure = lower_bound(
                given.C, given.A, given.b, y + often * y_face, A_geq=A_geq if A_geq.m else None, b_geq=b_geq if A_geq.m else None,
                dual_geq=dual_geq + often * z_face if A_geq.m else None, blocks=given.blocks, trace_bound=state.trace_bound,
                shift=state.caller_shift,
            )  # fmt: skip
        except ValueError:  # too much fill-in for the caller's form
            break
        best = sure if best is None or sure.bound > best.bound else best
        if sure.bound >= bound - FACE_LOSS * max(abs(bound), abs(sure.bound)):
            break
    if best is None or best.bound == -np.inf:
        return bound, "estimate", y, z
    return best.bound, "verified", best.dual, best.dual_geq[: given.A_geq.m]


def _vectors(given: Given, y: dict[int, float], z: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of all rows from those that are not 0."""
    out = np.zeros(given.A.m), np.zeros(given.A_geq.m)
    for part, rows in zip(out, (y, z), strict=True):
        part[list(rows)] = list(rows.values())
    return out


def data_of(given: Given) -> Data:
    """The caller's problem, as `Result.data` keeps it."""
    return Data(given.C, given.A, given.b, given.A_geq if given.A_geq.m else None, given.b_geq, given.blocks)


def outcome(given: Given, status: Status, message: str, options: dict[str, Any], seconds: float = 0.0, ray: Any = None) -> Result:
    """A result without a solution."""
    n, dtype = given.C.n, np.complex128 if given.is_complex else np.float64
    values = {Status.INFEASIBLE: np.inf, Status.UNBOUNDED: -np.inf}
    value = values.get(status, np.nan)
    history = {name: np.zeros(0) for name in ("nit", "time", "products", "rank", "merit", "grad_norm", "gap")}
    kept = {"tol": options["tol"], "certify": options["certify"], "rank": options["rank"], "stages": []}
    return Result(
        Y=np.zeros((n, 1), dtype), cost=value, bound=value if status is not Status.STALLED else -np.inf, gap=np.inf,
        dual=np.zeros(given.A.m), dual_geq=np.zeros(given.A_geq.m), status=status, message=message, nit=0, products=0, time=seconds,
        history=history, certificate=None, options=kept, versions=versions(), data=data_of(given), ray=ray,
        free=np.zeros(len(given.cone.free)),
    )  # fmt: skip


def contradiction(given: Given, error: Infeasible, options: dict[str, Any]) -> Result:
    """What presolve found, with its ray scaled to ``<b, y> + <b_geq, z> = 1`` where one is attained.

    On a face it is one for ``V* A_j V`` only; rows ``A_j >= 0, b_j = 0`` that force the face are subtracted, as often as it takes.
    """
    from .rays import ROUNDING, check_infeasibility_ray

    (y, z), (y_face, z_face) = (_vectors(given, *rows) for rows in ((error.y, error.z), error.forcing))
    size = np.abs(np.concatenate([y, z])).max(initial=0.0)
    for often in [0.0, *(size * 4.0 ** np.arange(-2, 10))] if y_face.any() or z_face.any() else [0.0]:
        found = check_infeasibility_ray(*given.arguments, dual=y + often * y_face, dual_geq=z + often * z_face)
        if found is not None and max(found.excess, found.free_residual) <= ROUNDING * found.weight:
            return outcome(given, Status.INFEASIBLE, f"infeasible: {error}", options, ray=found.parts)
    return outcome(given, Status.INFEASIBLE, f"infeasible: {error}", options)
