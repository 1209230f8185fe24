"""Limited-memory BFGS on a manifold, with ambient pairs that are projected lazily."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..manifolds.base import inner
from ..problem import LocalModel, Problem

IDLE = 100  # steps without progress, beyond rounding, of merit or gradient: a standstill


@dataclass(frozen=True)
class LBFGS:
    """Riemannian L-BFGS; pairs are stored as ambient arrays and only the final direction is projected.

    Storage: ``2 memory + 8`` arrays of n k numbers.  Each step costs one product with C, rarely more.

    Attributes
    ----------
    memory : int
    armijo : float
        Sufficient-decrease fraction of the backtracking line search (first trial: step 1; quadratic interpolation).
    """

    memory: int = 6
    armijo: float = 1e-4

    def iterates(self, problem: Problem, Y: np.ndarray) -> Generator[tuple[LocalModel, dict[str, Any]], Problem | None, None]:
        """As for all solvers; a problem sent into the generator, on the same manifold, replaces the one it works on."""
        manifold, model, products, restarts, stuck = problem.manifold, problem.at(Y), 1, 0, 0
        pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=self.memory)
        best, idle = (model.merit, model.grad_norm), 0
        while True:
            info = {"products": products, "restarts": restarts}
            changed = yield model, info | ({"stalled": True} if stuck >= 3 or idle >= IDLE or model.grad_norm == 0 else {})
            if changed is not None:  # the merit moved a little, the pairs still tell its curvature
                problem, model, products, stuck, idle = changed, changed.at(model.Y), products + 1, 0, 0
                best = (model.merit, model.grad_norm)
            D = _two_loop(pairs, model.grad)
            D = manifold.project(model.Y, D, model.factor)
            slope = -inner(model.grad, D)
            if not slope < -1e-12 * model.grad_norm * float(np.linalg.norm(D)):
                pairs.clear()
                restarts += 1
                D, slope = model.grad.copy(), -(model.grad_norm**2)
            if not pairs:
                D *= 1 / max(4 * problem.norm_C, 1e-300)
                slope *= 1 / max(4 * problem.norm_C, 1e-300)
            trial, step, spent = self._search(model, D, slope)
            products += spent
            if trial is None:
                stuck += 1
                pairs.clear()
                continue
            stuck = 0
            D *= -step
            difference = trial.grad - model.grad
            curvature = inner(D, difference)
            if curvature > 1e-10 * float(np.linalg.norm(D)) * float(np.linalg.norm(difference)):
                pairs.append((D, difference, curvature))
            model, idle = trial, idle + 1
            if model.merit < best[0] - 1e-12 * abs(best[0]) or model.grad_norm < 0.9 * best[1]:
                best, idle = (min(best[0], model.merit), min(best[1], model.grad_norm)), 0

    def _search(self, model: LocalModel, D: np.ndarray, slope: float) -> tuple[LocalModel | None, float, int]:
        """Backtrack along ``-D`` until the merit falls enough; (model or None, step, products)."""
        problem, step = model.problem, 1.0
        noise = float(np.finfo(float).eps) * max(4 * abs(model.merit), problem.norm_C * model.trace)
        for tries in range(1, 31):
            trial = problem.at(problem.manifold.retract(model.Y, -step * D))
            change = trial.merit - model.merit
            if change <= self.armijo * step * slope:
                return trial, step, tries
            if change <= noise and trial.grad_norm < model.grad_norm:  # the cost is flat in floating point: judge by the gradient
                return trial, step, tries
            bend = change - step * slope
            step *= min(max(-0.5 * step * slope / bend, 0.1), 0.5) if bend > 0 else 0.5
        return None, 0.0, 30


def _two_loop(pairs: deque[tuple[np.ndarray, np.ndarray, float]], grad: np.ndarray) -> np.ndarray:
    """``H grad`` for the inverse BFGS matrix H of the pairs (Nocedal, Wright, Algorithm 7.4)."""
    q, work = grad.copy(), np.empty_like(grad)
    weights = []
    for s, y, sy in reversed(pairs):
        a = inner(s, q) / sy
        weights.append(a)
        q -= np.multiply(y, a, out=work)
    if pairs:
        _, y, sy = pairs[-1]
        q *= sy / inner(y, y)
    for (s, y, sy), a in zip(pairs, reversed(weights), strict=True):
        q += np.multiply(s, a - inner(y, q) / sy, out=work)
    return q
