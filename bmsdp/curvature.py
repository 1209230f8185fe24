"""The smallest eigenvalue of the Riemannian Hessian, and the step along it (floor L4).

A point is an (eps_g, eps_H)-second-order point when ``|grad f(Y)| <= eps_g`` and ``lambda_min(Hess f(Y)) >= -eps_H`` on the tangent
space (Pumir, Jelassi, Boumal, 2018).  Truncated conjugate gradients alone do not guarantee the second: it is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .lanczos import BASIS_LIMIT, LOOKS, Ritz, lanczos, start_rng
from .manifolds.base import as_real, inner
from .problem import LocalModel, Problem

ESCAPES = 100  # steps along negative curvature in one run; more gain nothing but rounding
FAILURE = 1e-6  # failure probability of a probabilistic check


@dataclass(frozen=True)
class Curvature:
    """The lower end of the spectrum of ``Hess f(Y)`` on the tangent space.

    Attributes
    ----------
    value : float
        Rayleigh quotient ``<U, Hess f(Y)[U]>`` at ``vector``; at most about 0, for a normal direction counts as 0.
    lower : float
        Lower bound on the smallest eigenvalue, as sure as ``rigor`` says.
    rigor : str
        "probabilistic" (Lanczos from a random start, failing with probability at most 1e-6) or "estimate" (a Ritz value minus
        its residual and an allowance for rounding).
    vector : ndarray, n x k
        Unit tangent direction.
    products : int
        Hessian products spent.
    """

    value: float
    lower: float
    rigor: str
    vector: np.ndarray
    products: int


def curvature(
    model: LocalModel, eps_H: float, rng: Any = None, *, max_steps: int = LOOKS[-1], stop: Callable[[], bool] | None = None
) -> Curvature:
    """Look for curvature below ``-eps_H`` (absolute, in units of the cost per unit of Y squared) by Lanczos.

    ``K^{n x k}`` counts as a real inner-product space: the Hessian is linear over the reals only.  Ends as soon as a direction below
    ``-eps_H`` was met, or a lower bound of ``-eps_H`` holds.

    Cost: 64 to ``max_steps`` Hessian products; where their basis would not fit, as many again for the direction.
    """
    Y = model.Y
    shape, dtype, size = Y.shape, Y.dtype, as_real(Y).size
    project, factor = model.problem.manifold.project, model.problem.manifold.factor(Y)

    def mul(v: np.ndarray) -> np.ndarray:
        U = np.ascontiguousarray(v).view(dtype).reshape(shape)
        H = model.hess(project(Y, U, factor))
        return as_real(np.ascontiguousarray(H)).ravel()

    def known(ritz: Ritz) -> tuple[float, str]:
        sure = ritz.lower_bound(FAILURE / len(LOOKS))
        if sure >= -eps_H:
            return sure, "probabilistic"
        return float(ritz.values[0] - ritz.residuals[0]) - 1e-14 * float(np.abs(ritz.values).max()), "estimate"

    def enough(ritz: Ritz) -> bool:
        found = ritz.values[0] < -eps_H and ritz.residuals[0] < 0.5 * abs(ritz.values[0])
        return bool(found or known(ritz)[0] >= -eps_H and (known(ritz)[1] == "probabilistic" or ritz.residuals[0] <= 0.1 * eps_H))

    generator = start_rng(rng)
    steps = max(64, min(max_steps, int(BASIS_LIMIT // size)))
    ritz = lanczos(mul, size, np.dtype(np.float64), generator, steps, vectors=1, enough=enough, stop=stop, again=True)
    U = np.ascontiguousarray(ritz.vectors[:, 0]).view(dtype).reshape(shape)
    U = project(Y, U, factor)
    norm = float(np.linalg.norm(U))
    value = 0.0
    if norm > 0.5:  # else a normal direction: nothing tangent is below 0
        U /= norm
        value = inner(U, model.hess(U))
    lower, rigor = known(ritz)
    return Curvature(value, min(lower, 0.0), rigor, U, ritz.steps + 1)


def descent_along(problem: Problem, Y: np.ndarray, step: np.ndarray, merit: float) -> tuple[LocalModel | None, int]:
    """Retract ``step`` from Y, halved while the merit keeps falling: ``(the best point below merit or None, products)``."""
    best: LocalModel | None = None
    for tries in range(1, 51):
        trial = problem.at(problem.manifold.retract(Y, step))
        if best is not None and trial.merit >= best.merit:
            return best, tries
        if trial.merit < merit:
            best = trial
        step = step / 2
    return best, 50


def escape_saddle(model: LocalModel, found: Curvature) -> tuple[LocalModel | None, int]:
    """A point of lower merit along the direction of negative curvature, downhill; None where floating point shows no descent."""
    U = found.vector if inner(model.grad, found.vector) <= 0 else -found.vector
    return descent_along(model.problem, model.Y, 0.5 * np.sqrt(model.trace) * U, model.merit)
