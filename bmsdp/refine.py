"""Primal refinement: Gauss-Newton steps onto the constraints that a `Penalty` holds (floor L4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .manifolds.base import as_real
from .penalty import Penalty
from .problem import Problem

STEPS = 6  # Gauss-Newton steps; convergence is quadratic


def refine(problem: Problem, term: Penalty, Y: np.ndarray, *, tol: float = 1e-15, steps: int = STEPS) -> tuple[np.ndarray, int]:
    """Y moved onto ``A(X) = b`` along the manifold, by the shortest steps, and the number of map products spent.

    Each step solves ``<A_j Y, U> = -r_j / 2`` for the shortest tangent U (LSMR, no Gram matrix), over the equality rows and
    those inequality rows that were violated or have a multiplier.  The best point met is returned: never a worse one than Y.

    Cost: some dozen pairs of `LinearMap.apply` and `adjoint_mul` a step.
    """
    best, least, before, spent = Y, np.inf, np.inf, 0
    held = np.arange(len(term.b)) < term.m
    for step in range(steps + 1):
        r = term.map.apply(Y, Y) - term.rhs
        known, held = held, held | (r < 0) | (term.nu > 0)  # once violated, a row stays: none is dropped and met again
        violation = np.where(np.arange(len(r)) < term.m, np.abs(r), np.maximum(-r, 0))
        size = float(np.linalg.norm(violation))
        if size < least:
            best, least = Y, size
        scale = float(np.linalg.norm(Y)) ** 2 + float(np.linalg.norm(term.rhs))
        idle = not size <= 0.5 * before and not (held & ~known).any()  # rows met for the first time say nothing of the progress
        if size <= tol * scale or step == steps or idle:
            break
        before = size
        U, products = _shortest(problem, term, Y, np.where(held, -r / 2, 0.0), held)
        spent += products
        Y = problem.manifold.retract(Y, U)
        if not np.isfinite(Y).all():
            break
    return best, spent


def _shortest(problem: Problem, term: Penalty, Y: np.ndarray, target: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, int]:
    """The shortest tangent U with ``<A_j Y, U> = target_j`` on the held rows, in the sense of least squares."""
    from scipy.sparse.linalg import LinearOperator, lsmr

    manifold, factor = problem.manifold, problem.manifold.factor(Y)

    def forward(u: np.ndarray) -> np.ndarray:
        return term.map.apply(Y, u.view(Y.dtype).reshape(Y.shape)) * held

    def backward(v: np.ndarray) -> np.ndarray:
        U = manifold.project(Y, term.map.adjoint_mul(v.ravel() * held, Y), factor)
        return as_real(np.ascontiguousarray(U)).ravel()

    size = as_real(Y).size
    J: Any = LinearOperator((len(target), size), matvec=forward, rmatvec=backward, dtype=np.float64)
    found = lsmr(J, target, atol=1e-9, btol=1e-9, conlim=1e10, maxiter=min(500, 2 * len(target) + 10))
    return np.ascontiguousarray(found[0]).view(Y.dtype).reshape(Y.shape), 2 * int(found[2])
