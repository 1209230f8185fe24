"""Riemannian trust regions with truncated conjugate gradients (Absil, Baker, Gallivan, 2007; Steihaug-Toint)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..manifolds.base import inner
from ..problem import LocalModel, Problem

Preconditioner = Callable[[LocalModel], Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class TrustRegion:
    """Newton steps inside a trust region; quadratic convergence at nondegenerate optima.

    Peak storage beside the data: 12 arrays of n k numbers (point, gradient, step, its Hessian image, residual, direction, its
    image, their trials and temporaries), one more with a preconditioner.

    Attributes
    ----------
    kappa, theta : float
        tCG stops at ``|r| <= |r0| min(kappa, (|r0| / grad_scale)^theta)``: free of the units of C.
    max_inner : int
        Hessian products per outer iteration.
    radius : float, optional
        First radius relative to ``sqrt(trace)``; 1/8 by default.
    rho_accept : float
        Steps whose actual decrease is below this part of the predicted one are rejected.
    preconditioner : callable, optional
        ``preconditioner(model)`` returns a symmetric positive definite map of tangent vectors, close to the inverse Hessian.
    """

    kappa: float = 0.1
    theta: float = 1.0
    max_inner: int = 500
    radius: float = 0.125
    rho_accept: float = 0.1
    preconditioner: Preconditioner | None = None

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        model, products, stalled = problem.at(Y), 1, False
        limit = float(np.sqrt(model.trace))
        radius, rejected = self.radius * limit, 0
        while True:
            yield model, {"products": products, "radius": radius, "stalled": stalled}
            step, predicted, inner_products, boundary = yield from self._tcg(model, radius, products)
            products += inner_products + 1
            trial = problem.at(problem.manifold.retract(model.Y, step))
            # at an optimum of 0 what cancels in the merit is of the size of norm_C trace
            noise = float(np.finfo(float).eps) * max(1e3 * abs(model.merit), 1e3 * abs(trial.merit), 8 * problem.norm_C * model.trace)
            rho = (model.merit - trial.merit + noise) / (predicted + noise) if predicted + noise > 0 else -np.inf
            better = rho > self.rho_accept if predicted > noise else trial.grad_norm < model.grad_norm  # flat merit: by gradient
            accepted = bool(better and trial.merit <= model.merit + noise)
            if not accepted or rho < 0.25:
                radius = 0.25 * min(radius, float(np.linalg.norm(step)))
            elif rho > 0.75 and boundary:
                radius = min(2 * radius, limit)
            rejected = 0 if accepted else rejected + 1
            stalled = rejected >= 20 or model.grad_norm == 0 or radius < 1e-15 * limit
            if accepted:
                model = trial
            radius = max(radius, 1e-14 * limit)

    def _tcg(
        self, model: LocalModel, radius: float, products: int
    ) -> Generator[tuple[LocalModel, dict[str, Any]], None, tuple[np.ndarray, float, int, bool]]:
        """Minimise the quadratic model in the ball; returns (step, predicted decrease, products, whether on the boundary)."""
        apply = self.preconditioner(model) if self.preconditioner is not None else None
        r = model.grad.copy()
        eta, Heta = np.zeros_like(r), np.zeros_like(r)
        z = apply(r) if apply is not None else r
        delta = -z
        r0 = float(np.linalg.norm(r))
        target = r0 * min(self.kappa, (r0 / model.grad_scale) ** self.theta) if model.grad_scale > 0 else 0.0
        rz = inner(r, z)
        ee, ed, dd = 0.0, 0.0, rz  # |eta|^2, <eta, delta>, |delta|^2 in the preconditioner's norm
        for j in range(self.max_inner):
            if r0 == 0:
                break
            H = model.hess(delta)
            curvature = inner(delta, H)
            alpha = rz / curvature if curvature > 0 else np.inf
            if curvature <= 0 or ee + 2 * alpha * ed + alpha**2 * dd >= radius**2:
                tau = (-ed + np.sqrt(max(ed**2 + dd * (radius**2 - ee), 0.0))) / dd
                _axpy(tau, delta, eta)
                _axpy(tau, H, Heta)
                return eta, -inner(model.grad, eta) - 0.5 * inner(eta, Heta), j + 1, True
            _axpy(alpha, delta, eta)
            _axpy(alpha, H, Heta)
            _axpy(alpha, H, r)
            del H
            ee += 2 * alpha * ed + alpha**2 * dd
            if np.linalg.norm(r) <= target:
                break
            if apply is not None:
                z = apply(r)
            rz, before = inner(r, z), rz
            beta = rz / before
            delta *= beta
            delta -= z
            ed, dd = beta * (ed + alpha * dd), rz + beta**2 * dd
            if (j + 1) % 50 == 0:
                info = {"products": products + j + 1, "inner": True, "merit": model.merit, "grad_norm": model.grad_norm}
                yield model, info
        return eta, -inner(model.grad, eta) - 0.5 * inner(eta, Heta), j + 1, False


def _axpy(a: float, x: np.ndarray, y: np.ndarray) -> None:
    """y += a x with a temporary of 64 Ki numbers instead of n k."""
    x, y = x.reshape(-1), y.reshape(-1)
    for s in range(0, x.size, 65536):
        y[s : s + 65536] += a * x[s : s + 65536]
