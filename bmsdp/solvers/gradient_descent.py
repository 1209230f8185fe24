"""Riemannian gradient descent with Armijo backtracking: the shortest solver there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..problem import LocalModel, Problem


@dataclass(frozen=True)
class GradientDescent:
    """Steps along ``-grad``, halved until the merit falls by ``armijo`` of what the slope promises."""

    armijo: float = 1e-4

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        model, products, step, stalled = problem.at(Y), 1, 1 / max(8 * problem.norm_C, 1e-300), False
        while True:
            yield model, {"products": products, "step": step, "stalled": stalled}
            trial, stalled = model, True
            for _ in range(60 if model.grad_norm > 0 else 0):
                trial = problem.at(problem.manifold.retract(model.Y, -step * model.grad))
                products += 1
                stalled = not trial.merit <= model.merit - self.armijo * step * model.grad_norm**2
                if not stalled:
                    break
                step /= 2
            model, step = (model if stalled else trial), 2 * step
