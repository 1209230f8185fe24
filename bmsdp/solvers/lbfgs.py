"""Limited-memory BFGS on a manifold, and the descent that all solvers with secant pairs share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..manifolds.base import as_real, inner
from ..problem import LocalModel, Problem

IDLE = 100  # steps without progress, beyond rounding, of merit or gradient: a standstill

Iterates = Generator[tuple[LocalModel, dict[str, Any]], Problem | None, None]


class Secants(Protocol):
    """A memory of secant pairs that turns gradients into directions of descent; arrays are flat, real and of length N."""

    def __len__(self) -> int:
        """Pairs held."""
        ...

    def push(self, step: float, D: np.ndarray, grad: np.ndarray, before: np.ndarray) -> None:
        """Take in the pair ``(step D, grad - before)``; `apply` comes between two of them."""
        ...

    def clear(self) -> None:
        """Forget all pairs."""
        ...

    def apply(self, model: LocalModel, out: np.ndarray) -> None:
        """out <- -H grad, H close to the inverse Hessian."""
        ...

    @property
    def info(self) -> dict[str, Any]:
        """What the solver reports of it."""
        ...


def flat(Y: np.ndarray) -> np.ndarray:
    """A factor as one real vector, its inner product that of the field as a real space; a view where Y is C-contiguous."""
    return as_real(np.ascontiguousarray(Y)).reshape(-1)


def descend_along(problem: Problem, Y: np.ndarray, memory: Callable[[int], Secants], armijo: float) -> Iterates:
    """Steps along ``Proj(-H grad)`` with backtracking; ``memory(N)`` makes the pairs' keeper.

    A problem sent into the generator, on the same manifold, replaces the one it works on.  After three searches in vain, or `IDLE`
    steps without progress, it is ``stalled``; a search in vain, or a direction that does not descend, clears the memory (``restarts``).
    """
    model, products, restarts, stuck = problem.at(Y), 1, 0, 0
    direction = np.empty(Y.shape, problem.dtype)
    pairs = memory(flat(direction).size)
    best, idle = (model.merit, model.grad_norm), 0
    while True:
        info = {"products": products, "restarts": restarts} | pairs.info
        changed = yield model, info | ({"stalled": True} if stuck >= 3 or idle >= IDLE or model.grad_norm == 0 else {})
        if changed is not None:  # the merit moved a little, the pairs still tell its curvature
            problem, model, products, stuck, idle = changed, changed.at(model.Y), products + 1, 0, 0
            best = (model.merit, model.grad_norm)
        pairs.apply(model, flat(direction))
        D = problem.manifold.project(model.Y, direction, model.factor)
        slope = inner(model.grad, D)
        if not slope < -1e-12 * model.grad_norm * float(np.linalg.norm(D)):
            restarts += len(pairs) > 0
            pairs.clear()
            D, slope = -model.grad, -(model.grad_norm**2)
        if not len(pairs):
            D *= 1 / max(4 * problem.norm_C, 1e-300)
            slope *= 1 / max(4 * problem.norm_C, 1e-300)
        trial, step, spent = backtrack(model, D, slope, armijo)
        products += spent
        if trial is None:
            stuck, restarts = stuck + 1, restarts + (len(pairs) > 0)
            pairs.clear()
            continue
        stuck = 0
        pairs.push(step, flat(D), flat(trial.grad), flat(model.grad))
        model, idle = trial, idle + 1
        if model.merit < best[0] - 1e-12 * abs(best[0]) or model.grad_norm < 0.9 * best[1]:
            best, idle = (min(best[0], model.merit), min(best[1], model.grad_norm)), 0


def backtrack(model: LocalModel, D: np.ndarray, slope: float, armijo: float) -> tuple[LocalModel | None, float, int]:
    """Shorten the step along D until the merit falls enough; (model or None, step, products)."""
    problem, step = model.problem, 1.0
    noise = float(np.finfo(float).eps) * max(4 * abs(model.merit), problem.norm_C * model.trace)
    for tries in range(1, 31):
        trial = problem.at(problem.manifold.retract(model.Y, D if step == 1.0 else step * D))
        change = trial.merit - model.merit
        if change <= armijo * step * slope:
            return trial, step, tries
        if change <= noise and trial.grad_norm < model.grad_norm:  # the cost is flat in floating point: judge by the gradient
            return trial, step, tries
        bend = change - step * slope
        step *= min(max(-0.5 * step * slope / bend, 0.1), 0.5) if bend > 0 else 0.5
    return None, 0.0, 30


@dataclass(frozen=True)
class LBFGS:
    """Riemannian L-BFGS; pairs are stored as ambient arrays and only the final direction is projected.

    Storage: ``2 memory + 10`` arrays of n k numbers.  Each step costs one product with C, rarely more, and ``8 memory n k`` flops in place.

    Attributes
    ----------
    memory : int
    armijo : float
        Sufficient-decrease fraction of the backtracking line search (first trial: step 1; quadratic interpolation).
    """

    memory: int = 6
    armijo: float = 1e-4

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterates:
        """As for all solvers; a problem sent into the generator, on the same manifold, replaces the one it works on."""
        yield from descend_along(problem, Y, lambda size: _Ring(self.memory, size), self.armijo)


class _Ring:
    """The last pairs of positive curvature, as a ring of rows."""

    info: dict[str, Any] = {}

    def __init__(self, memory: int, size: int):
        self.S, self.Y = np.empty((2, memory + 1, size))  # a row to try the next pair in, which may be refused
        self.sy, self.yy, self.weights = np.empty((3, memory + 1))
        self.newest, self.count = 0, 0

    def __len__(self) -> int:
        return self.count

    def clear(self) -> None:
        self.count = 0

    def push(self, step: float, D: np.ndarray, grad: np.ndarray, before: np.ndarray) -> None:
        from ..kernels.secants import store

        row = (self.newest + 1) % len(self.S)
        sy, ss, yy = store(step, D, grad, before, self.S[row], self.Y[row])
        if sy > 1e-10 * np.sqrt(ss * yy):
            self.sy[row], self.yy[row] = sy, yy
            self.newest, self.count = row, min(self.count + 1, len(self.S) - 1)

    def apply(self, model: LocalModel, out: np.ndarray) -> None:
        from ..kernels.secants import two_loop

        np.negative(flat(model.grad), out=out)
        two_loop(self.S, self.Y, self.sy, self.yy, self.newest, self.count, out, self.weights)
