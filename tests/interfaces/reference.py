"""The standard form of `bmsdp.solve`, solved by Clarabel: an oracle for translators, which knows nothing of them."""

import warnings
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from bmsdp.result import Status

TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
WORDS = {"optimal": "CERTIFIED", "optimal_inaccurate": "CERTIFIED", "infeasible": "INFEASIBLE", "unbounded": "UNBOUNDED"}
WORDS |= {"infeasible_inaccurate": "INFEASIBLE", "unbounded_inaccurate": "UNBOUNDED"}


def solve(problem):
    """A CVXPY problem by Clarabel, as far as it gets: where 1e-10 is too much for it, it says "inaccurate"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return problem.solve(solver=cp.CLARABEL, **TIGHT)


@dataclass
class Reference:
    """What the plugin reads of a Result."""

    status: Status
    cost: float
    Y: np.ndarray | None = None
    free: np.ndarray | None = None
    dual: np.ndarray | None = None
    dual_geq: np.ndarray | None = None
    message: str = ""
    nit: int = 0
    time: float = 0.0
    options: dict = field(default_factory=dict)


def solve_standard(form, options, verbose):
    """In place of `bmsdp.interfaces.cvxpy.run.solve_standard`."""
    return clarabel(form.C, form.A, form.b, form.A_geq, form.b_geq, form.blocks)


def clarabel(C, A, b, A_geq=None, b_geq=None, blocks=None):
    n = C.shape[0]
    complex_ = any(np.iscomplexobj(M.data) for M in (C, A, A_geq) if M is not None)
    parts, variables, start = [], [], 0
    for block in blocks or [n]:
        kind, size = block if isinstance(block, tuple) else ("psd", block)
        at = np.arange(start, start + size)
        if kind == "psd":
            X = cp.Variable((size, size), hermitian=True) if complex_ else cp.Variable((size, size), symmetric=True)
            parts.append((np.add.outer(at * n, at).ravel(), cp.vec(X, order="C"), [X >> 0]))
        else:
            X = cp.Variable(size)
            parts.append((at * (n + 1), X, [X >= 0] if kind == "nonneg" else []))
        variables.append((kind, at, X))
        start += size

    def map_of(M):
        M = sp.csr_array(M).conj()
        total = sum(M[:, where] @ X for where, X, _ in parts)
        return cp.real(total) if complex_ else total

    cost = cp.sum(map_of(sp.csr_array(C).reshape(1, n * n)))
    equal = map_of(A) == b
    less = [] if A_geq is None else [map_of(A_geq) >= b_geq]
    problem = cp.Problem(cp.Minimize(cost), [equal, *less, *(c for *_, cone in parts for c in cone)])
    solve(problem)
    status = Status[WORDS[problem.status]]
    out = Reference(status, problem.value)
    if status is not Status.CERTIFIED:
        return out
    Y = np.zeros((n, n), complex if complex_ else float)
    for kind, at, X in variables:
        if kind == "psd":
            values, vectors = np.linalg.eigh(X.value)
            Y[np.ix_(at, at)] = vectors * np.sqrt(np.maximum(values, 0))
        elif kind == "nonneg":
            Y[at, at] = np.sqrt(np.maximum(X.value, 0))
        else:
            out.free = X.value
    out.Y, out.dual = Y, -np.atleast_1d(equal.dual_value)
    out.dual_geq = np.atleast_1d(less[0].dual_value) if less else np.zeros(0)
    return out
