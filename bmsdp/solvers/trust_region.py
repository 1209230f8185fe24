"""Riemannian trust regions with truncated conjugate gradients (Absil, Baker, Gallivan, 2007; Steihaug-Toint)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..manifolds.base import inner
from ..preconditioners.base import Preconditioner, Run, started
from ..problem import LocalModel, Problem

TINY = 1e-290  # merits below it are of gradients whose inner products underflow
FLOOR = 0.3  # tCG stops at this part of the gradient norm that the caller wants
FORCING = 10.0  # quadratic convergence for any constant; 1 solves far more accurately than the next point deserves


class Step(NamedTuple):
    """A step of tCG, what the quadratic model falls along it, and whether it ends where the path leaves a ball."""

    eta: np.ndarray
    predicted: float
    boundary: bool


@dataclass(frozen=True)
class TrustRegion:
    """Newton steps inside a trust region; quadratic convergence at nondegenerate optima.

    A rejected step is shortened along the path of tCG that led to it, which a quarter of the radius would have given: no products.

    Peak storage beside the data: 12 arrays of n k numbers (point, gradient, step, a shorter one, residual, direction, its
    image, their trials and temporaries), one more with a preconditioner, and what that keeps.

    The caller may write ``info["target"]``, the gradient norm it wants, into what was yielded: tCG then solves no more accurately than
    that needs.  ``info["preconditioned"]`` says whether the last step was, ``info["preconditioned_steps"]`` how many were.

    Attributes
    ----------
    kappa, theta : float
        tCG stops at ``|r| <= |r0| min(kappa, (10 |r0| sqrt(n) / grad_scale)^theta)`` with the first
        point's grad_scale: free of the units of C and Y; no lower than 0.3 ``target``.
    max_inner : int
        Hessian products per outer iteration.
    radius : float, optional
        First radius relative to ``sqrt(trace)``; 1/8 by default.
    rho_accept : float
        Steps whose actual decrease is below this part of the predicted one are rejected.
    preconditioner : optional
        One of `bmsdp.preconditioners`; or ``preconditioner(model)``, which returns a symmetric positive definite map of tangent vectors,
        close to a multiple of the inverse Hessian, or None.  The ball stays the Euclidean one, whose radius means the same whether a
        step is preconditioned or not: tCG stops where its path leaves it.
    """

    kappa: float = 0.1
    theta: float = 1.0
    max_inner: int = 500
    radius: float = 0.125
    rho_accept: float = 0.1
    preconditioner: Preconditioner | Callable[[LocalModel], Any] | None = None

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        model, products, stalled = problem.at(Y), 1, False
        limit = float(np.sqrt(model.trace))
        radius, rejected = self.radius * limit, 0
        unit = 2 * problem.norm_C * limit / np.sqrt(problem.n)  # a gradient at a typical row's distance from the optimum
        run = started(self.preconditioner, problem)
        short: Step | None = None
        while True:
            info = {"products": products, "radius": radius, "stalled": stalled} | run.info
            yield model, info
            if short is None:
                step, short, spent = yield from self._tcg(model, radius, products, run, unit, info.get("target", 0.0))
            else:
                step, short, spent = short, None, 0
            products += spent + 1
            trial = problem.at(problem.manifold.retract(model.Y, step.eta))
            rho, accepted = self._judge(model, trial, step.predicted)
            length = float(np.linalg.norm(step.eta))
            if accepted or 0.25 * radius > 0.5 * length:
                short = None
            if short is not None:
                radius *= 0.25
            elif not accepted or rho < 0.25:
                radius = 0.25 * min(radius, length)
            elif rho > 0.75 and step.boundary:
                radius = min(2 * radius, limit)
            rejected = 0 if accepted else rejected + 1
            stalled = rejected >= 20 or model.grad_norm == 0 or radius < 1e-15 * limit
            if accepted:
                model = trial
            radius = max(radius, 1e-14 * limit)

    def _judge(self, model: LocalModel, trial: LocalModel, predicted: float) -> tuple[float, bool]:
        """(actual over predicted decrease, whether the trial is accepted)."""
        # at an optimum of 0 what cancels in the merit is of the size of norm_C trace
        size = max(1e3 * abs(model.merit), 1e3 * abs(trial.merit), 8 * model.problem.norm_C * model.trace)
        noise = float(np.finfo(float).eps) * size + TINY
        rho = (model.merit - trial.merit + noise) / (predicted + noise) if predicted + noise > 0 else -np.inf
        better = rho > self.rho_accept if predicted > noise else trial.grad_norm < model.grad_norm  # flat merit: by gradient
        return rho, bool(better and trial.merit <= model.merit + noise)

    def _tcg(
        self, model: LocalModel, radius: float, products: int, run: Run, unit: float, wanted: float
    ) -> Generator[tuple[LocalModel, dict[str, Any]], None, tuple[Step, Step | None, int]]:
        """Minimise the quadratic model in the ball; (step, where the path left the ball of a quarter of the radius, products)."""
        apply = run.at(model)
        r = model.grad.copy()
        eta, predicted, short = np.zeros_like(r), 0.0, None
        z = apply(r) if apply is not None else r
        delta = -z
        r0 = model.grad_norm
        target = max(r0 * min(self.kappa, (FORCING * r0 / unit) ** self.theta), FLOOR * wanted) if unit > 0 else 0.0
        rz = inner(r, z)
        ee, ed, dd = 0.0, 0.0, inner(z, z)  # |eta|^2, <eta, delta>, |delta|^2
        boundary, j = False, -1
        while rz > 0 and j + 1 < self.max_inner:
            j += 1
            H = run.product(model, delta)
            curvature = inner(delta, H)
            alpha = rz / curvature if curvature > 0 else np.inf
            longer = ee + 2 * alpha * ed + alpha**2 * dd
            boundary = curvature <= 0 or longer >= radius**2
            if short is None and (boundary or longer >= radius**2 / 16):
                tau = _to_sphere(ee, ed, dd, radius / 4)
                short = Step(eta + tau * delta, predicted + tau * rz - 0.5 * tau**2 * curvature, True)
            if boundary:
                alpha = _to_sphere(ee, ed, dd, radius)
            _axpy(alpha, delta, eta)
            predicted += alpha * rz - 0.5 * alpha**2 * curvature
            if boundary:
                break
            _axpy(alpha, H, r)
            del H
            if np.linalg.norm(r) <= target:
                break
            if apply is not None:
                z = apply(r)
            rz, before = inner(r, z), rz
            beta = rz / before
            delta *= beta
            delta -= z
            ee = longer
            ed, dd = (beta * (ed + alpha * dd), rz + beta**2 * dd) if apply is None else (inner(eta, delta), inner(delta, delta))
            if (j + 1) % 50 == 0:
                info = {"products": products + j + 1, "inner": True, "merit": model.merit, "grad_norm": model.grad_norm}
                yield model, info
        run.ended(j + 1, boundary)
        return Step(eta, predicted, boundary), short, j + 1


def _to_sphere(ee: float, ed: float, dd: float, radius: float) -> float:
    """The tau >= 0 with ``|eta + tau delta| = radius``, from ``|eta|^2, <eta, delta>, |delta|^2``."""
    return float((-ed + np.sqrt(max(ed**2 + dd * (radius**2 - ee), 0.0))) / dd)


def _axpy(a: float, x: np.ndarray, y: np.ndarray) -> None:
    """y += a x with a temporary of 64 Ki numbers instead of n k."""
    x, y = x.reshape(-1), y.reshape(-1)
    for s in range(0, x.size, 65536):
        y[s : s + 65536] += a * x[s : s + 65536]
